package views

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "modules", Group: table.Internals,
		Doc: `Show the modules of a guest's kernel.

The modules are those on the kernel's list, the newest first, as lsmod in the guest
should show them, with what /sys/module knows: parameters and their values now, where
each section was loaded, why the kernel counts as tainted. A module that took itself off
that list is not shown; what it left behind is: other views show functions that belong
to no one. What a built-in part of the kernel has as parameters is not shown either.`,
		Source:  "modules: struct module, its sect_attrs, param_attrs and kernel_param",
		Key:     []string{"name"},
		Example: "lab:demo",
	}, modulesColumns, modules))
}

func modulesColumns() table.Columns[owned[module]] {
	return slices.Concat(
		plain(table.Columns[module]{
			{Name: "name", Type: table.Text, Doc: "Name of the module.", Get: func(m *module) table.Value { return table.TextValue(m.Name) }},
			{Name: "size", Type: table.Size, Doc: "Memory that it takes, in bytes, as lsmod shows.", Get: func(m *module) table.Value { return size(m.Size()) }},
			{
				Name: "refcount", Type: table.Int, Doc: "How many uses keep it from being unloaded; -1 while it is unloaded.",
				Get: func(m *module) table.Value { return integer(m.RefCount) },
			},
			{
				Name: "used_by", Type: table.List, Doc: "Modules that use it; missing where none does.",
				Get: func(m *module) table.Value {
					users, err := m.Dependants(m.ctx)
					return m.list(users, err)
				},
			},
			{
				Name: "state", Type: table.Text, Doc: "Live, Loading, Unloading, or Unformed, which lsmod does not show.",
				Get: func(m *module) table.Value { return table.TextValue(string(m.State)) },
			},
			{
				Name: "taint", Type: table.Text, Doc: "Why it taints the kernel, by letter: O out of tree, E unsigned, P proprietary, F forced, C staging, K live patch; missing if it does not.",
				Get: func(m *module) table.Value { return text(linux.TaintLetters(m.Taints)) },
			},
			{
				Name: "text", Type: table.Addr, Doc: "Where its code begins, as /proc/modules shows to root.",
				Get: func(m *module) table.Value { return address(m.Start()) },
			},
			{
				Name: "memory", Type: table.List, Extra: true, Doc: "Its regions of memory, as kind=start+size; kernels before 6.4 distinguish only text from the rest.",
				Get: (*module).memory,
			},
			{
				Name: "version", Type: table.Text, Extra: true, Doc: "Version that its author declared; missing if none.",
				Get: func(m *module) table.Value { return text(m.Version) },
			},
			{
				Name: "srcversion", Type: table.Text, Extra: true, Doc: "Checksum of its source; missing where the build made none.",
				Get: func(m *module) table.Value { return text(m.SrcVersion) },
			},
			{
				Name: "parameters", Type: table.List, Extra: true, Doc: "Parameters that /sys/module shows, as name=value, by name; without value where the module has its own way to show it.",
				Get: func(m *module) table.Value {
					shown, _, err := m.parameters()
					return m.list(shown, err)
				},
			},
			{
				Name: "parameters_hidden", Type: table.List, Extra: true, Doc: "Parameters that have no file there, in the same form.",
				Get: func(m *module) table.Value {
					_, hidden, _ := m.parameters()
					return list(hidden)
				},
			},
			{Name: "sections", Type: table.List, Extra: true, Doc: "Where its sections were loaded, as name=address, by name.", Get: (*module).sections},
			{
				Name: "init", Type: table.Addr, Extra: true, Doc: "Address of its init function, in memory that is freed once it has run.",
				Get: func(m *module) table.Value { return address(m.Init) },
			},
		}),
		code("exit", "its exit function; missing where it cannot be unloaded", func(m *module) virt.Addr { return m.Exit }),
		plain(table.Columns[module]{
			{
				Name: "percpu_size", Type: table.Size, Extra: true, Doc: "Memory that it takes in each CPU's area, in bytes.",
				Get: func(m *module) table.Value { return size(m.PercpuSize) },
			},
			{Name: "module", Type: table.Addr, Extra: true, Doc: "Address of the struct module.", Get: func(m *module) table.Value { return address(m.Addr) }},
		}),
	)
}

// module is a row of modules.
type module struct {
	*linux.Module
	ctx           context.Context
	unread        error
	shown, hidden []string // parameters, once they were read
	paramErr      error
	paramRead     bool
}

// Unread is part of [table.Partial].
func (m *module) Unread() error { return m.unread }

// list is a cell of a part that is read by itself.
func (m *module) list(l []string, err error) table.Value {
	if err != nil {
		m.unread = errors.Join(m.unread, err)
		if len(l) == 0 {
			return unreadable(err)
		}
	}
	return list(l)
}

func (m *module) memory() table.Value {
	var memory []string
	for _, r := range m.Memory {
		memory = append(memory, fmt.Sprintf("%s=%#x+%#x", r.Kind, uint64(r.Start), r.Size))
	}
	return list(memory)
}

// parameters reads those with a file in /sys/module and those without, by name.
func (m *module) parameters() (shown, hidden []string, err error) {
	if m.paramRead {
		return m.shown, m.hidden, m.paramErr
	}
	ps, err := m.Parameters()
	m.paramRead, m.paramErr = true, err
	for _, p := range ps {
		s := p.Name
		if p.Known {
			s += "=" + p.Value
		}
		if p.Mode != 0 {
			m.shown = append(m.shown, s)
		} else {
			m.hidden = append(m.hidden, s)
		}
	}
	slices.Sort(m.shown)
	slices.Sort(m.hidden)
	return m.shown, m.hidden, err
}

func (m *module) sections() table.Value {
	var names []string
	sections, err := m.Sections(m.ctx)
	for _, s := range sections {
		names = append(names, fmt.Sprintf("%s=%#x", s.Name, uint64(s.Addr)))
	}
	slices.Sort(names)
	return m.list(names, err)
}

func modules(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*owned[module], error] {
	wanted, some := r.Values("name")
	return ownedOf(ctx, l.Linux, func(ctx context.Context, s *linux.System, _ *owners) iter.Seq2[*module, error] {
		return func(yield func(*module, error) bool) {
			for m, err := range whole(s.Modules(ctx)) {
				if m == nil {
					if !yield(nil, err) {
						return
					}
					continue
				}
				if some && !slices.ContainsFunc(wanted, func(v table.Value) bool { return v.Text() == m.Name }) {
					continue
				}
				if !yield(&module{Module: m, ctx: ctx}, nil) {
					return
				}
			}
		}
	})
}
