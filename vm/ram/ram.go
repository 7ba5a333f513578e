// Package ram opens guest RAM that lies in the address space of its monitor's
// process, whichever monitor that is: its driver knows where.
package ram

import (
	"errors"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/mapped"
	"github.com/outsight-vmi/outsight/phys/process"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// Block is a block of guest RAM in the monitor's address space.
type Block struct {
	HVA, Size uint64
}

// Total is the size of blocks together, in bytes.
func Total(blocks []Block) (n uint64) {
	for _, b := range blocks {
		n += b.Size
	}
	return n
}

// ErrNone says that no guest RAM was found.
var ErrNone = errors.New("guest RAM was not found in the address space of its process")

// Open opens the blocks, one after the other, under layouts: mapped where all
// of them are shared files, else through the process. why says why not mapped,
// where it could have been.
func Open(pid int, maps []proc.Map, blocks []Block, noMap bool, layouts []phys.Layout) (mem phys.Memory, src vm.Source, why error, err error) {
	if !noMap {
		mem, why = openMapped(pid, maps, blocks, layouts)
		if why == nil {
			return mem, vm.SourceShared, nil, nil
		}
		if errors.Is(why, errPrivate) {
			why = nil
		}
	}
	var ms []process.Mapping
	for _, b := range blocks {
		ms = append(ms, process.Mapping{HVA: b.HVA, Size: b.Size, Anonymous: isAnonymous(maps, b)})
	}
	private, err := process.Open(pid, ms, layouts...)
	if err != nil { // not a nil pointer in an interface: whoever closes a machine asks for nil
		return nil, vm.SourcePrivate, why, err
	}
	return private, vm.SourcePrivate, why, nil
}

var errPrivate = errors.New("the RAM is private to its process")

func openMapped(pid int, maps []proc.Map, blocks []Block, layouts []phys.Layout) (phys.Memory, error) {
	var files []mapped.Backing
	defer func() {
		for _, f := range files {
			f.File.Close()
		}
	}()
	for _, b := range blocks {
		m, ok := proc.FindMap(maps, b.HVA)
		if !ok {
			return nil, ErrNone
		}
		if !m.Shared || m.Inode == 0 {
			return nil, errPrivate
		}
		f, err := proc.OpenMapped(pid, m)
		if err != nil {
			return nil, err
		}
		files = append(files, mapped.Backing{File: f, Offset: m.Offset + (b.HVA - m.Start), Size: b.Size})
	}
	m, err := mapped.Open(files, layouts...)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Shared reports whether all blocks are in memory that others can map.
func Shared(maps []proc.Map, blocks []Block) bool {
	for _, b := range blocks {
		if m, ok := proc.FindMap(maps, b.HVA); !ok || !m.Shared || m.Inode == 0 {
			return false
		}
	}
	return true
}

// isAnonymous reports whether all of b is private memory without a file, so that
// pages which the monitor never touched are known to be zero.
func isAnonymous(maps []proc.Map, b Block) bool {
	for at := b.HVA; at < b.HVA+b.Size; {
		m, ok := proc.FindMap(maps, at)
		if !ok || m.Shared || m.Inode != 0 {
			return false
		}
		at = m.End
	}
	return true
}
