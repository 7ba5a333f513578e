// Package dump opens memory dumps of every format that the packages beside it
// read, and recognizes the formats by their content.
package dump

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/avml"
	"github.com/outsight-vmi/outsight/phys/elfcore"
	"github.com/outsight-vmi/outsight/phys/file"
	"github.com/outsight-vmi/outsight/phys/flattened"
	"github.com/outsight-vmi/outsight/phys/kdump"
	"github.com/outsight-vmi/outsight/phys/lime"
	"github.com/outsight-vmi/outsight/phys/note"
	"github.com/outsight-vmi/outsight/phys/qemustate"
	"github.com/outsight-vmi/outsight/phys/raw"
	"github.com/outsight-vmi/outsight/phys/seekable"
	"github.com/outsight-vmi/outsight/phys/vmware"
)

// Dump is an open dump.
type Dump struct {
	Memory phys.Memory
	Format string // for people: "ELF core", "kdump, zlib"
	// Placed says that the dump gives the guest-physical address of what it holds.
	// Without that Memory is [phys.Placeable].
	Placed bool
	// CPUs are the processors' registers, where the dump has them.
	CPUs []note.CPU
	// Lost is how many bytes of memory the dump names that the file does not have: it was
	// cut off, or the disk had no room. [phys.Lost] of Memory is the same.
	Lost uint64
	// Foreign is the architecture that the dump's header names, where that is not x86-64.
	// It is a hint: headers were seen to be wrong.
	Foreign string
	// Notes say what a user should know of how the dump was read.
	Notes []string
	// Vmcoreinfo is the kernel's own note for crash-dump tools; nil: there is none.
	Vmcoreinfo []byte
}

