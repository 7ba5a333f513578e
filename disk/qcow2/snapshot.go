package qcow2

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/disk"
)

// A Snapshot is one that is in an image, made by savevm or qemu-img snapshot -c.
type Snapshot struct {
	ID, Name string
	Time     time.Time
	Clock    time.Duration // how long the machine had run
	// StateSize is the size of the machine's state, with its memory, in bytes; 0: the disk alone was kept.
	StateSize int64
	Size      int64 // of the disk, in bytes

	table table
}

const (
	snapshotHeader   = 40      // bytes
	maxSnapshotExtra = 1 << 10 // bytes, as QEMU has it
	maxSnapshotTable = 16 << 20
)

// Snapshots are the snapshots that are in the image.
func (i *Image) Snapshots() ([]Snapshot, error) {
	var all []Snapshot
	first := i.snapshotOffset
	for at, n := first, uint32(0); n < i.snapshots; n++ {
		s, next, err := i.snapshot(at)
		if err != nil {
			return all, err
		}
		all, at = append(all, s), next
		if at-first > maxSnapshotTable {
			return all, broken(first, "snapshots that need more than %d bytes to be told", maxSnapshotTable)
		}
	}
	return all, nil
}

func (i *Image) snapshot(at int64) (s Snapshot, next int64, err error) {
	var h [snapshotHeader + 16]byte
	if at <= 0 || at > i.device.Size() {
		return s, 0, broken(at, "a snapshot beyond the end of the image")
	}
	if err := disk.ReadFull(i.device, h[:snapshotHeader], at); err != nil {
		return s, 0, fmt.Errorf("qcow2: snapshot: %w", err)
	}
	be := binary.BigEndian
	extra := int64(be.Uint32(h[36:]))
	if extra > maxSnapshotExtra {
		return s, 0, broken(at, "a snapshot with %d extra bytes (at most %d are possible)", extra, maxSnapshotExtra)
	}
	if err := disk.ReadFull(i.device, h[snapshotHeader:snapshotHeader+min(extra, 16)], at+snapshotHeader); err != nil {
		return s, 0, fmt.Errorf("qcow2: snapshot: %w", err)
	}
	id, name := int(be.Uint16(h[12:])), int(be.Uint16(h[14:]))
	text := make([]byte, id+name)
	if err := disk.ReadFull(i.device, text, at+snapshotHeader+extra); err != nil {
		return s, 0, fmt.Errorf("qcow2: name of a snapshot: %w", err)
	}
	s = Snapshot{
		ID: string(text[:id]), Name: string(text[id:]),
		Time:      time.Unix(int64(be.Uint32(h[16:])), int64(be.Uint32(h[20:]))).UTC(),
		Clock:     time.Duration(be.Uint64(h[24:])),
		StateSize: int64(be.Uint32(h[32:])), Size: i.header.size,
		table: table{int64(be.Uint64(h[0:])), int64(be.Uint32(h[8:]))},
	}
	if extra >= 8 {
		if large := int64(be.Uint64(h[40:])); large != 0 {
			s.StateSize = large
		}
	}
	if extra >= 16 {
		s.Size = int64(be.Uint64(h[48:]))
	}
	if s.Size < 0 || s.Size >= 1<<61 || s.StateSize < 0 || s.StateSize >= 1<<61 {
		return s, 0, broken(at, "a snapshot of a disk of %d bytes with a state of %d", uint64(s.Size), uint64(s.StateSize))
	}
	return s, (at + snapshotHeader + extra + int64(id) + int64(name) + 7) &^ 7, nil
}

// Snapshot finds a snapshot by its id or, if none has that, its name.
func (i *Image) Snapshot(idOrName string) (Snapshot, error) {
	all, err := i.Snapshots()
	for _, s := range all {
		if s.ID == idOrName {
			return s, nil
		}
	}
	for _, s := range all {
		if s.Name == idOrName {
			return s, nil
		}
	}
	if err != nil {
		return Snapshot{}, err
	}
	return Snapshot{}, fmt.Errorf("qcow2: no snapshot has the id or name %q (%d are in the image)", idOrName, len(all))
}

// At is the disk as it was at a snapshot of the image. It can be read until the image is closed; to close it is to
// close the image.
func (i *Image) At(s Snapshot) (*Image, error) {
	if err := i.check(s.table, s.Size); err != nil {
		return nil, fmt.Errorf("qcow2: snapshot %q: %w", s.Name, err)
	}
	return &Image{core: i.core, size: s.Size, table: s.table}, nil
}

// State is the machine's state at a snapshot, with its memory: what QEMU sends when it migrates. Its StateSize is not 0.
func (i *Image) State(s Snapshot) (disk.Device, error) {
	if s.StateSize == 0 {
		return nil, fmt.Errorf("qcow2: snapshot %q has no state of the machine", s.Name)
	}
	// It is behind the disk, where the next L1 entry begins (qcow2_vm_state_offset).
	shift := i.clusterBits + i.l2Bits
	start := (s.Size + 1<<shift - 1) >> shift << shift
	end := start + s.StateSize
	if err := i.check(s.table, end); err != nil {
		return nil, fmt.Errorf("qcow2: state of snapshot %q: %w", s.Name, err)
	}
	return disk.Section(&Image{core: i.core, size: end, table: s.table}, start, s.StateSize)
}
