// Package peek is looking at a guest's memory by address, symbol or type: for what no
// view shows.
//
// A [Memory] is one address space of a guest: the kernel's, a process's, or the
// guest-physical one. Everything that is read is the guest's, and can be anything.
package peek

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// ErrNoProcess says that a guest has no process of a number, or one without memory.
var ErrNoProcess = errors.New("no such process, or it has no memory of its own")

// Memory is an address space of a guest's.
type Memory struct {
	s     *linux.System
	space *virt.Space // nil: guest-physical
	mm    virt.Addr   // of a process
	abi   linux.ABI   // of a process; empty: the kernel's, which is 64-bit
}

// Kernel is the address space of the kernel.
func Kernel(s *linux.System) *Memory { return &Memory{s: s, space: s.Space} }

// Physical is guest-physical memory.
func Physical(s *linux.System) *Memory { return &Memory{s: s} }

// Process is the address space of a process: its own half, and the kernel's.
func Process(ctx context.Context, s *linux.System, pid int32) (*Memory, error) {
	t, err := Task(ctx, s, pid)
	if err != nil {
		return nil, err
	}
	mm, err := t.MM()
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	if mm == 0 {
		return nil, fmt.Errorf("process %d: %w", pid, ErrNoProcess)
	}
	space, err := s.UserSpace(mm)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	abi, err := s.ABI(mm)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return &Memory{s: s, space: space, mm: mm, abi: abi}, nil
}

// WordSize is how many bytes a pointer has in m: 4 in the memory of a 32-bit process.
func (m *Memory) WordSize() uint64 { return uint64(m.abi.WordSize()) }

// CodeBits is the mode in which code in m is decoded: 32 in the memory of a 32-bit process.
func (m *Memory) CodeBits() int { return m.abi.CodeBits() }

// Task is the process of a number.
func Task(ctx context.Context, s *linux.System, pid int32) (linux.Task, error) {
	for t, err := range s.Processes(ctx) {
		if err != nil {
			continue // it may be another; if it is this one, it is not found below
		}
		if p, _, err := t.IDs(); err == nil && p == pid {
			return t, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return linux.Task{}, err
	}
	return linux.Task{}, fmt.Errorf("process %d: %w", pid, ErrNoProcess)
}

// Space is the page tables of m; nil for guest-physical memory.
func (m *Memory) Space() *virt.Space { return m.space }

// ReadAt fills p from address a.
func (m *Memory) ReadAt(p []byte, a uint64) (n int, err error) {
	if m.space == nil {
		n, err = m.s.Memory.ReadAt(p, phys.Addr(a))
	} else {
		n, err = m.space.ReadAt(p, virt.Addr(a))
	}
	return n, err
}

// ErrPlace says that a text names no place in memory.
var ErrPlace = errors.New("no address and no symbol of this kernel")

// Resolve is the address that text names: a number, or a symbol of the kernel's
// ("init_task"), of a module ("nf_tables:nft_do_chain") or of a processor
// ("runqueues@1"), each with a distance in bytes behind it or not ("+0x10").
func (m *Memory) Resolve(text string) (uint64, error) {
	name, distance, more := strings.Cut(text, "+")
	var off uint64
	if more {
		var err error
		if off, err = strconv.ParseUint(distance, 0, 64); err != nil {
			return 0, fmt.Errorf("%q: %w", text, ErrPlace)
		}
	}
	a, err := m.base(name)
	if err != nil {
		return 0, fmt.Errorf("%q: %w", text, err)
	}
	return a + off, nil
}

func (m *Memory) base(name string) (uint64, error) {
	if n, err := strconv.ParseUint(name, 16, 64); err == nil && len(name) == 16 { // as kernels print them
		return n, nil
	}
	octal := len(name) > 1 && name[0] == '0' && name[1] >= '0' && name[1] <= '9'
	n, err := strconv.ParseUint(name, 0, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("%w: it has more than 64 bits", ErrPlace)
	case octal:
		return 0, fmt.Errorf("%w: write 0x before a hexadecimal number", ErrPlace)
	case err == nil:
		return n, nil
	}
	if m.space == nil {
		return 0, fmt.Errorf("%w: guest-physical memory has no symbols", ErrPlace)
	}
	if module, symbol, ok := strings.Cut(name, ":"); ok {
		if a, ok := m.s.ModuleSymbol(module, symbol); ok {
			return uint64(a), nil
		}
		return 0, fmt.Errorf("%w: no loaded module %s has a symbol %s", ErrPlace, module, symbol)
	}
	name, cpu, percpu := strings.Cut(name, "@")
	if percpu {
		n, err := strconv.Atoi(cpu)
		if err != nil || n < 0 || n >= m.s.CPUs() {
			return 0, fmt.Errorf("%w: no processor %s", ErrPlace, cpu)
		}
		a, err := m.s.PerCPU(name, n)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrPlace, err)
		}
		return uint64(a), nil
	}
	a, ok := m.s.Address(name)
	if !ok {
		if _, known := m.s.Symbol(name); known {
			return 0, fmt.Errorf("%w: each processor has its own; say whose: %s@0", ErrPlace, name)
		}
		return 0, fmt.Errorf("%w: %w; a module's is written MODULE:SYMBOL", ErrPlace, kernel.ErrNoSymbol)
	}
	return uint64(a), nil
}

// Steps are the page-table entries that translate a; see [virt.Space.Steps].
func (m *Memory) Steps(a uint64) (steps []virt.Step, page virt.Page, err error) {
	if m.space == nil {
		return nil, page, fmt.Errorf("%w: physical memory is not translated", ErrPlace)
	}
	return m.space.Steps(virt.Addr(a))
}
