package plant

import (
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/virt"
)

// A job is a head of 16 bytes (how many steps) and steps of 32 bytes each: the address of a step's attributes, the command and
// their size, what to do, where the descriptor that it returns goes, and which one goes into the attributes before.
const (
	jobHead   = 16
	stepBytes = 32
	stepCmd   = 8
	stepSize  = 12
	stepOp    = 16
	stepTo    = 20
	stepPatch = 24
	stepFrom  = 28

	opBPF   = 0
	opClose = 1
)

// Commands of bpf(2), and sizes of their attributes up to the last member that is used (union bpf_attr).
const (
	cmdMapCreate         = 0
	cmdProgLoad          = 5
	cmdRawTracepointOpen = 17
	cmdMapFreeze         = 22

	mapCreateSize         = 72
	progLoadSize          = 128 // fd_array is the last
	rawTracepointOpenSize = 16
	mapFreezeSize         = 4

	mapTypeArray    = 2
	mapMmapable     = 0x400
	progTypeTracing = 26
	attachRawTP     = 23 // BPF_TRACE_RAW_TP
	insnSize        = 8
)

const (
	maxPrograms = (maxObjects - 2) / 2 // with their links, beside the ring and a place for what returns no descriptor
	maxCode     = 512 << 10            // of all programs, in bytes
	maxName     = 15                   // BPF_OBJ_NAME_LEN with its zero
	// maxTranslated bounds the programs of a guest that QEMU translates: 32,000 instructions took the verifier 36 s there, and after 30 s
	// the kernel takes its workqueue for stuck (workqueue.watchdog_thresh).
	maxTranslated = 96 << 10
)

type step struct {
	attr  []byte
	cmd   uint32
	op    uint32
	to    uint32
	patch uint32
	from  int // object whose descriptor is patched in; -1: none
	kept  virt.Addr
}

// data is what lies beside the blob: jobs, attributes, programs. It is written before anything is armed, and does not change then.
type data struct {
	at       virt.Addr
	b        []byte
	planting virt.Addr // jobs
	removal  virt.Addr
}

func (d *data) put(b []byte) virt.Addr {
	for len(d.b)%16 != 0 {
		d.b = append(d.b, 0)
	}
	at := d.at + virt.Addr(len(d.b))
	d.b = append(d.b, b...)
	return at
}

func (d *data) job(steps []step) virt.Addr {
	for i := range steps {
		steps[i].kept = d.put(steps[i].attr)
	}
	b := le.AppendUint64(nil, uint64(len(steps)))
	b = le.AppendUint64(b, 0)
	for _, s := range steps {
		b = le.AppendUint64(b, uint64(s.kept))
		for _, v := range []uint32{s.cmd, uint32(len(s.attr)), s.op, s.to, s.patch, uint32(s.from + 1)} {
			b = le.AppendUint32(b, v)
		}
	}
	return d.put(b)
}

// size is that of all programs, in bytes.
func (l *Load) size() (n int) {
	for _, p := range l.Programs {
		n += len(p.Code)
	}
	return n
}

// check says what of a load cannot be planted.
func (l *Load) check() error {
	names := []string{l.Ring.Name}
	for _, p := range l.Programs {
		names = append(names, p.Name)
		if len(p.Code) == 0 || len(p.Code)%insnSize != 0 {
			return fmt.Errorf("program %q has %d bytes, no whole instructions", p.Name, len(p.Code))
		}
	}
	for _, n := range names {
		if len(n) == 0 || len(n) > maxName {
			return fmt.Errorf("invalid name %q: 1 to %d characters", n, maxName)
		}
	}
	switch {
	case len(l.Programs) == 0:
		return errors.New("nothing to plant")
	case len(l.Programs) > maxPrograms:
		return fmt.Errorf("%d programs are more than the %d that can be planted", len(l.Programs), maxPrograms)
	case l.size() > maxCode:
		return fmt.Errorf("programs of %d bytes are more than the %d that have room", l.size(), maxCode)
	case l.Ring.Elements == 0 || l.Ring.Size == 0:
		return errors.New("the ring has no elements")
	}
	return nil
}

// encode writes the jobs that plant and remove a load, to lie at an address. types says where a tracepoint's typedef is
// in the kernel's BTF.
func (l *Load) encode(at, mailbox virt.Addr, types func(tracepoint string) (uint32, error)) (*data, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	// What removes comes first, so that it can be made again without the load.
	d := &data{at: at}
	d.removal = d.job(closing(len(l.Programs)))
	licence := d.put([]byte("GPL\x00"))
	steps := []step{
		{attr: l.Ring.attributes(), cmd: cmdMapCreate, from: -1},
		// Frozen, so that nobody in the guest writes into it by bpf(2) or maps it to write: its programs still can.
		{attr: make([]byte, mapFreezeSize), cmd: cmdMapFreeze, to: uint32(1 + 2*len(l.Programs)), from: 0},
	}
	var links []step
	for i, p := range l.Programs {
		id, err := types(p.Tracepoint)
		if err != nil {
			return nil, err
		}
		a := make([]byte, progLoadSize)
		le.PutUint32(a, progTypeTracing)
		le.PutUint32(a[4:], uint32(len(p.Code)/insnSize))
		le.PutUint64(a[8:], uint64(d.put(p.Code)))
		le.PutUint64(a[16:], uint64(licence))
		copy(a[48:63], p.Name)
		le.PutUint32(a[68:], attachRawTP)
		le.PutUint32(a[108:], id)
		le.PutUint64(a[120:], uint64(mailbox+atObjects)) // fd_array: the ring is the first object
		steps = append(steps, step{attr: a, cmd: cmdProgLoad, to: uint32(1 + i), from: -1})
		links = append(links, step{
			attr: make([]byte, rawTracepointOpenSize), cmd: cmdRawTracepointOpen, to: uint32(1 + len(l.Programs) + i), patch: 8, from: 1 + i,
		})
	}
	d.planting = d.job(append(steps, links...))
	return d, nil
}

// closing are the steps that remove a planting of so many programs: links first, so that no program runs any more when it is let go of.
func closing(programs int) (steps []step) {
	for i := 2 * programs; i >= 0; i-- {
		steps = append(steps, step{attr: make([]byte, 8), op: opClose, to: uint32(i), from: i})
	}
	return steps
}

func (r *Ring) attributes() []byte {
	a := make([]byte, mapCreateSize)
	for i, v := range []uint32{mapTypeArray, 4, r.Size, r.Elements, mapMmapable} {
		le.PutUint32(a[4*i:], v)
	}
	copy(a[28:43], r.Name)
	return a
}
