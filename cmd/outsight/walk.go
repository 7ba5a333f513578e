package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/peek"
	"github.com/outsight-vmi/outsight/table"
)

var walkColumns = []table.Column{
	{Name: "index", Type: table.Uint, Doc: "Place in the chain, from 0 on; of an XArray or a maple tree, the index there."},
	{Name: "address", Type: table.Addr, Doc: "Address of the object."},
	{Name: "symbol", Type: table.Text, Doc: "Symbol of the kernel's at or before it, with the distance; missing elsewhere."},
	{Name: "members", Type: table.List, Doc: "The members that were asked for: name = value."},
}

const walkLong = `Follow a chain of the kernel's objects, and show members of each.

HEAD is where the chain begins: a list_head, hlist_head, rb_root, xarray, maple_tree, or a
pointer to the first object. LINK is the member by which objects hang on it, with their type
("module.list"): a list_head, hlist_node or rb_node, or a pointer to the next object. With
--xarray or --maple it is the type of what such a tree points to. Further arguments name members to show.
What is not in memory is reported where the chain breaks off.

` + placeHelp

func newWalkCommand() *cobra.Command {
	var f peekFlags
	var xarray, maple bool
	c := &cobra.Command{
		Use:   "walk TARGET HEAD LINK [MEMBER...]",
		Short: "Follow a list or tree of the kernel's objects",
		Long:  walkLong,
		Example: `  outsight walk lab:demo modules module.list name refcnt.counter
  outsight walk lab:demo super_blocks super_block.s_list s_id s_type
  outsight walk lab:demo file_systems file_system_type.next name`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 3 {
				return errors.New("walk takes a TARGET, a HEAD, a LINK and optional MEMBERs")
			}
			return nil
		},
		GroupID: groupMemory,
	}
	f.guest.add(c)
	c.ValidArgsFunction = completeTarget
	f.out.add(c, walkColumns)
	c.Flags().BoolVar(&xarray, "xarray", false, "HEAD is an xarray, radix_tree_root or idr, whose entries point to objects of the type LINK")
	c.Flags().BoolVar(&maple, "maple", false, "HEAD is a maple_tree, whose entries point to objects of the type LINK")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if xarray && maple {
			return usagef("--xarray and --maple exclude each other: HEAD is one or the other")
		}
		m, head, done, err := f.openAt(c.Context(), args[0], args[1])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		var kind kobj.ChainKind
		switch {
		case xarray:
			kind = kobj.ChainXArray
		case maple:
			kind = kobj.ChainMaple
		}
		chain, err := m.Chain(args[2], kind)
		if err != nil {
			return usagef("%w", err)
		}
		object, _, _ := strings.Cut(args[2], ".")
		var members []*peek.Type
		for _, name := range args[3:] {
			t, err := m.Type(object + "." + name)
			if err != nil {
				return usagef("%w", err)
			}
			members = append(members, t)
		}
		broken := 0
		err = f.show(c, walkColumns, func(yield func(table.Row, error) bool) {
			for o, err := range chain.Objects(c.Context(), head) {
				if err != nil {
					broken++
					fmt.Fprintln(c.ErrOrStderr(), "outsight: "+sentence(err.Error()))
					continue
				}
				if !yield(walkRow(m, o, members, args[3:]), nil) {
					return
				}
			}
		})
		if err == nil && broken > 0 {
			return fmt.Errorf("walk: the chain at %#x is broken in %d places, or not all in memory", head, broken)
		}
		return err
	}
	return c
}

func walkRow(m *peek.Memory, o peek.Object, members []*peek.Type, names []string) table.Row {
	symbol, shown := table.Missing(table.None), table.Missing(table.None)
	if s := m.SymbolAt(o.Addr); s != "" {
		symbol = table.TextValue(s)
	}
	var values []string
	for i, t := range members {
		for l := range t.Lines(0, &o.Addr) {
			value := l.Value
			if l.Err != nil {
				value = "?"
			}
			name := names[i]
			if l.Name != name && !strings.HasSuffix(name, "."+l.Name) && l.Name != "" {
				name = l.Name
			}
			values = append(values, name+" = "+value)
		}
	}
	if len(values) > 0 {
		shown = table.ListValue(values)
	}
	return table.Row{table.UintValue(o.Index), table.AddrValue(o.Addr), symbol, shown}
}
