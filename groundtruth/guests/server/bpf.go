package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const bpffs = "/sys/fs/bpf"

// program loads a program that returns a number.
func (s *server) program(name string, kind ebpf.ProgramType, attach ebpf.AttachType, to string, ret int32) (*ebpf.Program, error) {
	return s.load(&ebpf.ProgramSpec{
		Name: name, Type: kind, AttachType: attach, AttachTo: to, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, ret), asm.Return()},
	})
}

func (s *server) load(spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", spec.Name, err)
	}
	s.keep = append(s.keep, p)
	return p, nil
}

func (s *server) bpfMaps() error {
	var errs []error
	for _, spec := range []*ebpf.MapSpec{
		{Name: "os_hash", Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 64},
		{Name: "os_array", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 16},
		{Name: "os_percpu", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 4},
		{Name: "os_lru", Type: ebpf.LRUHash, KeySize: 8, ValueSize: 4, MaxEntries: 128},
		{Name: "os_lpm", Type: ebpf.LPMTrie, KeySize: 8, ValueSize: 4, MaxEntries: 32, Flags: unix.BPF_F_NO_PREALLOC},
		{Name: "os_queue", Type: ebpf.Queue, ValueSize: 4, MaxEntries: 8},
		{Name: "os_progs", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 3},
		{Name: "os_perf", Type: ebpf.PerfEventArray, KeySize: 4, ValueSize: 4, MaxEntries: 2},
		{Name: "os_ringbuf", Type: ebpf.RingBuf, MaxEntries: 1 << 16},
	} {
		m, err := ebpf.NewMap(spec)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", spec.Name, err))
			continue
		}
		s.keep = append(s.keep, m)
		switch spec.Type {
		case ebpf.Hash, ebpf.Array:
			for i := range uint32(5) {
				errs = append(errs, m.Put(i, uint64(0x1000+i)))
			}
			errs = append(errs, m.Pin(bpffs+"/"+spec.Name))
		}
	}
	return errors.Join(errs...)
}

func (s *server) bpfSocketFilter() error {
	p, err := s.program("os_sockfilter", ebpf.SocketFilter, 0, "", -1)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Port: 5358, Addr: localhost4}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, p.FD()))
}

// hold keeps a link.
func (s *server) hold(l link.Link, err error) error {
	if err == nil {
		s.keep = append(s.keep, l)
	}
	return err
}

func (s *server) bpfTracing() error {
	// One that uses a map and calls a helper: something to disassemble.
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Name: "os_counts", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return err
	}
	kprobe, err := s.load(&ebpf.ProgramSpec{Name: "os_kprobe", Type: ebpf.Kprobe, License: "GPL", Instructions: asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, counts.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"), asm.Return(),
	}})
	if err != nil {
		return err
	}
	err1 := s.hold(link.Kprobe("vfs_unlink", kprobe, nil))
	var err2, err3 error
	if p, err := s.program("os_tracepoint", ebpf.TracePoint, 0, "", 0); err != nil {
		err2 = err
	} else {
		err2 = s.hold(link.Tracepoint("syscalls", "sys_enter_execve", p, nil))
	}
	if p, err := s.program("os_rawtp", ebpf.RawTracepoint, 0, "", 0); err != nil {
		err3 = err
	} else {
		err3 = s.hold(link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sched_process_exit", Program: p}))
	}
	return errors.Join(err1, err2, err3)
}

func (s *server) bpfFentry() error {
	p, err := s.program("os_fentry", ebpf.Tracing, ebpf.AttachTraceFEntry, "vfs_unlink", 0)
	if err != nil {
		return err
	}
	return s.hold(link.AttachTracing(link.TracingOptions{Program: p}))
}

func (s *server) bpfKprobeMulti() error {
	p, err := s.program("os_multi", ebpf.Kprobe, ebpf.AttachTraceKprobeMulti, "", 0)
	if err != nil {
		return err
	}
	return s.hold(link.KprobeMulti(p, link.KprobeMultiOptions{Symbols: []string{"vfs_rmdir", "vfs_mkdir"}}))
}

func (s *server) bpfLSM() error {
	p, err := s.program("os_lsm", ebpf.LSM, ebpf.AttachLSMMac, "inode_rename", 0)
	if err != nil {
		return err
	}
	return s.hold(link.AttachLSM(link.LSMOptions{Program: p}))
}

const xdpPass = 2

func (s *server) bpfXDP() error {
	p, err := s.program("os_xdp", ebpf.XDP, 0, "", xdpPass)
	if err != nil {
		return err
	}
	err = s.hold(link.AttachXDP(link.XDPOptions{Program: p, Interface: interfaceIndex("veth-b"), Flags: link.XDPGenericMode}))
	// The other way, that outlives its maker: over netlink.
	p2, err2 := s.program("os_xdp_netlink", ebpf.XDP, 0, "", xdpPass)
	if err2 == nil {
		err2 = setLink("dummy0", func(m *rtnl) {
			m.nest(unix.IFLA_XDP, func(in *rtnl) {
				in.u32(unix.IFLA_XDP_FD, uint32(p2.FD())).u32(unix.IFLA_XDP_FLAGS, unix.XDP_FLAGS_SKB_MODE)
			})
		})
	}
	return errors.Join(err, err2)
}

func (s *server) bpfTCX() error {
	p, err := s.program("os_tcx", ebpf.SchedCLS, ebpf.AttachTCXIngress, "", -1)
	if err != nil {
		return err
	}
	return s.hold(link.AttachTCX(link.TCXOptions{Program: p, Interface: interfaceIndex("veth-b"), Attach: ebpf.AttachTCXIngress}))
}

func (s *server) bpfCgroup() error {
	dir := "/sys/fs/cgroup/outsight-bpf"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var errs []error
	for _, c := range []struct {
		name   string
		kind   ebpf.ProgramType
		attach ebpf.AttachType
	}{
		{"os_cg_ingress", ebpf.CGroupSKB, ebpf.AttachCGroupInetIngress},
		{"os_cg_device", ebpf.CGroupDevice, ebpf.AttachCGroupDevice},
		{"os_cg_create", ebpf.CGroupSock, ebpf.AttachCGroupInetSockCreate},
	} {
		p, err := s.program(c.name, c.kind, c.attach, "", 1)
		if err == nil {
			err = s.hold(link.AttachCgroup(link.CgroupOptions{Path: dir, Attach: c.attach, Program: p}))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *server) bpfNetfilter() error {
	const accept = 1
	p, err := s.program("os_netfilter", ebpf.Netfilter, ebpf.AttachNetfilter, "", accept)
	if err != nil {
		return err
	}
	return s.hold(link.AttachNetfilter(link.NetfilterOptions{Program: p, ProtocolFamily: link.NetfilterProtoIPv4, Hook: link.NetfilterInetLocalIn, Priority: -10}))
}

func (s *server) bpfPinned() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "os_pinned", Type: ebpf.SocketFilter, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	return errors.Join(p.Pin(bpffs+"/os_pinned"), p.Close())
}
