package plant

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/virt"
)

// maxImage bounds the machine code of one program that is read, in bytes.
const maxImage = 1 << 20

// bpfObject is what the guest's kernel says of an object.
type bpfObject struct {
	id      uint32
	name    string       // of a link: its program's
	ring    *bpf.Map     // else nil
	program *bpf.Program // else nil
	link    *bpf.Link    // else nil
}

// objects are the BPF objects of a guest that bear outsight's name.
func objects(ctx context.Context, l *guest.Look) (map[virt.Addr]bpfObject, error) {
	all := map[virt.Addr]bpfObject{}
	programs := map[virt.Addr]string{}
	for o, err := range bpf.Maps(ctx, l.Linux) {
		if err != nil {
			return nil, err
		}
		all[o.Addr] = bpfObject{id: o.ID, name: o.Name, ring: o}
	}
	for o, err := range bpf.Programs(ctx, l.Linux) {
		if err != nil {
			return nil, err
		}
		all[o.Addr] = bpfObject{id: o.ID, name: o.Name, program: o}
		programs[o.Addr] = o.Name
	}
	for o, err := range bpf.Links(ctx, l.Linux) {
		if err != nil {
			return nil, err
		}
		all[o.Addr] = bpfObject{id: o.ID, name: programs[o.Program], link: o}
	}
	return all, nil
}

// image is a fingerprint of what runs when a program is called.
func image(l *guest.Look, p *bpf.Program) (string, error) {
	h := fnv.New64a()
	fmt.Fprintf(h, "%#x %s %#x %d ", uint64(p.Addr), p.Tag, uint64(p.JITAddr), p.JITSize)
	if p.JITAddr != 0 {
		b := make([]byte, min(p.JITSize, maxImage))
		if err := l.Linux.ReadAt(b, p.JITAddr); err != nil {
			return "", err
		}
		h.Write(b)
	}
	return fmt.Sprintf("%016x", h.Sum64()), nil
}

// checkRuns says whether each program still runs where it was attached, and is the code that was loaded.
func (m *Planting) checkRuns(l *guest.Look, found map[virt.Addr]bpfObject, problem func(string, ...any)) error {
	images := map[string]string{}
	functions := newFunctions(l)
	for i, o := range m.Objects {
		k := found[o.Addr]
		switch {
		case o.Addr == 0:
		case k.ring != nil:
			if !k.ring.Frozen {
				problem("the %s can be written by programs of the guest: it is not frozen any more", mapName(i))
			}
			if i > 0 {
				if err := m.leadsTo(l, i, k.ring, problem); err != nil {
					return err
				}
			}
		case k.program != nil:
			sum, err := image(l, k.program)
			if err != nil {
				return err
			}
			images[o.Name] = sum
			if m.record != nil && m.record.Images != nil && m.record.Images[o.Name] != sum {
				problem("the machine code of program %s at %#x is not what it was when it was planted", o.Name, uint64(k.program.JITAddr))
			}
		case k.link != nil:
			p, ok := found[k.link.Program]
			if !ok || p.program == nil {
				problem("link %d leads to no program", o.ID)
				continue
			}
			if !m.planted(p.program.Addr) {
				problem("link %d leads to program %q at %#x, which is another than the one that was planted", o.ID, p.name, uint64(p.program.Addr))
				continue
			}
			run := attached
			if k.link.Type == "tracing" {
				run = functions.attached
			}
			if err := run(l, k.link, p.program); err != nil {
				problem("program %s is not run any more: %v", p.name, err)
			}
		}
	}
	m.images = images
	return nil
}

// mapName is what a map is, by its number.
func mapName(i int) string {
	if i == 0 {
		return "ring"
	}
	return fmt.Sprintf("table %d", i)
}

// leadsTo checks that map i, which others jump through, leads to its program.
func (m *Planting) leadsTo(l *guest.Look, i int, table *bpf.Map, problem func(string, ...any)) error {
	value, err := l.Linux.Member("bpf_array", "value")
	if err != nil {
		return err
	}
	r := l.Linux.Reader()
	to := r.Pointer(table.Addr, value)
	if r.Err != nil {
		return r.Err
	}
	program := m.box.shape.maps + i - 1
	if table.Type != "prog_array" || program >= len(m.Objects) || to != m.Objects[program].Addr {
		problem("the %s leads to %#x, which is not the program that was planted", mapName(i), uint64(to))
	}
	return nil
}

// planted says whether a program is one of this planting's.
func (m *Planting) planted(a virt.Addr) bool {
	return slices.ContainsFunc(m.Objects, func(o Object) bool { return o.Kind == "program" && o.Addr == a })
}

// attached says why a tracepoint does not call a program; nil if it does.
func attached(l *guest.Look, k *bpf.Link, p *bpf.Program) error {
	// The program's target is the typedef that it was made for, the link's the tracepoint.
	name := strings.TrimPrefix(k.Target, "btf_trace_")
	t, err := hooks.TracepointNamed(l.Linux, name)
	if err != nil {
		return err
	}
	symbols, err := l.Linux.Table()
	if err != nil {
		return err
	}
	for _, probe := range t.Probes {
		// The link since 6.10 (d4dfc5700e86), the program before.
		if probe.Data != k.Addr && probe.Data != p.Addr {
			continue
		}
		// One function serves all tracepoints of a class.
		fn, off, ok := symbols.At(int64(probe.Func - l.Linux.Text))
		switch {
		case !ok || off != 0 || !strings.HasPrefix(fn, "__bpf_trace_"):
			return fmt.Errorf("tracepoint %s has it called by %#x, which is not the kernel's function for that", name, uint64(probe.Func))
		case !t.Enabled:
			return fmt.Errorf("tracepoint %s is switched off", name)
		}
		return nil
	}
	return fmt.Errorf("tracepoint %s does not call it", name)
}
