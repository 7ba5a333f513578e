package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/dump"
	"github.com/outsight-vmi/outsight/phys/note"
)

// openDump opens a file of guest memory.
func openDump(what, path string) (*Machine, error) {
	d, err := dump.Open(path)
	if err != nil {
		return nil, dumpError(what, err)
	}
	m := &Machine{Memory: d.Memory, Proven: d.Placed}
	m.Name, m.VMM, m.State, m.Source, m.Format = filepath.Base(path), "file", StateDump, SourceDump, d.Format
	for _, r := range d.Memory.Ranges() {
		m.RAM += r.Size()
	}
	if d.Lost > 0 {
		m.Notes = append(m.Notes, fmt.Sprintf("%s was cut off, or its disk was full: %d bytes of memory (%d pages) that it should have are not in it, and what was there is unknown", path, d.Lost, (d.Lost+phys.PageSize-1)/phys.PageSize))
	}
	m.Notes = append(m.Notes, d.Notes...)
	if d.Foreign != "" {
		m.Notes = append(m.Notes, fmt.Sprintf("the header of %s says that it is of %s; memory decides", path, d.Foreign))
	}
	if len(d.CPUs) > 0 {
		m.Control.Registers, m.CPUs = stillRegisters(registersOf(d)), len(d.CPUs)
	}
	if st, err := os.Stat(path); err == nil {
		m.Created = st.ModTime()
	}
	return m, nil
}

// stillRegisters are the registers that a dump keeps. It is a [RegisterReader].
type stillRegisters []Registers

func (r stillRegisters) Registers(context.Context) ([]Registers, error) { return r, nil }

func registersOf(d *dump.Dump) (rs []Registers) {
	for i, c := range d.CPUs {
		rs = append(rs, Registers{
			CPU: i, Partial: c.Partial, RIP: c.RIP, RSP: c.RSP, RFLAGS: c.RFLAGS, General: c.General, Selectors: c.Selectors, CR0: c.CR0, CR2: c.CR2, CR3: c.CR3, CR4: c.CR4,
			FSBase: c.FSBase, GSBase: c.GSBase, KernelGSBase: c.KernelGSBase,
			GDT: c.GDT, IDT: c.IDT, TR: c.TR, LDT: c.LDT, GDTLimit: c.GDTLimit, IDTLimit: c.IDTLimit, CPL: c.CPL,
		})
	}
	return rs
}

// NotesOf are registers as a dump's notes have them.
func NotesOf(rs []Registers) (cpus []note.CPU) {
	for _, r := range rs {
		cpus = append(cpus, note.CPU{
			Partial: r.Partial, RIP: r.RIP, RSP: r.RSP, RFLAGS: r.RFLAGS, General: r.General, Selectors: r.Selectors,
			CR0: r.CR0, CR2: r.CR2, CR3: r.CR3, CR4: r.CR4,
			FSBase: r.FSBase, GSBase: r.GSBase, KernelGSBase: r.KernelGSBase,
			GDT: r.GDT, IDT: r.IDT, TR: r.TR, LDT: r.LDT, GDTLimit: r.GDTLimit, IDTLimit: r.IDTLimit, CPL: r.CPL,
		})
	}
	return cpus
}

func dumpError(what string, err error) error {
	switch _, foreign := errors.AsType[*dump.FormatError](err); {
	case foreign:
		return &Error{Kind: ErrUnsupported, What: what, Why: err.Error(), Err: err}
	case errors.Is(err, fs.ErrPermission):
		return &Error{Kind: ErrPermission, What: what, Why: "this user may not read the file", Do: "run as its owner or root", Err: err}
	}
	return &Error{Kind: ErrNotDump, What: what, Why: err.Error(), Err: err}
}
