// Package dump opens memory dumps of every format that the packages beside it
// read, and tells the formats apart by looking.
package dump

import (
	"bytes"
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
	// Placed says that the dump tells the guest-physical address of what it holds.
	// Without that Memory is [phys.Placeable].
	Placed bool
	// CPUs are the processors' registers, where the dump has them as QEMU writes
	// them.
	CPUs []note.CPU
	// Short is how many bytes of memory the dump tells of that the file does not have: it
	// was cut off.
	Short uint64
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

// format is one that can be read. What a layer unwraps is recognised anew.
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
	return d, nil
}

// New opens the dump in src, and takes it over unless there is an error.
func New(src file.Source) (*Dump, error) { return open(src, 0) }

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
		return nil, err
	}
	return &Dump{Memory: m, Format: "ELF core", Placed: true, Short: m.Short(), CPUs: m.CPUs(), Vmcoreinfo: m.Vmcoreinfo()}, nil
}

func openLime(src file.Source) (*Dump, error) {
	m, err := lime.New(src)
	if err != nil {
		return nil, err
	}
	return &Dump{Memory: m, Format: "LiME", Placed: true, Short: m.Short()}, nil
}

func openAVML(src file.Source) (*Dump, error) {
	m, err := avml.New(src)
	if err != nil {
		return nil, err
	}
	return &Dump{Memory: m, Format: "AVML", Placed: true}, nil
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
	return &Dump{Memory: m, Format: format, Placed: true, CPUs: m.CPUs(), Vmcoreinfo: m.Vmcoreinfo()}, nil
}

func openState(src file.Source) (*Dump, error) {
	m, err := qemustate.New(src)
	if err != nil {
		return nil, err
	}
	return &Dump{Memory: m, Format: "QEMU state"}, nil
}
