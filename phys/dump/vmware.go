package dump

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/outsight-vmi/outsight/phys/file"
	"github.com/outsight-vmi/outsight/phys/raw"
	"github.com/outsight-vmi/outsight/phys/vmware"
)

// errNoVmem says that a state has no memory in it and none beside it.
var errNoVmem = &FormatError{Format: "the state of a VMware machine without its memory", Do: "put the .vmem file of the same name beside it"}

// openVMware opens a state that has its memory in it.
func openVMware(src file.Source) (*Dump, error) {
	s, err := vmware.Read(src)
	if err != nil {
		return nil, err
	}
	if !s.Embedded {
		return nil, errNoVmem
	}
	m, err := s.Memory(src)
	if err != nil {
		return nil, err
	}
	return &Dump{Memory: m, Format: "VMware state", Placed: true, CPUs: s.CPUs}, nil
}

// besideVMware opens the pair of a VMware state and its memory, whichever of the two path
// is. nil and no error: it is neither. A state that only claims to be one is not asked for
// and does not stop the memory from being read.
func besideVMware(path string, src file.Source) (*Dump, error) {
	if isVMware(src) {
		s, err := vmware.Read(src)
		if err != nil {
			return nil, err
		}
		if s.Embedded {
			return nil, nil // openVMware reads it
		}
		memory, err := file.Open(withExtension(path, ".vmem"))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, errNoVmem
		case err != nil:
			return nil, fmt.Errorf("its memory: %w", err)
		}
		d, err := pairVMware(s, memory)
		if err != nil {
			memory.Close()
			return nil, err
		}
		src.Close()
		return d, nil
	}
	if !strings.EqualFold(filepath.Ext(path), ".vmem") {
		return nil, nil
	}
	for _, extension := range []string{".vmss", ".vmsn"} {
		if s := readVMware(withExtension(path, extension)); s != nil {
			return pairVMware(s, src)
		}
	}
	return nil, nil
}

func withExtension(path, extension string) string {
	return strings.TrimSuffix(path, filepath.Ext(path)) + extension
}

func isVMware(src file.Source) bool {
	head, err := file.Head(src, headSize)
	if err != nil {
		return false
	}
	for _, m := range vmware.Magics {
		if bytes.HasPrefix(head, []byte(m)) {
			return true
		}
	}
	return false
}

// readVMware is the state at path, if there is one without memory.
func readVMware(path string) *vmware.State {
	src, err := file.Open(path)
	if err != nil {
		return nil
	}
	defer src.Close()
	if !isVMware(src) {
		return nil
	}
	s, err := vmware.Read(src)
	if err != nil || s.Embedded {
		return nil
	}
	return s
}

// pairVMware makes a dump of a state and its memory, which it takes over unless there is an
// error.
func pairVMware(s *vmware.State, memory file.Source) (*Dump, error) {
	d := &Dump{Format: "VMware memory with its state", CPUs: s.CPUs}
	if !s.Placed(memory.Size()) {
		m, err := raw.New(memory)
		d.Memory = m
		return d, err
	}
	m, err := s.Memory(memory)
	d.Memory, d.Placed = m, true
	return d, err
}
