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
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "modules", Group: table.Machinery,
		Doc: `Show the modules of a guest's kernel.

The modules are those on the kernel's list, the newest first, as lsmod in the guest
should show them, with what /sys/module knows: parameters and their values now, where
each section was loaded, why the kernel counts as tainted. A module that took itself off
that list is not shown; what it left behind is: other views show functions that belong
to no one. What a built-in part of the kernel has as parameters is not shown either.`,
		Columns: modulesColumns,
		Rows:    modulesRows,
		Example: "lab:demo",
	}))
}

var modulesColumns = slices.Concat([]table.Column{
	{Name: "name", Type: table.Text, Doc: "Name of the module."},
	{Name: "size", Type: table.Size, Doc: "Memory that it takes, in bytes, as lsmod shows."},
	{Name: "refcount", Type: table.Int, Doc: "How many uses keep it from being unloaded; -1 while it is unloaded."},
	{Name: "used_by", Type: table.List, Doc: "Modules that use it; missing where none does."},
	{Name: "state", Type: table.Text, Doc: "Live, Loading, Unloading, or Unformed, which lsmod does not show."},
	{Name: "taint", Type: table.Text, Doc: "Why it taints the kernel, by letter: O out of tree, E unsigned, P proprietary, F forced, C staging, K live patch; missing if it does not."},
	{Name: "text", Type: table.Addr, Doc: "Where its code begins, as /proc/modules shows to root."},
	{Name: "memory", Type: table.List, Extra: true, Doc: "Its regions of memory, as kind=start+size; kernels before 6.4 tell text from the rest only."},
	{Name: "version", Type: table.Text, Extra: true, Doc: "Version that its author declared; missing if none."},
	{Name: "srcversion", Type: table.Text, Extra: true, Doc: "Checksum of its source; missing where the build made none."},
	{Name: "parameters", Type: table.List, Extra: true, Doc: "Parameters that /sys/module shows, as name=value, by name; without value where the module has its own way to show it."},
	{Name: "parameters_hidden", Type: table.List, Extra: true, Doc: "Parameters that have no file there, in the same form."},
	{Name: "sections", Type: table.List, Extra: true, Doc: "Where its sections were loaded, as name=address, by name."},
	{Name: "init", Type: table.Addr, Extra: true, Doc: "Address of its init function, in memory that is freed once it has run."},
}, functionColumns("exit", "its exit function; missing where it cannot be unloaded"), []table.Column{
	{Name: "percpu_size", Type: table.Size, Extra: true, Doc: "Memory that it takes in each processor's area, in bytes."},
	{Name: "module", Type: table.Addr, Extra: true, Doc: "Address of the struct module."},
})

func modulesRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	wanted, some := where.Values("name")
	return func(yield func(table.Row, error) bool) {
		owners, err := g.Linux.Owners()
		if err != nil {
			yield(nil, table.Failure(err))
			return
		}
		for m, err := range g.Linux.Modules(ctx) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if some && !slices.ContainsFunc(wanted, func(v table.Value) bool { return v.Text() == m.Name }) {
				continue
			}
			if !yield(moduleRow(ctx, owners, m)) {
				return
			}
		}
	}
}

func moduleRow(ctx context.Context, owners *linux.Owners, m *linux.Module) (table.Row, error) {
	var partly error
	// list is a cell of a part that is read by itself.
	list := func(l []string, err error) table.Value {
		if err != nil {
			partly = errors.Join(partly, err)
			if len(l) == 0 {
				return unreadable(err)
			}
		}
		return texts(l)
	}
	shown, hidden, err := moduleParameters(m)
	users, err2 := m.Dependants(ctx)
	sections, err3 := moduleSections(ctx, m)
	var memory []string
	for _, r := range m.Memory {
		memory = append(memory, fmt.Sprintf("%s=%#x+%#x", r.Kind, uint64(r.Start), r.Size))
	}
	exit, symbol, owner := function(owners, m.Exit)
	return table.Row{
		table.TextValue(m.Name), table.SizeValue(m.Size()), table.IntValue(m.RefCount), list(users, err2),
		table.TextValue(string(m.State)), text(linux.TaintLetters(m.Taints)), address(m.Start()), texts(memory),
		text(m.Version), text(m.SrcVersion), list(shown, err), list(hidden, nil), list(sections, err3),
		address(m.Init), exit, symbol, owner, table.SizeValue(m.PercpuSize), table.AddrValue(uint64(m.Addr)),
	}, partly
}

// moduleParameters are those with a file in /sys/module and those without, by name.
func moduleParameters(m *linux.Module) (shown, hidden []string, err error) {
	ps, err := m.Parameters()
	for _, p := range ps {
		s := p.Name
		if p.Known {
			s += "=" + p.Value
		}
		if p.Mode != 0 {
			shown = append(shown, s)
		} else {
			hidden = append(hidden, s)
		}
	}
	slices.Sort(shown)
	slices.Sort(hidden)
	return shown, hidden, err
}

func moduleSections(ctx context.Context, m *linux.Module) (list []string, err error) {
	sections, err := m.Sections(ctx)
	for _, s := range sections {
		list = append(list, fmt.Sprintf("%s=%#x", s.Name, uint64(s.Addr)))
	}
	slices.Sort(list)
	return list, err
}
