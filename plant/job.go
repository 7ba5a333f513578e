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
	cmdMapUpdateElem     = 2
	cmdProgLoad          = 5
	cmdRawTracepointOpen = 17
	cmdMapFreeze         = 22

	mapCreateSize         = 72
	progLoadSize          = 128 // fd_array is the last
	rawTracepointOpenSize = 16
	mapUpdateElemSize     = 32
	mapFreezeSize         = 4

	mapTypeArray     = 2
	mapTypeProgArray = 3
	mapMmapable      = 0x400
	progTypeTracing  = 26
	attachRawTP      = 23 // BPF_TRACE_RAW_TP
	attachEntry      = 24 // BPF_TRACE_FENTRY
	attachReturn     = 25 // BPF_TRACE_FEXIT
	insnSize         = 8
)

const (
	maxCode = 512 << 10 // of all programs, in bytes
	maxName = 15        // BPF_OBJ_NAME_LEN with its zero
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
	what  string
	kept  virt.Addr
}

// data is what lies beside the blob: jobs, attributes, programs. It is written before anything is armed, and does not change then.
type data struct {
	at       virt.Addr
	b        []byte
	planting virt.Addr // jobs
	removal  virt.Addr
	codes    map[string]virt.Addr
	what     []string // the steps of the planting, each as "the kernel refused to" goes on
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
	case l.Tables < 0 || l.Tables > len(l.Programs):
		return fmt.Errorf("%d tables for %d programs", l.Tables, len(l.Programs))
	case !l.shape().valid():
		return fmt.Errorf("%d programs with their links are more than the %d objects that can be planted", len(l.Programs), maxObjects)
	case l.size() > maxCode:
		return fmt.Errorf("programs of %d bytes are more than the %d that have room", l.size(), maxCode)
	case l.Ring.Elements == 0 || l.Ring.Size == 0:
		return errors.New("the ring has no elements")
	}
	return nil
}

// encode writes the jobs that plant and remove a load, to lie at an address. types says which of the kernel's BTF types a program is for.
func (l *Load) encode(at, mailbox virt.Addr, types func(*Program) (uint32, error)) (*data, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	// What removes comes first, so that it can be made again without the load.
	sh := l.shape()
	d := &data{at: at}
	d.removal = d.job(closing(sh))
	licence := d.put([]byte("GPL\x00"))
	object := func(i int) virt.Addr { return mailbox + atObjects + virt.Addr(4*i) }
	nowhere := uint32(sh.objects()) // for steps that return no descriptor
	steps := []step{
		{attr: l.Ring.attributes(), cmd: cmdMapCreate, from: -1, what: "create the ring"},
		// Frozen, so that nobody in the guest writes into it by bpf(2) or maps it to write: its programs still can.
		{attr: make([]byte, mapFreezeSize), cmd: cmdMapFreeze, to: nowhere, from: 0, what: "freeze the ring"},
	}
	for i := range l.Tables {
		steps = append(steps, step{attr: table(i), cmd: cmdMapCreate, to: uint32(1 + i), from: -1, what: "create the table of program " + l.Programs[i].Name})
	}
	key := d.put(make([]byte, 4))
	var links []step
	for i := range l.Programs {
		p := &l.Programs[i]
		id, err := types(p)
		if err != nil {
			return nil, err
		}
		a := make([]byte, progLoadSize)
		le.PutUint32(a, progTypeTracing)
		le.PutUint32(a[4:], uint32(len(p.Code)/insnSize))
		le.PutUint64(a[8:], uint64(d.code(p.Code)))
		le.PutUint64(a[16:], uint64(licence))
		copy(a[48:63], p.Name)
		le.PutUint32(a[68:], p.attachType())
		le.PutUint32(a[108:], id)
		le.PutUint64(a[120:], uint64(object(0))) // fd_array: the maps are the first objects
		steps = append(steps, step{attr: a, cmd: cmdProgLoad, to: uint32(sh.maps + i), from: -1, what: "load program " + p.Name})
		if i >= l.Tables {
			links = append(links, step{
				attr: make([]byte, rawTracepointOpenSize), cmd: cmdRawTracepointOpen, to: uint32(sh.maps + sh.programs + len(links)), patch: 8, from: sh.maps + i,
				what: "attach program " + p.Name + " to " + p.target(),
			})
			continue
		}
		// Before any program that jumps there is compiled, and frozen: so its jump is made once.
		a = make([]byte, mapUpdateElemSize)
		le.PutUint64(a[8:], uint64(key))
		le.PutUint64(a[16:], uint64(object(sh.maps+i)))
		steps = append(steps, step{attr: a, cmd: cmdMapUpdateElem, to: nowhere, from: 1 + i, what: "put program " + p.Name + " into its table"},
			step{attr: make([]byte, mapFreezeSize), cmd: cmdMapFreeze, to: nowhere, from: 1 + i, what: "freeze the table of program " + p.Name})
	}
	steps = append(steps, links...)
	for _, s := range steps {
		d.what = append(d.what, s.what)
	}
	d.planting = d.job(steps)
	return d, nil
}

func (p *Program) attachType() uint32 {
	switch {
	case p.Function == "":
		return attachRawTP
	case p.Return:
		return attachReturn
	}
	return attachEntry
}

// code puts a program there, once for all that are the same.
func (d *data) code(b []byte) virt.Addr {
	if at, ok := d.codes[string(b)]; ok {
		return at
	}
	if d.codes == nil {
		d.codes = map[string]virt.Addr{}
	}
	at := d.put(b)
	d.codes[string(b)] = at
	return at
}

// closing are the steps that remove a planting: links first, so that no program runs any more when it is let go of.
func closing(s shape) (steps []step) {
	for i := s.objects() - 1; i >= 0; i-- {
		steps = append(steps, step{attr: make([]byte, 8), op: opClose, to: uint32(i), from: i})
	}
	return steps
}

// table are the attributes of the map of one program by which others jump to it.
func table(n int) []byte {
	a := make([]byte, mapCreateSize)
	for i, v := range []uint32{mapTypeProgArray, 4, 4, 1} {
		le.PutUint32(a[4*i:], v)
	}
	copy(a[28:43], fmt.Sprintf("outsight_jump%d", n))
	return a
}

func (r *Ring) attributes() []byte {
	a := make([]byte, mapCreateSize)
	for i, v := range []uint32{mapTypeArray, 4, r.Size, r.Elements, mapMmapable} {
		le.PutUint32(a[4*i:], v)
	}
	copy(a[28:43], r.Name)
	return a
}
