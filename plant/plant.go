// Package plant has a stock guest's own kernel run BPF programs, planted from outside by writes to its memory alone: nothing
// is installed in the guest, no processor is stopped, and no monitor takes part. What is planted is verified by the
// guest's kernel as if its root had loaded it, bears outsight's name, and is removed the same way.
//
// It is the only package that writes into a guest. What it writes, where, and why that is safe is in
// docs/decisions/0019-planted-probes.md.
package plant

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/virt"
)

// Write is one piece of guest memory that is to be changed.
type Write struct {
	What string
	At   virt.Addr
	Size int
}

// Plan is what is to be written into a guest, checked and ready. Nothing has been written yet.
type Plan struct {
	Writes []Write // in their order
	Note   string  // what there is to say of the choice of programs; empty: nothing

	g    *guest.Guest
	boot int
	load Load
	p    *places
	code []byte
	data *data
	box  *mailbox
}

// ErrPlanted says that a guest has probes already.
var ErrPlanted = errors.New("probes are planted in this guest already: outsight probe list shows them, outsight probe remove removes them")

// Prepare finds out whether a load can be planted in a guest, and what has to be written where. The error is a
// [*RefusedError] where it cannot, or must not.
func Prepare(ctx context.Context, g *guest.Guest, load Load) (*Plan, error) {
	l, err := g.Look(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	p, err := find(l.Linux)
	if err != nil {
		return nil, err
	}
	if m, err := p.readMailbox(p.s.Space); err == nil && m != nil {
		return nil, ErrPlanted
	} else if err != nil && !errors.Is(err, errNoMailbox) {
		return nil, err
	}
	if err := p.ready(ctx, l); err != nil {
		return nil, err
	}
	if n := load.size(); n > maxTranslated && l.Machine.Accel == "tcg" {
		return nil, refuse("its kernel would verify programs of %d KiB for half a minute, in a kworker that others wait for, because QEMU translates it (TCG): ask for fewer system calls, or trace with the plugin", n>>10)
	}
	plan := &Plan{g: g, boot: l.Boot, load: load, p: p, Note: load.Note}
	if plan.code, err = blob(p); err != nil {
		return nil, err
	}
	if len(plan.code) > blobRoom {
		return nil, fmt.Errorf("the blob has %d bytes, more than its %d", len(plan.code), blobRoom)
	}
	types, err := l.Linux.Types()
	if err != nil {
		return nil, err
	}
	plan.data, err = load.encode(p.data, p.mailbox, load.types(types))
	if err != nil {
		return nil, err
	}
	if uint64(len(plan.data.b)) > p.room {
		return nil, refuse("programs of %d bytes do not fit into the %d that are free behind the entry code", len(plan.data.b), p.room)
	}
	if err := p.usable(p.s.Space.Live(), plan.code); err != nil {
		return nil, err
	}
	plan.box = &mailbox{
		code: p.code, data: p.data, codeSize: uint32(len(plan.code)), dataSize: uint32(len(plan.data.b)),
		removal: plan.data.removal, shape: load.shape(), sum: sum(plan.code, plan.data.b),
	}
	for range load.shape().objects() {
		plan.box.objects = append(plan.box.objects, -1)
	}
	plan.Writes = []Write{
		{"mailbox, into zeroes behind the kernel's variables", p.mailbox, mailboxSize},
		{"code that calls bpf(2) in a kworker, into int3 behind the entry code", p.code, len(plan.code)},
		{"programs " + names(plan.Programs()) + " and the calls that load them, into int3 behind it", p.data, len(plan.data.b)},
		{"function of the work item shepherd, which the code puts back at once", p.slot, 8},
	}
	return plan, nil
}

// maxNames bounds the programs that are named to who is asked: there may be two for each of many functions.
const maxNames = 12

func names(all []string) string {
	if len(all) <= maxNames {
		return strings.Join(all, ", ")
	}
	return strings.Join(all[:maxNames-1], ", ") + fmt.Sprintf(", %d more", len(all)-maxNames+1)
}

// types finds the BTF types that the programs are for.
func (l *Load) types(types *btf.Spec) func(*Program) (uint32, error) {
	functions := map[string]btf.TypeID{}
	for _, p := range l.Programs {
		if p.Function != "" {
			functions[p.Function] = 0
		}
	}
	if len(functions) > 0 {
		types.Functions(functions)
	}
	return func(p *Program) (uint32, error) {
		switch id := functions[p.Function]; {
		case p.Function == "":
			return typedefOf(types, p.Tracepoint)
		case id == 0:
			return 0, refuse("the types of the guest's kernel have no function %s", p.Function)
		default:
			return uint32(id), nil
		}
	}
}

// typedefOf is the BTF type by which a program names its tracepoint.
func typedefOf(types *btf.Spec, tracepoint string) (id uint32, err error) {
	types.ByName("btf_trace_"+tracepoint, func(t btf.TypeID, _ btf.Type) bool {
		id = uint32(t)
		return false
	}, btf.KindTypedef)
	if id == 0 {
		return 0, refuse("the guest's kernel has no tracepoint %s", tracepoint)
	}
	return id, nil
}

func sum(code, data []byte) uint64 {
	h := fnv.New64a()
	h.Write(code)
	h.Write(data)
	return h.Sum64()
}

// Plant writes all, and waits until the guest's kernel has loaded it. If it could not, what was loaded is removed again.
func (plan *Plan) Plant(ctx context.Context) (*Planting, error) {
	unlock, err := lock(plan.g.Machine())
	if err != nil {
		return nil, err
	}
	defer unlock()
	p := plan.p
	// Between Prepare and now the guest has run.
	l, err := plan.g.Look(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if l.Boot != plan.boot {
		return nil, refuse("the guest has booted again meanwhile: try again")
	}
	p.s = l.Linux
	h, err := p.hand()
	if err != nil {
		return nil, err
	}
	if err := p.alive(ctx, h, plan.g.Machine()); err != nil {
		return nil, err
	}
	if err := p.usable(h.space, plan.code); err != nil {
		return nil, err
	}
	if _, err := rand.Read(plan.box.id[:]); err != nil {
		return nil, err
	}
	plan.box.when = time.Now()
	rec := plan.record()
	if err := rec.save(); err != nil {
		return nil, fmt.Errorf("note what is planted: %w", err)
	}
	// All of it does nothing until a work item leads to it. The mailbox comes first: whatever happens to this process, who
	// comes later finds by it what else was written.
	for _, w := range []struct {
		b  []byte
		at virt.Addr
	}{{plan.box.encode(), p.mailbox}, {plan.code, p.code}, {plan.data.b, p.data}} {
		if err := h.write(w.b, w.at); err != nil {
			return nil, errors.Join(err, p.wipe(h, plan.box), rec.remove())
		}
	}
	made := &Planting{g: plan.g, boot: plan.boot, p: p, box: plan.box, record: rec}
	if err := made.run(ctx, h, plan.data.planting); err != nil {
		var failed *jobError
		switch {
		case errors.As(err, &failed):
			err = plan.explain(failed)
		case ctx.Err() != nil: // who planted has changed his mind
			err = ctx.Err()
		default:
			return nil, err // armed, or not at all: a later run lists and removes it
		}
		if undo := made.remove(context.WithoutCancel(ctx), h); undo != nil {
			err = errors.Join(err, fmt.Errorf("remove what was loaded before that: %w", undo))
		}
		return nil, err
	}
	if err := made.Check(ctx); err != nil {
		return nil, err
	}
	// What the kernel's compiler made of the programs is theirs from now on.
	rec.Images = made.images
	return made, rec.save()
}

// explain says which step of a planting failed.
func (plan *Plan) explain(e *jobError) error {
	what := "do what was planted"
	if e.step >= 0 && e.step < len(plan.data.what) {
		what = plan.data.what[e.step]
	}
	return fmt.Errorf("the guest's kernel refused to %s: %w", what, e.errno)
}

// Programs are the names of the programs that are planted.
func (plan *Plan) Programs() (names []string) {
	for _, p := range plan.load.Programs {
		names = append(names, p.Name)
	}
	return names
}
