package main

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const tracefs = "/sys/kernel/tracing"

const breakpointWrite = 2 // HW_BREAKPOINT_W

// tell writes to a control file of tracefs.
func tell(file, text string) error {
	f, err := os.OpenFile(tracefs+"/"+file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		return fmt.Errorf("%q: %w", text, err)
	}
	return nil
}

func (s *server) perf() error {
	var errs []error
	for _, a := range []struct {
		name string
		attr unix.PerfEventAttr
	}{
		{"software", unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_PAGE_FAULTS, Sample: 1 << 40}},
		{"breakpoint", unix.PerfEventAttr{
			Type: unix.PERF_TYPE_BREAKPOINT, Bp_type: breakpointWrite,
			Ext1: uint64(uintptr(unsafe.Pointer(&s.dir))), Ext2: 4,
		}},
	} {
		a.attr.Size = uint32(unsafe.Sizeof(a.attr))
		fd, err := unix.PerfEventOpen(&a.attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a.name, err))
			continue
		}
		if a.name == "software" {
			ring, err := unix.Mmap(fd, 0, 3*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			s.keep, errs = append(s.keep, ring), append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *server) kprobeEvents() error {
	err := tell("kprobe_events", "p:outsight/os_probe vfs_unlink\n")
	err1 := tell("kprobe_events", "r:outsight/os_return vfs_rmdir ret=$retval\n")
	if err == nil {
		err = tell("events/outsight/os_probe/enable", "1")
	}
	if err1 == nil {
		err1 = tell("events/outsight/os_return/enable", "1")
	}
	err2 := tell("uprobe_events", "p:outsight/os_uprobe "+s.busybox+":0x1000\n")
	if err2 == nil {
		err2 = tell("events/outsight/os_uprobe/enable", "1")
	}
	return errors.Join(err, err1, err2)
}

// instance makes a trace buffer of its own, a small one.
func instance(name string) error {
	if err := os.MkdirAll(tracefs+"/instances/"+name, 0o755); err != nil {
		return err
	}
	return tell("instances/"+name+"/buffer_size_kb", "64")
}

func (s *server) ftraceInstance() error {
	if err := instance("outsight"); err != nil {
		return err
	}
	return errors.Join(tell("instances/outsight/set_ftrace_filter", "vfs_symlink\n"), tell("instances/outsight/current_tracer", "function"))
}

func (s *server) tracepoints() error {
	if err := instance("outsight-events"); err != nil {
		return err
	}
	return tell("instances/outsight-events/events/sched/sched_process_exec/enable", "1")
}
