package polling

import (
	"context"
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/virt"
)

// things is a part for what there are few of, and which are read whole at each look. K distinguishes
// one from the others, and V is what an event would say of it.
type things[K, V comparable] struct {
	// read hands over what is there. With an error it may not be all of it.
	read func(ctx context.Context, l *guest.Look, add func(K, V)) error
	// report makes the event of one that came (was is nil), went (now is nil) or changed.
	report func(ctx context.Context, r *round, k K, was, now *V)

	known map[K]V // nil before the first look
}

func (t *things[K, V]) forget() { t.known = nil }

func (t *things[K, V]) look(ctx context.Context, r *round) error {
	l, err := r.look(ctx)
	if err != nil {
		return err
	}
	now := make(map[K]V, len(t.known))
	var order []K
	gap := t.read(ctx, l, func(k K, v V) {
		if _, twice := now[k]; !twice {
			order = append(order, k)
		}
		now[k] = v
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	first := t.known == nil
	for k, was := range t.known {
		if _, still := now[k]; still {
			continue
		}
		if gap != nil {
			now[k] = was // it may still be there
			continue
		}
		t.report(ctx, r, k, &was, nil)
	}
	for _, k := range order {
		v := now[k]
		if was, known := t.known[k]; known && was != v {
			t.report(ctx, r, k, &was, &v)
		} else if !known && !first {
			t.report(ctx, r, k, nil, &v)
		}
	}
	t.known = now
	return gap
}

type module struct {
	name   string
	size   uint64
	taints uint64
}

func newModules() part {
	return &things[virt.Addr, module]{
		read: func(ctx context.Context, l *guest.Look, add func(virt.Addr, module)) (gap error) {
			for m, err := range l.Linux.Modules(ctx) {
				switch {
				case err != nil:
					gap = err
				case m.State != linux.ModuleUnformed:
					add(m.Addr, module{strings.Clone(m.Name), m.Size(), m.Taints})
				}
			}
			return gap
		},
		report: func(ctx context.Context, r *round, a virt.Addr, was, now *module) {
			switch {
			case was == nil:
				e := trace.Event{Kind: trace.KindModule, Object: now.name, Args: fmt.Sprintf("%d KiB at %#x", now.size>>10, uint64(a))}
				if taint := linux.TaintLetters(now.taints); taint != "" {
					e.Note = "taints the kernel: " + taint
				}
				r.emit(e)
			case now == nil:
				l, err := r.look(ctx)
				if err != nil {
					return
				}
				// One that is unloaded has another state, or no memory, before it leaves the list.
				if m, err := l.Linux.ModuleAt(a); err == nil && m.State == linux.ModuleLive && m.Name == was.name {
					r.emit(trace.Event{Kind: trace.KindFinding, Name: "hidden-module", Object: was.name, Note: "taken off the list of modules without having been unloaded: hidden from lsmod"})
					return
				}
				r.emit(trace.Event{Kind: trace.KindUnload, Object: was.name})
			}
		},
	}
}

type interf struct {
	name    string
	netns   uint64
	up      bool
	promisc bool
}

func newInterfaces() part {
	const up = 1 // IFF_UP
	return &things[virt.Addr, interf]{
		read: func(ctx context.Context, l *guest.Look, add func(virt.Addr, interf)) (gap error) {
			for d, err := range network.DeviceStates(ctx, l.Linux) {
				if err != nil {
					gap = err
					continue
				}
				add(d.Addr, interf{strings.Clone(d.Name), d.Net.Inode, d.Flags&up != 0, d.Promisc > 0})
			}
			return gap
		},
		report: func(_ context.Context, r *round, _ virt.Addr, was, now *interf) {
			emit := func(i *interf, what, note string) {
				r.emit(trace.Event{Kind: trace.KindDevice, Object: i.name, Args: what, Note: note})
			}
			const sniffs = "receives what is not for it: somebody may be listening"
			switch {
			case was == nil:
				state := "appeared, down"
				if now.up {
					state = "appeared, up"
				}
				emit(now, state, "")
				if now.promisc {
					emit(now, "promiscuous", sniffs)
				}
				return
			case now == nil:
				emit(was, "vanished", "")
				return
			}
			if was.name != now.name || was.netns != now.netns {
				what := "was " + was.name
				if was.netns != now.netns {
					what = fmt.Sprintf("%s, moved to network namespace %d", what, now.netns)
				}
				emit(now, what, "")
			}
			if was.up != now.up {
				emit(now, map[bool]string{true: "up", false: "down"}[now.up], "")
			}
			if was.promisc != now.promisc {
				if now.promisc {
					emit(now, "promiscuous", sniffs)
				} else {
					emit(now, "no longer promiscuous", "")
				}
			}
		},
	}
}

type program struct {
	typ, name, tag string
	uid            uint32
}

func newPrograms() part {
	return &things[uint32, program]{
		read: func(ctx context.Context, l *guest.Look, add func(uint32, program)) (gap error) {
			for p, err := range bpf.Programs(ctx, l.Linux) {
				if p == nil {
					gap = err
					continue
				}
				add(p.ID, program{p.Type, strings.Clone(p.Name), p.Tag, p.UID})
			}
			return gap
		},
		report: func(_ context.Context, r *round, id uint32, was, now *program) {
			what, p := "loaded", now
			if now == nil {
				what, p = "gone", was
			} else if was != nil { // an identifier is not given twice
				return
			}
			name := p.name
			if name == "" {
				name = "without a name"
			}
			r.emit(trace.Event{Kind: trace.KindBPF, Name: p.typ, Object: fmt.Sprintf("program %d %s", id, name), Args: fmt.Sprintf("%s, tag %s, by uid %d", what, p.tag, p.uid)})
		},
	}
}
