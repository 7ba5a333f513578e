package hooks

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// InputHandler takes the events of input devices: keys that are pressed, movements of a mouse.
type InputHandler struct {
	Addr      virt.Addr // struct input_handler
	Name      string
	Functions []virt.Addr // event, events, filter and connect: those that it has
}

// UserProbe is a function that the kernel calls when a program comes to an instruction of a file, or returns from a function there.
type UserProbe struct {
	Addr            virt.Addr // struct uprobe_consumer
	Inode           virt.Addr
	Offset          uint64
	Handler, Return virt.Addr // 0: none
}

const maxInputHandlers = 1 << 10 // a desktop has ten

// InputHandlers yields who takes the events of input devices.
func InputHandlers(ctx context.Context, s *linux.System) iter.Seq2[*InputHandler, error] {
	return func(yield func(*InputHandler, error) bool) {
		type layout struct {
			node, name kobj.Field
			functions  [4]kobj.Field
		}
		o, err := kobj.LayoutOf(s.Walker, "handlers of input devices", func(r *kobj.Resolver, o *layout) {
			r.Prefetch("input_handler_list")
			o.node, o.name = r.Field("input_handler", "node"), r.Field("input_handler", "name")
			for i, name := range []string{"event", "events", "filter", "connect"} {
				o.functions[i] = r.Optional("input_handler", name)
			}
		})
		if err != nil {
			yield(nil, err)
			return
		}
		head, err := s.SymbolAddr("input_handler_list")
		if err != nil { // drivers/input is a module, or not there
			yield(nil, fmt.Errorf("handlers of input devices: %w: %w", kobj.ErrUnsupported, err))
			return
		}
		for node, err := range s.List(ctx, head, maxInputHandlers) {
			var h *InputHandler
			if err == nil {
				a := node - virt.Addr(o.node.Offset)
				r := s.Reader()
				h = &InputHandler{Addr: a}
				for _, f := range o.functions {
					if at := r.Pointer(a, f); at != 0 && f.Present() {
						h.Functions = append(h.Functions, at)
					}
				}
				if name := r.Pointer(a, o.name); name != 0 && r.Err == nil {
					h.Name = r.CString(name, 64)
				}
				if r.Err != nil {
					h, err = nil, fmt.Errorf("input_handler at %#x: %w", uint64(a), r.Err)
				}
			}
			if !yield(h, err) {
				return
			}
		}
	}
}

type userProbeLayout struct {
	node, consumers, inode, offset kobj.Field // struct uprobe
	handler, ret, next, link       kobj.Field // struct uprobe_consumer; link since 6.12
}

// UserProbes yields the probes of programs' code, whoever asked for them.
func UserProbes(ctx context.Context, s *linux.System) iter.Seq2[*UserProbe, error] {
	return func(yield func(*UserProbe, error) bool) {
		o, err := kobj.LayoutOf(s.Walker, "probes of programs", func(r *kobj.Resolver, o *userProbeLayout) {
			const u, c = "uprobe", "uprobe_consumer"
			r.Prefetch("uprobes_tree")
			o.node, o.consumers, o.inode, o.offset = r.Field(u, "rb_node"), r.Field(u, "consumers"), r.Field(u, "inode"), r.Field(u, "offset")
			o.handler, o.ret = r.Field(c, "handler"), r.Field(c, "ret_handler")
			if o.link = r.Optional(c, "cons_node"); !o.link.Present() {
				o.next = r.Field(c, "next")
			}
		})
		if err != nil {
			yield(nil, err)
			return
		}
		root, err := s.SymbolAddr("uprobes_tree")
		if err != nil {
			yield(nil, fmt.Errorf("probes of programs: %w: %w", kobj.ErrUnsupported, err))
			return
		}
		for node, err := range s.RBTree(ctx, root, kobj.MaxElements) {
			if err != nil {
				yield(nil, fmt.Errorf("uprobes_tree: %w", err))
				return
			}
			if !userProbesAt(ctx, s, o, node-virt.Addr(o.node.Offset), yield) {
				return
			}
		}
	}
}

const maxConsumers = 1 << 12 // of one probe

func userProbesAt(ctx context.Context, s *linux.System, o *userProbeLayout, u virt.Addr, yield func(*UserProbe, error) bool) bool {
	report := func(a virt.Addr) bool {
		r := s.Reader()
		p := &UserProbe{Addr: a, Inode: r.Pointer(u, o.inode), Offset: r.Uint(u, o.offset), Handler: r.Pointer(a, o.handler), Return: r.Pointer(a, o.ret)}
		if r.Err != nil {
			return yield(nil, fmt.Errorf("uprobe_consumer at %#x: %w", uint64(a), r.Err))
		}
		return yield(p, nil)
	}
	if o.link.Present() {
		for node, err := range s.List(ctx, o.consumers.At(u), maxConsumers) {
			if err != nil {
				return yield(nil, fmt.Errorf("uprobe at %#x: %w", uint64(u), err))
			}
			if !report(node - virt.Addr(o.link.Offset)) {
				return false
			}
		}
		return true
	}
	r := s.Reader()
	a := r.Pointer(u, o.consumers)
	for n := 0; a != 0 && r.Err == nil; n++ {
		if n == maxConsumers {
			return yield(nil, fmt.Errorf("uprobe at %#x: %w after %d", uint64(u), kobj.ErrBudget, n))
		}
		if !report(a) {
			return false
		}
		a = r.Pointer(a, o.next)
	}
	if r.Err != nil {
		return yield(nil, fmt.Errorf("uprobe at %#x: %w", uint64(u), r.Err))
	}
	return true
}
