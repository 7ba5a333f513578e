package plant

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/phys/look"
	"github.com/outsight-vmi/outsight/virt"
)

// Planting is what is planted in a guest.
type Planting struct {
	ID      string    // random, in hex
	When    time.Time // by the clock of the host that planted
	State   string    // of its last job: "done", "armed", "running", "failed"
	Objects []Object
	Mailbox virt.Addr
	// Problems are what is not as it was planted, one sentence each.
	Problems []string

	g      *guest.Guest
	boot   int
	p      *places
	box    *mailbox
	record *record
	images map[string]string // by program: what it is now
	whole  bool              // code and data are what was written
	// notes are all that was read when it was last looked at; nil: that cannot be noted.
	notes *look.Noted
	noted int // the boot in which that was
}

// Object is a BPF object that was planted.
type Object struct {
	Kind string // "map", "program", "link"
	Name string // of a link: its program's
	ID   uint32
	FD   int32     // in the files of the kernel's threads
	Addr virt.Addr // of the struct bpf_map, bpf_prog or bpf_link; 0: it is not there
	// Missed is how many runs of a program the kernel left out, because it was running on the processor already.
	Missed uint64
}

// ErrNothing says that nothing of outsight's is planted in a guest.
var ErrNothing = errors.New("no probes of outsight's are planted in this guest")

