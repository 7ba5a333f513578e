// Package linux is the objects of a running Linux guest, read from outside:
// tasks with their credentials, arguments, executables, memory, times, namespaces
// and control groups.
//
// What has few ties to these has a package of its own below: network, netfilter, bpf,
// perf, image, shell, ipc, mm, hooks, sched, device, sysctl. All of them read alike: a
// function takes the context, if it can take long, and then the *[System], and yields
// objects with an error for each that cannot be read. How kernel objects are linked is
// package kobj's; System embeds its Walker.
//
// A [System] is a guest whose kernel was found. Iterators hand out what is there
// and go on past what cannot be read: an element that is broken is an error beside
// the others, never the end. All text is the guest's, and so are all bytes: it can
// hold anything, and is not fit for a terminal as it is.
package linux

import (
	"context"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// System is a Linux guest. It is safe for concurrent use.
type System struct {
	*kobj.Walker
	o *offsets

	initTask    virt.Addr
	boot        time.Time
	maxTasks    int
	modules     *moduleCache
	moduleTypes *moduleSpecs
	owners      *ownersCache // of a look, nil for what is read at many times
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
	s := &System{Walker: kobj.New(k), maxTasks: taskLimit(k), modules: &moduleCache{}, moduleTypes: &moduleSpecs{}}
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
	return s, nil
}

// Over is the same system in other memory: a snapshot of the guest (package phys/look),
// or the guest at another time. It takes microseconds. What is known of the kernel's build
// is shared with s; what is known of the guest's state, such as its modules, is not.
func (s *System) Over(mem phys.Memory) *System {
	o := &System{Walker: s.Walker.Over(mem), o: s.o, initTask: s.initTask, boot: s.boot, maxTasks: s.maxTasks, modules: &moduleCache{}, moduleTypes: s.moduleTypes, owners: &ownersCache{}}
	if c, err := o.Clock(); err == nil {
		o.boot = c.Boot // who sets the guest's clock moves it
	}
	return o
}

// Through is s read through mem, which holds what s was read from, and notes what is read of it (package
// phys/look). Who asks for the owners of code gets owners, which are not read again; nil reads them.
func (s *System) Through(mem phys.Memory, owners *Owners) *System {
	t := &System{Walker: s.Walker.Over(mem), o: s.o, initTask: s.initTask, boot: s.boot, maxTasks: s.maxTasks, modules: &moduleCache{}, moduleTypes: s.moduleTypes, owners: &ownersCache{}}
	if owners != nil {
		t.SetOwners(owners)
	}
	return t
}

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
	r := s.Reader()
	b := r.Bytes(a+virt.Addr(off), 65) // __NEW_UTS_LEN + 1
	return kobj.CString(b), r.Err
}

// CommandLine is what the kernel was booted with.
func (s *System) CommandLine() (string, error) {
	p, err := s.Pointer("saved_command_line")
	if err != nil {
		return "", err
	}
	r := s.Reader()
	return r.CString(p, 4096), r.Err
}
