package check

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// executable is memory that the kernel can execute, by its page tables.
type executable struct {
	run
	large bool // it is mapped by pages larger than 4 KiB
}

// maxExecutable bounds the stretches of executable memory that are read: a guest has some hundred,
// one for each program of BPF before 5.18.
const maxExecutable = 1 << 16

// kernelMemory is what the page tables of the kernel's half say.
type kernelMemory struct {
	executable []executable
	// user is what is mapped as user-accessible, without the page of vsyscalls: nothing.
	user []run
	more bool // there is more of that
}

// readKernelMemory walks the page tables of the kernel's half. An error in holes says that not all were
// followed.
func readKernelMemory(ctx context.Context, s *linux.System) (memory *kernelMemory, holes []error, err error) {
	const kernelHalf = 1 << 63
	memory = &kernelMemory{}
	var all []executable
	walked := s.Space.WalkMappings(kernelHalf, ^virt.Addr(0), func(m virt.Mapping) bool {
		if m.User() && m.Present() && !isVsyscall(s, m) {
			memory.addUser(m)
		}
		if !m.Executable() || !m.Present() {
			return ctx.Err() == nil
		}
		e := executable{run{m.VA, m.VA + virt.Addr(m.Size), m.Writable()}, m.Size > phys.PageSize}
		if e.end < e.start { // the last page that there is
			e.end = ^virt.Addr(0)
		}
		if n := len(all); n > 0 && all[n-1].end == e.start && all[n-1].writable == e.writable && all[n-1].large == e.large {
			all[n-1].end = e.end
		} else {
			all = append(all, e)
		}
		return ctx.Err() == nil && len(all) < maxExecutable
	})
	switch {
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case len(all) >= maxExecutable:
		holes = append(holes, fmt.Errorf("more than %d pieces of the kernel's memory are executable: the rest was not looked at", maxExecutable))
	case walked != nil:
		holes = append(holes, fmt.Errorf("the kernel's memory: %w", walked))
	}
	if memory.more {
		holes = append(holes, fmt.Errorf("more than %d pieces of the kernel's memory are mapped as user-accessible: the rest is left out", maxUser))
	}
	memory.executable = all
	return memory, holes, nil
}

// isVsyscall reports whether a mapping is that of the page of vsyscalls, and leads to it read-only (map_vsyscall).
func isVsyscall(s *linux.System, m virt.Mapping) bool {
	if m.VA != vsyscallPage || m.Size != phys.PageSize || m.Writable() {
		return false
	}
	page, ok := s.Address("__vsyscall_page")
	if !ok {
		return true // a kernel that does not name its data (without CONFIG_KALLSYMS_ALL)
	}
	// By where the image lies: the page tables are what is judged.
	return m.PA == s.TextPA+phys.Addr(page-s.Text)
}

// maxUser bounds the pieces of user-accessible memory.
const maxUser = 256

// addUser notes a mapping that is user-accessible.
func (k *kernelMemory) addUser(m virt.Mapping) {
	end := m.VA + virt.Addr(m.Size)
	switch n := len(k.user); {
	case n > 0 && k.user[n-1].end == m.VA && k.user[n-1].writable == m.Writable():
		k.user[n-1].end = end
	case n < maxUser:
		k.user = append(k.user, run{m.VA, end, m.Writable()})
	default:
		k.more = true
	}
}