// Find finds what is planted in a guest, by whomever and whenever: all of it is in the guest's memory.
func Find(ctx context.Context, g *guest.Guest) (*Planting, error) {
	l, err := g.Look(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	m, err := At(ctx, l)
	if errors.Is(err, ErrNothing) {
		err = lostBy(g.Machine())
	}
	if err != nil {
		return nil, err
	}
	m.g = g
	if err := m.record.found(g.Machine()); err != nil {
		return nil, fmt.Errorf("note where the probes are: %w", err)
	}
	return m, nil
}

// At finds what is planted in a guest at a look, to be looked at, not removed.
func At(ctx context.Context, l *guest.Look) (*Planting, error) {
	// Where nothing can be planted, nothing is. Most often there is no mailbox, so that is looked at before the types.
	nothing := func(err error) error {
		var refused *RefusedError
		if errors.As(err, &refused) {
			return ErrNothing
		}
		return err
	}
	p, err := locate(l.Linux)
	if err != nil {
		return nil, nothing(err)
	}
	box, err := p.readMailbox(l.Linux.Space)
	if errors.Is(err, errNoMailbox) {
		return nil, ErrNothing
	}
	if err := p.checkTypes(); err != nil {
		return nil, nothing(err)
	}
	if err != nil {
		return nil, err
	}
	m := &Planting{p: p, boot: l.Boot}
	m.record, _ = readRecord(box.id) // another host's, or another user's: nil
	return m, m.look(ctx, l)
}

// Noted says that this host and user noted the planting: it is theirs.
func (m *Planting) Noted() bool { return m.record != nil }

// Lacks are the programs of a load that are not planted.
func (m *Planting) Lacks(l *Load) (names []string) {
	for _, p := range l.Programs {
		if !slices.ContainsFunc(m.Objects, func(o Object) bool { return o.Kind == "program" && o.Name == p.Name }) {
			names = append(names, p.Name)
		}
	}
	return names
}

// Is says whether exactly this load is what was planted.
func (m *Planting) Is(l *Load) (bool, error) {
	code, err := blob(m.p)
	if err != nil {
		return false, err
	}
	types, err := m.p.s.Types()
	if err != nil {
		return false, err
	}
	d, err := l.encode(m.p.data, m.p.mailbox, l.types(types))
	return err == nil && sum(code, d.b) == m.box.sum, err
}

// Settled says that no job is under way.
func (m *Planting) Settled() bool { return m.box.state != stateArmed && m.box.state != stateRunning }

// Holds says whether an address is in code or data that this host has written into the guest, and that is as it was written.
func (m *Planting) Holds(a virt.Addr) bool {
	in := func(from virt.Addr, n uint32) bool { return a >= from && a < from+virt.Addr(n) }
	return m.whole && m.Noted() && (in(m.box.code, m.box.codeSize) || in(m.box.data, m.box.dataSize))
}

// Ring is the struct bpf_map of the ring; 0: it is not there.
func (m *Planting) Ring() virt.Addr {
	if len(m.Objects) == 0 {
		return 0
	}
	return m.Objects[0].Addr
}

// Check looks at what is there now, and what is not as it was planted: see Problems. It is quick if no byte of what was read the last time has
// changed: what was concluded holds.
func (m *Planting) Check(ctx context.Context) error {
	l, err := m.g.Look(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	if m.notes != nil && m.noted == l.Boot && l.Same(m.notes) {
		return nil
	}
	m.notes, m.noted = nil, l.Boot
	noted, notes := l.Noted(nil)
	if noted == nil {
		return m.look(ctx, l)
	}
	if err := m.look(ctx, noted); err != nil {
		return err
	}
	m.notes = notes
	return nil
}

// look reads what is there of it at a look.
func (m *Planting) look(ctx context.Context, l *guest.Look) error {
	if l.Boot != m.boot {
		return errBooted
	}
	p := *m.p
	p.s = l.Linux
	box, err := p.readMailbox(l.Linux.Space)
	if err != nil {
		return err
	}
	m.box, m.Mailbox = box, p.mailbox
	m.ID, m.When, m.State = hex.EncodeToString(box.id[:]), box.when, box.state.String()
	m.Objects, m.Problems, m.whole = nil, nil, false
	problem := func(format string, args ...any) { m.Problems = append(m.Problems, fmt.Sprintf(format, args...)) }
	if !p.leadsHere(box) {
		problem("the mailbox names code at %#x and data at %#x, expected %#x and %#x", uint64(box.code), uint64(box.data), uint64(p.code), uint64(p.data))
		return nil
	}
	switch box.state {
	case stateNone:
		problem("nothing was loaded: who planted was killed before that")
	case stateFailed:
		problem("the guest's kernel refused step %d of the last job: %v", box.steps+1, unix.Errno(-box.err))
	}
	m.checkBytes(&p, problem)
	files, err := p.openFiles(box.objects)
	if err != nil {
		return err
	}
	found, err := objects(ctx, l)
	if err != nil {
		return err
	}
	for i, fd := range box.objects {
		o := Object{Kind: box.shape.kind(i), FD: fd}
		f := files[i]
		k := found[f.object]
		switch {
		case fd < 0 && box.state == stateDone:
			problem("a %s was not loaded, or was removed", o.Kind)
		case fd < 0:
		case f.object == 0 || f.kind != o.Kind:
			problem("descriptor %d of the kernel's threads is no %s any more", fd, o.Kind)
		case k.id == 0:
			problem("the %s of descriptor %d is not in the kernel's list of them", o.Kind, fd)
		case !strings.HasPrefix(k.name, "outsight_"):
			problem("the %s of descriptor %d is %q, not outsight's", o.Kind, fd, k.name)
		default:
			o.Name, o.ID, o.Addr = k.name, k.id, f.object
			if k.program != nil {
				o.Missed = k.program.Missed
			}
		}
		m.Objects = append(m.Objects, o)
	}
	return m.checkRuns(l, found, problem)
}

// checkBytes compares what was written with what is there.
func (m *Planting) checkBytes(p *places, problem func(string, ...any)) {
	code, err := blob(p)
	if err != nil {
		problem("%v", err)
		return
	}
	space := p.s.Space
	got := make([]byte, m.box.codeSize)
	data := make([]byte, m.box.dataSize)
	if _, err := space.ReadAt(got, p.code); err != nil {
		problem("%v", err)
		return
	}
	if _, err := space.ReadAt(data, p.data); err != nil {
		problem("%v", err)
		return
	}
	if !bytes.Equal(got, code) {
		problem("the code at %#x is not what was planted", uint64(p.code))
	}
	if s := sum(got, data); s != m.box.sum || m.record != nil && s != m.record.Sum {
		problem("the programs at %#x are not what was planted", uint64(p.data))
	}
	m.whole = len(m.Problems) == 0
}

// openFile is what a descriptor of the kernel's threads leads to.
type openFile struct {
	kind   string // "map", "program", "link"; empty: something else
	object virt.Addr
}

// openFiles reads what descriptors of the kernel's threads lead to: kthreadd shares them with the idle task, and all threads that
// it makes with it (CLONE_FILES).
func (p *places) openFiles(fds []int32) ([]openFile, error) {
	kinds := map[virt.Addr]string{}
	for name, kind := range map[string]string{"bpf_map_fops": "map", "bpf_prog_fops": "program", "bpf_link_fops": "link", "bpf_link_fops_poll": "link"} {
		if a, ok := p.s.Address(name); ok {
			kinds[a] = kind
		}
	}
	r := p.s.Reader()
	table := r.Pointer(p.files, p.o.fdt)
	limit, array := r.Uint(table, p.o.maxFDs), r.Pointer(table, p.o.fds)
	files := make([]openFile, len(fds))
	for i, fd := range fds {
		if fd < 0 || uint64(fd) >= limit {
			continue
		}
		f := r.Ptr(array + 8*virt.Addr(fd))
		if f == 0 {
			continue
		}
		files[i] = openFile{kinds[r.Pointer(f, p.o.fop)], r.Pointer(f, p.o.private)}
	}
	return files, r.Err
}

// errBooted is [ErrNothing] of a guest that has another kernel's memory where something was planted.
var errBooted = fmt.Errorf("%w any more: it has booted again", ErrNothing)

// Remove removes what is planted, and makes the memory what it was. The error is [ErrNothing] if it is not there any more.
func (m *Planting) Remove(ctx context.Context) error {
	unlock, err := lock(m.g.Machine())
	if err != nil {
		return err
	}
	defer unlock()
	l, err := m.g.Look(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	if l.Boot != m.boot {
		return errors.Join(errBooted, endRecord(m.box.id, endGone))
	}
	m.p.s = l.Linux
	h, err := m.p.hand()
	if err != nil {
		return err
	}
	return m.remove(ctx, h)
}

func (m *Planting) remove(ctx context.Context, h *hand) error {
	p := m.p
	box, err := p.readMailbox(h.space)
	switch {
	case errors.Is(err, errNoMailbox):
		return errors.Join(ErrNothing, endRecord(m.box.id, endGone))
	case err != nil:
		return err
	case box.id != m.box.id:
		return refuse("other probes are planted by now (%x)", box.id)
	case !p.leadsHere(box):
		return refuse("the mailbox at %#x does not lead to what this outsight planted: nothing is written", uint64(p.mailbox))
	}
	if err := p.alive(ctx, h, m.g.Machine()); err != nil {
		return err
	}
	if m.box, err = p.settle(ctx, h); err != nil {
		return err
	}
	open, err := m.mine(h)
	if err != nil {
		return err
	}
	whole, err := p.ours(h)
	switch {
	case err != nil:
		return err
	case open > 0 && !whole:
		return refuse("the code at %#x is not what was planted: it is not run again, and what is planted stays", uint64(p.code))
	case open > 0:
		// The job lies where the guest's root can write: it is made again.
		d := &data{at: p.data}
		d.removal = d.job(closing(m.box.shape))
		if uint64(len(d.b)) > uint64(m.box.dataSize) {
			return refuse("the data at %#x has no room for the job that removes", uint64(p.data))
		}
		if err := h.write(d.b, p.data); err != nil {
			return err
		}
		if err := m.run(ctx, h, d.removal); err != nil {
			return err
		}
	}
	if m.box.serial > 0 { // a job was armed once
		if err := p.gone(ctx, h); err != nil {
			return err
		}
	}
	if err := p.alive(ctx, h, m.g.Machine()); err != nil {
		return err
	}
	if err := m.same(h); err != nil {
		return err
	}
	if err := p.wipe(h, m.box); err != nil {
		return err
	}
	return endRecord(m.box.id, endRemoved)
}

func (p *places) leadsHere(box *mailbox) bool {
	return box.code == p.code && box.data == p.data && box.codeSize <= blobRoom && uint64(box.dataSize) <= p.room
}

// mine counts the descriptors that are to be closed. What the guest has closed itself, and given to others, is taken out.
func (m *Planting) mine(h *hand) (open int, err error) {
	files, err := m.p.openFiles(m.box.objects)
	if err != nil {
		return 0, err
	}
	for i, f := range files {
		switch {
		case m.box.objects[i] < 0:
		case f.kind != m.box.shape.kind(i):
			if err := h.u32(0xffffffff, m.p.mailbox+atObjects+virt.Addr(4*i)); err != nil {
				return 0, err
			}
		default:
			open++
		}
	}
	return open, nil
}

// ours says whether the blob is whole. Who was killed while it wrote or wiped it leaves a part of it; other bytes than that are
// an error.
func (p *places) ours(h *hand) (whole bool, err error) {
	code, err := blob(p)
	if err != nil {
		return false, err
	}
	got := make([]byte, len(code))
	if _, err := h.space.ReadAt(got, p.code); err != nil {
		return false, err
	}
	for i, c := range got {
		if c != code[i] && c != int3 {
			return false, refuse("the code at %#x is not what was planted: nothing is written", uint64(p.code))
		}
	}
	return bytes.Equal(got, code), nil
}
