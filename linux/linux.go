// Package linux is the objects of a running Linux guest, read from outside:
// tasks with their credentials, arguments, executables, memory, times, namespaces
// and control groups.
//
// A [System] is a guest whose kernel was found. Iterators hand out what is there
// and go on past what cannot be read: an element that is broken is an error beside
// the others, never the end. All text is the guest's, and so are all bytes: it can
// hold anything, and is not fit for a terminal as it is.
package linux

import (
	"context"
	"fmt"
	"math/bits"
	"time"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// System is a Linux guest. It is safe for concurrent use.
type System struct {
	*kernel.Kernel
	o *offsets

	initTask    virt.Addr
	cpus        []virt.Addr // __per_cpu_offset of each possible CPU
	cpusErr     error       // why cpus is not all of them
	boot        time.Time
	maxTasks    int
	layouts     layouts
	modules     moduleCache
	moduleTypes moduleSpecs
}

// Open finds the kernel in mem and prepares to read its objects.
func Open(ctx context.Context, mem phys.Memory, opts kernel.Options) (*System, error) {
	opts.Symbols = append(opts.Symbols, "init_task", "init_uts_ns", "init_pid_ns", "__per_cpu_offset", "nr_cpu_ids", "__cpu_online_mask", "__cpu_possible_mask", "saved_command_line")
	k, err := kernel.Find(ctx, mem, opts)
	if err != nil {
		return nil, err
	}
	return New(k)
}

// New prepares to read the objects of the guest that runs k.
func New(k *kernel.Kernel) (*System, error) {
	s := &System{Kernel: k, maxTasks: taskLimit(k)}
	var err error
	if s.o, err = resolveOffsets(k.Profile); err != nil {
		return nil, fmt.Errorf("kernel %s: %w", k.Release, err)
	}
	var ok bool
	if s.initTask, ok = k.Address("init_task"); !ok {
		return nil, fmt.Errorf("kernel %s: symbol init_task: %w (built without CONFIG_KALLSYMS_ALL?)", k.Release, kernel.ErrNoSymbol)
	}
	if c, err := k.Clock(); err == nil {
		s.boot = c.Boot
	}
	s.cpusErr = s.readCPUs()
	return s, nil
}

// maxCPUs is the most that amd64 kernels can be built for (NR_CPUS).
const maxCPUs = 8192

// readCPUs reads where each possible CPU's area lies.
func (s *System) readCPUs() error {
	n, ok1 := s.Address("nr_cpu_ids")
	table, ok2 := s.Address("__per_cpu_offset")
	if !ok1 || !ok2 {
		return fmt.Errorf("processors: symbols nr_cpu_ids, __per_cpu_offset: %w", kernel.ErrNoSymbol)
	}
	count, err := s.Space.U32(n)
	if err != nil {
		return fmt.Errorf("number of processors: %w", err)
	}
	possible, known := s.possibleCPUs()
	for cpu := range min(count, maxCPUs, possible) {
		off, err := s.Space.U64(table + virt.Addr(cpu)*8)
		if err != nil {
			return fmt.Errorf("area of processor %d: %w", cpu, err)
		}
		s.cpus = append(s.cpus, virt.Addr(off))
	}
	if count == 0 || count > maxCPUs || known && count != possible {
		return fmt.Errorf("%w: the kernel prepared for %d processors", ErrBroken, count)
	}
	return nil
}

// possibleCPUs is one more than the highest processor that can exist: what nr_cpu_ids
// must be too, so that a lie about either costs nothing.
func (s *System) possibleCPUs() (n uint32, known bool) {
	mask, ok := s.Address("__cpu_possible_mask")
	if !ok {
		return maxCPUs, false
	}
	var b [maxCPUs / 8]byte
	size := s.cpuMaskSize()
	if _, err := s.Space.ReadAt(b[:size], mask); err != nil {
		return maxCPUs, false
	}
	for i := size - 1; i >= 0; i-- {
		if b[i] != 0 {
			return uint32(8*i + bits.Len8(b[i])), true
		}
	}
	return maxCPUs, false
}

// CPUs is how many processors the kernel prepared for (nr_cpu_ids).
func (s *System) CPUs() int { return len(s.cpus) }

// BootTime is the wall-clock time at which the guest booted, as btime in its
// /proc/stat; zero if its clock cannot be read.
func (s *System) BootTime() time.Time { return s.boot }

// Hostname is the node name of the initial UTS namespace.
func (s *System) Hostname() (string, error) {
	return s.utsField(s.o.utsNodename)
}

// Machine is the hardware name of the initial UTS namespace, such as x86_64.
func (s *System) Machine() (string, error) {
	return s.utsField(s.o.utsMachine)
}

func (s *System) utsField(off uint32) (string, error) {
	a, ok := s.Address("init_uts_ns")
	if !ok {
		return "", fmt.Errorf("symbol init_uts_ns: %w", kernel.ErrNoSymbol)
	}
	r := s.reader()
	b := r.bytes(a+virt.Addr(off), 65) // __NEW_UTS_LEN + 1
	return cString(b), r.err
}

// CommandLine is what the kernel was booted with.
func (s *System) CommandLine() (string, error) {
	p, err := s.Pointer("saved_command_line")
	if err != nil {
		return "", err
	}
	r := s.reader()
	return r.cString(p, 4096), r.err
}
