package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/peek"
	"github.com/outsight-vmi/outsight/table"
)

var placeColumns = []table.Column{
	{Name: "address", Type: table.Addr, Doc: "The address."},
	{Name: "physical", Type: table.Addr, Doc: "Where it leads; missing if nowhere."},
	{Name: "region", Type: table.Text, Doc: "Part of the address space: kernel image, a module or program, vmalloc or another area, direct map, process, physical."},
	{Name: "symbol", Type: table.Text, Doc: "Symbol that covers it, with the distance."},
	{Name: "owner", Type: table.Text, Doc: "Whose code or data it is, by address."},
	{Name: "area", Type: table.Addr, Doc: "Start of the area of vmalloc, or of the mapping of a process."},
	{Name: "area_size", Type: table.Size, Doc: "Its bytes."},
	{Name: "area_caller", Type: table.Text, Doc: "The function that asked for the area."},
	{Name: "area_path", Type: table.Text, Doc: "The file that is mapped, or what stands in its place in maps."},
	{Name: "resource", Type: table.Text, Doc: "The device behind an address that is not memory, as in iomem."},
	{Name: "use", Type: table.Text, Doc: "What its page is used for, as in pages."},
	{Name: "block", Type: table.Addr, Doc: "Physical address of its page, compound page or free block."},
	{Name: "block_size", Type: table.Size, Doc: "Bytes of that."},
	{Name: "flags", Type: table.List, Doc: "Flags of the page."},
	{Name: "refs", Type: table.Int, Doc: "References to the page."},
	{Name: "maps", Type: table.Int, Doc: "How often it is mapped into processes."},
	{Name: "cache", Type: table.Text, Doc: "Slab cache whose objects lie there."},
	{Name: "object", Type: table.Addr, Doc: "Address of the object that it lies in."},
	{Name: "object_size", Type: table.Size, Doc: "Its bytes."},
	{Name: "object_offset", Type: table.Addr, Doc: "Where it lies in the object; missing between objects."},
	{Name: "path", Type: table.Text, Doc: "File whose bytes the page has."},
	{Name: "offset", Type: table.Size, Doc: "Where it is in the file, in bytes."},
	{Name: "page", Type: table.Addr, Doc: "Address of the struct page."},
}

func newWhatisCommand() *cobra.Command {
	var f peekFlags
	c := &cobra.Command{
		Use:   "whatis TARGET ADDRESS",
		Short: "Show what is at an address",
		Long: `Show what is at an address: which part of the address space it is, the symbol or area that
covers it, where it leads, and what the kernel uses that memory for: the object of a slab cache, the
bytes of a file, a page table, nothing.

` + placeHelp + `

It believes the kernel's own bookkeeping. Whether an object is in use is not reported:
processors keep free ones at hand. An address that leads nowhere, or to what is neither memory
nor a known device, ends in exit status 3.`,
		Example: `  outsight whatis lab:demo init_task+0x8
  outsight whatis lab:demo --pid 1 0x7ffd0000
  outsight whatis lab:demo --physical 0x1f00000`,
		Args:    arguments(2, 2, "a TARGET and an ADDRESS"),
		GroupID: groupMemory,
	}
	f.add(c)
	f.out.add(c, placeColumns)
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		m, a, done, err := f.openAt(c.Context(), args[0], args[1])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		p, err := m.Placer()
		if err != nil {
			return err
		}
		x := p.At(c.Context(), a)
		for _, err := range x.Missing {
			fmt.Fprintln(c.ErrOrStderr(), "outsight: "+sentence(err.Error()))
		}
		row := placeRow(p, x)
		f.out.single = true
		if f.out.columns == "" && f.out.format == string(table.Table) { // for people, what there is
			f.out.columns = present(row)
		}
		if err := f.show(c, placeColumns, func(yield func(table.Row, error) bool) { yield(row, nil) }); err != nil {
			return err
		}
		if x.Fault == nil && len(x.Missing) > 0 {
			return errIncomplete{}
		}
		return x.Fault
	}
	return c
}

// present are the columns of a place that have a value.
func present(row table.Row) string {
	var names []string
	for i, c := range placeColumns {
		if !row[i].IsNull() {
			names = append(names, c.Name)
		}
	}
	return strings.Join(names, ",")
}

func placeRow(p *peek.Placer, x *peek.Place) table.Row {
	row := make(table.Row, len(placeColumns))
	for i := range row {
		row[i] = table.Missing(table.None)
	}
	set := func(name string, v table.Value) {
		for i, c := range placeColumns {
			if c.Name == name {
				row[i] = v
			}
		}
	}
	text := func(name, s string) {
		if s != "" {
			set(name, table.TextValue(s))
		}
	}
	set("address", table.AddrValue(x.Addr))
	text("region", x.Region)
	text("symbol", x.Symbol)
	if x.Owner.Kind != linux.OwnerNone {
		text("owner", x.Owner.String())
	}
	if a := x.Area; a != nil {
		set("area", table.AddrValue(uint64(a.Start)))
		set("area_size", table.SizeValue(uint64(a.End-a.Start)))
		text("area_caller", p.Name(uint64(a.Caller)))
	}
	if v := x.Mapping; v != nil {
		set("area", table.AddrValue(uint64(v.Start)))
		set("area_size", table.SizeValue(uint64(v.End-v.Start)))
		text("area_path", v.Path)
	}
	if x.Fault != nil {
		return row
	}
	set("physical", table.AddrValue(uint64(x.Physical)))
	text("resource", x.Resource)
	if b := x.Page; b != nil {
		text("use", string(b.Use))
		set("block", table.AddrValue(uint64(b.PA)))
		set("block_size", table.SizeValue(b.Size))
		if b.Flags != nil {
			set("flags", table.ListValue(b.Flags))
		}
		if b.Maps >= 0 {
			set("maps", table.IntValue(int64(b.Maps)))
		}
		if b.Addr != 0 { // there is a struct page
			set("refs", table.IntValue(int64(b.Refs)))
			set("page", table.AddrValue(uint64(b.Addr)))
		}
	}
	if o := x.Object; o != nil {
		text("cache", o.Cache.Name)
		set("object", table.AddrValue(uint64(o.Start)))
		set("object_size", table.SizeValue(uint64(o.Cache.ObjectSize)))
		if !o.Padded {
			set("object_offset", table.AddrValue(o.Offset))
		}
	}
	if x.File != nil {
		text("path", x.Path)
		set("offset", table.SizeValue(x.Offset))
	}
	return row
}