// Close closes the file.
func (d *Dump) Close() error {
	if c, ok := d.Memory.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// headSize is how much of a file is looked at to recognise it, in bytes.
const headSize = 4096

// cutOff is a layer that knows whether it has an end.
type cutOff interface{ CutOff() bool }

// bare is a layer that knows whether it lacks its index.
type bare interface{ Bare() bool }

// format is one that can be read. What a layer unwraps is recognized again.
type format struct {
	name   string
	magics []string
	open   func(src file.Source) (*Dump, error)
	layer  func(src file.Source) (file.Source, error)
}

var formats = []format{
	{name: "LiME", magics: []string{"EMiL"}, open: openLime},
	{name: "kdump", magics: []string{kdump.Signature}, open: openKdump},
	{name: "flattened", magics: []string{flattened.Signature}, layer: func(src file.Source) (file.Source, error) { return flattened.New(src) }},
	{name: "zstd", magics: []string{seekable.Magic}, layer: func(src file.Source) (file.Source, error) { return seekable.New(src) }},
	{name: "QEMU state", magics: []string{qemustate.Magic}, open: openState},
	{name: "libvirt save", magics: []string{qemustate.LibvirtMagic}, layer: qemustate.Unwrap},
	{name: "AVML", magics: []string{"AVML"}, open: openAVML},
	{name: "VMware state", magics: vmware.Magics, open: openVMware},
}

// Open opens the dump at path. The error is a [*FormatError] when the file is of a
// kind that cannot be read, or one of package file's.
func Open(path string) (*Dump, error) {
	src, err := file.Open(path)
	if err != nil {
		return nil, err
	}
	d, err := besideVMware(path, src)
	if d == nil && err == nil {
		d, err = New(src)
	}
	if err != nil {
		src.Close()
		return nil, err
	}
	d.Lost = phys.Lost(d.Memory)
	return d, nil
}

// New opens the dump in src, and takes it over unless there is an error.
func New(src file.Source) (*Dump, error) {
	d, err := open(src, 0)
	if err != nil {
		return nil, err
	}
	d.Lost = phys.Lost(d.Memory)
	return d, nil
}

// maxLayers is how often a file may be wrapped in another.
const maxLayers = 3

func open(src file.Source, depth int) (*Dump, error) {
	head, err := file.Head(src, headSize)
	if err != nil {
		return nil, err
	}
	for _, f := range formats {
		if !f.matches(head) {
			continue
		}
		if f.layer == nil {
			return f.open(src)
		}
		inner, err := f.layer(src)
		if errors.Is(err, seekable.ErrNoTable) {
			break
		}
		if err != nil {
			return nil, err
		}
		if depth == maxLayers {
			return nil, fmt.Errorf("a file wrapped in itself %d times", depth)
		}
		d, err := open(inner, depth+1)
		if err != nil {
			return nil, err
		}
		d.Format += ", " + f.name
		if c, ok := inner.(cutOff); ok && c.CutOff() {
			d.Notes = append(d.Notes, fmt.Sprintf("the file was cut off: its %s layer has no end", f.name))
		} else if b, ok := inner.(bare); ok && b.Bare() {
			d.Notes = append(d.Notes, fmt.Sprintf("the %s file has no table of its frames at its end: it may have been cut off, and was searched for them", f.name))
		}
		return d, nil
	}
	if isELFCore(head) {
		return openELF(src)
	}
	if err := recogniseForeign(head); err != nil {
		return nil, err
	}
	mem, err := raw.New(src)
	if err != nil {
		return nil, err
	}
	return &Dump{Memory: mem, Format: "raw"}, nil
}

func (f *format) matches(head []byte) bool {
	for _, m := range f.magics {
		if bytes.HasPrefix(head, []byte(m)) {
			return true
		}
	}
	return false
}

func openELF(src file.Source) (*Dump, error) {
	m, err := elfcore.New(src)
	if err != nil {
		return nil, explainELF(src, err)
	}
	d := &Dump{Memory: m, Format: "ELF core", Placed: true, CPUs: m.CPUs(), Vmcoreinfo: m.Vmcoreinfo()}
	if m.VirtualBox() {
		d.Format = "ELF core of VirtualBox"
	}
	if a := m.Machine(); a != elf.EM_X86_64 {
		d.Foreign = machine(a)
	}
	return d, nil
}

// explainELF says what an ELF core is that cannot be read: Xen's, whose memory is in a
// section instead of segments, or of another machine.
func explainELF(src file.Source, err error) error {
	if f, e := elf.NewFile(src); e == nil && f.Section(".xen_pages") != nil {
		return &FormatError{Format: "a Xen core dump (xl dump-core)", Do: "write the guest's memory from within, with AVML or LiME"}
	}
	head, e := file.Head(src, headSize)
	if e != nil || len(head) < 20 || elf.Machine(binary.LittleEndian.Uint16(head[18:])) == elf.EM_X86_64 {
		return err
	}
	return &FormatError{Format: elfKind(head), Do: fmt.Sprintf("%s (%v)", giveDump, err)}
}

func openLime(src file.Source) (*Dump, error) {
	m, err := lime.New(src)
	if err != nil {
		return nil, err
	}
	return &Dump{Memory: m, Format: "LiME", Placed: true, Notes: m.Notes()}, nil
}

func openAVML(src file.Source) (*Dump, error) {
	m, err := avml.New(src)
	if err != nil {
		return nil, err
	}
	d := &Dump{Memory: m, Format: "AVML", Placed: true}
	if m.CutOff() {
		d.Notes = append(d.Notes, "the AVML file was cut off: what it should have behind that left no trace")
	}
	return d, nil
}

func openKdump(src file.Source) (*Dump, error) {
	m, err := kdump.New(src)
	if err != nil {
		return nil, err
	}
	format := "kdump, " + m.Packing()
	if m.Level() > 1 {
		format += fmt.Sprintf(", pages left out (level %d)", m.Level())
	}
	return &Dump{Memory: m, Format: format, Placed: true, CPUs: m.CPUs(), Vmcoreinfo: m.Vmcoreinfo(), Foreign: m.Foreign(), Notes: m.Notes()}, nil
}

func openState(src file.Source) (*Dump, error) {
	m, err := qemustate.New(src)
	if err != nil {
		return nil, err
	}
	return &Dump{Memory: m, Format: "QEMU state"}, nil
}
