// Package process reads guest RAM out of the address space of the process that
// runs the machine, whatever monitor that is, with process_vm_readv. It needs the
// right to trace that process (the same user or root) but neither stops nor
// otherwise touches it.
package process

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
)

// Mapping is a part of the process's address space that holds guest RAM.
type Mapping struct {
	HVA  uint64 // host virtual address
	Size uint64 // in bytes
	// Anonymous says that the mapping is private and not of a file, so that
	// what the process never touched is zero and need not be read.
	Anonymous bool
}

// Memory is guest RAM in another process. It implements [phys.Memory],
// [phys.Populated] and [phys.Placeable].
type Memory struct {
	*target
	pieces  []piece
	ranges  []phys.Range
	layouts []phys.Layout
}

type piece struct {
	phys.Range
	hva  uint64
	anon bool
}

// target is the process, shared by every Memory that Place made.
type target struct {
	pid  int
	mem  *os.File // /proc/PID/mem: stays with this process if the pid is reused
	page *os.File // /proc/PID/pagemap; nil: not readable
	maps []Mapping
}

// Open reads the RAM that process pid has in maps, one after the other, and
// places it by layouts[0], whose offsets count through all maps. Further layouts
// are alternatives for [Memory.Layouts].
func Open(pid int, maps []Mapping, layouts ...phys.Layout) (*Memory, error) {
	if len(maps) == 0 || len(layouts) == 0 {
		return nil, fmt.Errorf("read the memory of process %d: a mapping and a layout are needed", pid)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	t := &target{pid: pid, mem: mem, maps: maps}
	t.page, _ = os.Open(fmt.Sprintf("/proc/%d/pagemap", pid)) // optional
	m := &Memory{target: t, layouts: layouts}
	m.place(layouts[0])
	if len(m.pieces) == 0 {
		m.Close()
		return nil, fmt.Errorf("read the memory of process %d: the map %q has nothing in its %d bytes", pid, layouts[0], m.Size())
	}
	// One look now, so that a missing right is an error here and not later.
	var probe [8]byte
	if _, err := m.ReadAt(probe[:], m.pieces[0].Start); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Memory) place(l phys.Layout) {
	sizes := make([]uint64, len(m.maps))
	for i, h := range m.maps {
		sizes[i] = h.Size
	}
	ps := l.Pieces(sizes...)
	for _, p := range ps {
		h := m.maps[p.Backing]
		m.pieces = append(m.pieces, piece{p.Range, h.HVA + p.Offset, h.Anonymous})
	}
	m.ranges = phys.JoinRanges(ps)
}

// Close releases the process, for every Memory made from it with Place too.
func (m *Memory) Close() error {
	err := m.mem.Close()
	if m.page != nil {
		err = errors.Join(err, m.page.Close())
	}
	return err
}

// Ranges implements [phys.Memory].
func (m *Memory) Ranges() []phys.Range { return m.ranges }

// Hosts implements [phys.Hosted].
func (m *Memory) Hosts() (hosts []phys.Host) {
	for _, p := range m.pieces {
		hosts = append(hosts, phys.Host{Range: p.Range, Offset: p.hva})
	}
	return hosts
}

// Size implements [phys.Placeable].
func (m *Memory) Size() (n uint64) {
	for _, h := range m.maps {
		n += h.Size
	}
	return n
}

// Layouts implements [phys.Placeable].
func (m *Memory) Layouts() []phys.Layout { return m.layouts }

// Place implements [phys.Placeable]. The result ends with m.
func (m *Memory) Place(l phys.Layout) phys.Memory {
	placed := &Memory{target: m.target, layouts: []phys.Layout{l}}
	placed.place(l)
	return placed
}

// find returns the piece that holds pa.
func (m *Memory) find(pa phys.Addr) *piece {
	for i := range m.pieces {
		if p := &m.pieces[i]; pa >= p.Start && pa < p.End {
			return p
		}
	}
	return nil
}

// ReadAt implements [phys.Memory]. It costs one system call for each piece that
// it touches.
//
// It goes through /proc/PID/mem, which costs the same as process_vm_readv for one
// read and cannot hit a later process that got the same pid.
func (m *Memory) ReadAt(p []byte, pa phys.Addr) (n int, err error) {
	for n < len(p) {
		at := pa + phys.Addr(n)
		s := m.find(at)
		if s == nil {
			return n, phys.NotPresent(at, len(p)-n)
		}
		in := uint64(at - s.Start)
		step := int(min(uint64(len(p)-n), s.Size()-in))
		k, err := unix.Pread(int(m.mem.Fd()), p[n:n+step], int64(s.hva+in))
		if k > 0 {
			n += k
			continue
		}
		return n, m.fail(at, len(p)-n, err)
	}
	return n, nil
}

// fail explains a read of n bytes at pa that gave nothing.
func (m *Memory) fail(pa phys.Addr, n int, err error) error {
	// A process that is gone reads as the end of the file (or ESRCH in a batch);
	// one whose mapping went away as EIO (EFAULT).
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, unix.ESRCH):
		return fmt.Errorf("read %d bytes at guest-physical %#x: process %d has exited: %w", n, uint64(pa), m.pid, phys.ErrGone)
	case errors.Is(err, unix.EIO), errors.Is(err, unix.EFAULT):
		return fmt.Errorf("read %d bytes at guest-physical %#x: process %d has unmapped it: %w", n, uint64(pa), m.pid, phys.ErrGone)
	}
	return fmt.Errorf("read %d bytes at guest-physical %#x from process %d: %w", n, uint64(pa), m.pid, err)
}
