// Package vmware reads the state of a suspended or snapshotted VMware machine (.vmss,
// .vmsn): groups of named tags, among which are where its memory lies, and its
// processors' registers. The memory itself is a block in the same file or, as a rule, a
// .vmem file beside it.
//
// VMware has not published a description. This one follows what crash(8)'s vmware_vmss.c, by
// VMware's own people, and Volatility's layer for these files know.
package vmware

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
	"github.com/outsight-vmi/outsight/phys/note"
)

// Magics are what a state begins with: of a whole checkpoint, of one without memory, of
// one that was restored, and of one that may not be.
var Magics = []string{"\xd2\xbe\xd2\xbe", "\xd3\xbe\xd3\xbe", "\xd1\xba\xd1\xba", "\xd2\xba\xd2\xba"}

const (
	headerSize = 12 // magic, version, number of groups
	groupSize  = 80 // name, offset, size
	groupName  = 64

	maxGroups  = 1 << 10
	maxTags    = 1 << 20 // of a group
	maxRegions = 1 << 8
	maxCPUs    = 1 << 12

	pageSize = phys.PageSize
	// holeAt is where memory has its hole for PCI devices: less than that lies in one piece.
	holeAt = 3 << 30
)

// ErrCompressed says that the memory in a state is compressed, in an unknown way.
var ErrCompressed = errors.New("its memory is compressed, which VMware has not described: suspend the machine with mainMem.useNamedFile set, which makes a .vmem file")

// Region is a piece of memory.
type Region struct {
	Range  phys.Range
	Offset uint64 // of its first byte among those of all regions
}

// State is what a .vmss or .vmsn file says.
type State struct {
	// Regions are where memory is. A machine with little memory has none: then it begins at 0,
	// in one piece.
	Regions []Region
	// CPUs are the processors' registers; nil where their page tables are unknown.
	CPUs []note.CPU
	// Embedded says that memory is in the file itself.
	Embedded bool

	offset, size uint64 // of embedded memory in the file
}

// Read reads the state in src.
func Read(src file.Source) (*State, error) {
	head, err := file.Head(src, headerSize)
	if err != nil || len(head) < headerSize {
		return nil, fmt.Errorf("header of the VMware state: %w", errors.Join(err, phys.ErrGone))
	}
	groups := binary.LittleEndian.Uint32(head[8:])
	if groups == 0 || groups > maxGroups {
		return nil, fmt.Errorf("a VMware state of %d groups", groups)
	}
	b := make([]byte, groups*groupSize)
	if err := file.ReadFull(src, b, headerSize); err != nil {
		return nil, fmt.Errorf("groups of the VMware state: %w", err)
	}
	r, seen := &reader{src: src}, map[string]bool{}
	for ; len(b) > 0; b = b[groupSize:] {
		var err error
		at := binary.LittleEndian.Uint64(b[groupName:])
		name := unix.ByteSliceToString(b[:groupName])
		if seen[name] {
			continue // each is there once
		}
		seen[name] = true
		switch name {
		case "memory":
			err = r.tags(at, r.memoryTag)
		case "cpu":
			err = r.tags(at, r.cpuTag)
		}
		if err != nil {
			return nil, fmt.Errorf("group %q of the VMware state: %w", name, err)
		}
	}
	return r.state()
}

// Placed reports whether the state gives the guest-physical address of size bytes of
// memory.
func (s *State) Placed(size uint64) bool { return len(s.Regions) > 0 || size <= holeAt }

// Memory is the machine's memory in src, which it takes over: the state itself, or the
// .vmem file. It must be [State.Placed].
func (s *State) Memory(src file.Source) (*file.Memory, error) {
	base, size := uint64(0), src.Size()
	if s.Embedded {
		base, size = s.offset, s.size
	}
	regions := s.Regions
	if len(regions) == 0 {
		regions = []Region{{Range: phys.Range{End: phys.Addr(size)}}}
	}
	var extents []file.Extent
	var lost uint64
	for _, r := range regions {
		there := min(r.Range.Size(), size-min(size, r.Offset))
		lost += r.Range.Size() - there
		r.Range.End = r.Range.Start + phys.Addr(there)
		extents = append(extents, file.Extent{Range: r.Range, Offset: base + r.Offset})
	}
	m := file.NewMemory(src, extents)
	m.Lose(lost)
	if len(m.Ranges()) == 0 {
		return nil, errors.New("nothing of the VMware machine's memory is in the file: it was cut off")
	}
	return m, nil
}
