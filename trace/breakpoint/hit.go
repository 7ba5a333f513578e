package breakpoint

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm/gdb"
)

// layout is what of the kernel's structures says what happened.
type layout struct {
	signal, realCred, flags                 kobj.Field // task_struct
	live, signalFlags, groupExit            kobj.Field // signal_struct
	filename                                kobj.Field // linux_binprm
	moduleName, moduleArgs                  kobj.Field // module
	uid, euid, suid, fsuid                  kobj.Field // cred
	gid, egid, sgid, fsgid, effective       kobj.Field
	permitted, inheritable, userNS          kobj.Field
	number                                  kobj.Field // user_namespace
	sk, sockType, fileData                  kobj.Field // socket, file
	family, dport, num, daddr, rcv          kobj.Field // sock_common
	daddr6, rcv6                            kobj.Field
	pathMount, pathDentry                   kobj.Field // path
	mnt, mntParent, mntDevice, mntSuper     kobj.Field // mount, vfsmount
	superType, typeName                     kobj.Field // super_block, file_system_type
	name, parent                            kobj.Field // dentry
	unixAddr, unixPeer, unixLen, unixSockun kobj.Field
}

func layoutOf(s *linux.System) (*layout, error) {
	return kobj.LayoutOf(s.Walker, "events at breakpoints", func(r *kobj.Resolver, o *layout) {
		const t, g, c, k = "task_struct", "signal_struct", "cred", "sock_common"
		o.signal, o.realCred, o.flags = r.Field(t, "signal"), r.Field(t, "real_cred"), r.Field(t, "flags")
		o.live, o.signalFlags, o.groupExit = r.Field(g, "live"), r.Field(g, "flags"), r.Field(g, "group_exit_code")
		o.filename = r.Field("linux_binprm", "filename")
		o.moduleName, o.moduleArgs = r.Optional("module", "name"), r.Optional("module", "args")
		o.uid, o.euid, o.suid, o.fsuid = r.Field(c, "uid"), r.Field(c, "euid"), r.Field(c, "suid"), r.Field(c, "fsuid")
		o.gid, o.egid, o.sgid, o.fsgid = r.Field(c, "gid"), r.Field(c, "egid"), r.Field(c, "sgid"), r.Field(c, "fsgid")
		o.effective, o.permitted, o.inheritable = r.Field(c, "cap_effective"), r.Field(c, "cap_permitted"), r.Field(c, "cap_inheritable")
		o.userNS, o.number = r.Field(c, "user_ns"), r.Field("user_namespace", "ns.inum")
		o.sk, o.sockType = r.Field("socket", "sk"), r.Field("socket", "type")
		o.fileData = r.Field("file", "private_data")
		o.family, o.dport, o.num = r.Field(k, "skc_family"), r.Field(k, "skc_dport"), r.Field(k, "skc_num")
		o.daddr, o.rcv = r.Field(k, "skc_daddr"), r.Field(k, "skc_rcv_saddr")
		o.daddr6, o.rcv6 = r.Optional(k, "skc_v6_daddr"), r.Optional(k, "skc_v6_rcv_saddr")
		o.pathMount, o.pathDentry = r.Field("path", "mnt"), r.Field("path", "dentry")
		o.mnt, o.mntParent, o.mntDevice = r.Field("mount", "mnt"), r.Field("mount", "mnt_parent"), r.Field("mount", "mnt_devname")
		o.mntSuper, o.superType, o.typeName = r.Field("vfsmount", "mnt_sb"), r.Field("super_block", "s_type"), r.Field("file_system_type", "name")
		o.name, o.parent = r.Field("dentry", "d_name.name", "d_name.__name", "__d_name.name"), r.Field("dentry", "d_parent")
		o.unixAddr, o.unixPeer = r.Optional("unix_sock", "addr"), r.Optional("unix_sock", "peer")
		o.unixLen, o.unixSockun = r.Optional("unix_address", "len"), r.Optional("unix_address", "name")
	})
}

// hit is a point that was hit: the machine stands still.
type hit struct {
	ctx   context.Context
	s     *stream
	o     *layout
	sys   *linux.System
	r     kobj.Reader
	paths *linux.ProcessReader
	args  [6]uint64    // of the function
	bases [2]virt.Addr // of GS: the one in use, and the one that waits
	rip   uint64
	stack virt.Addr
	point *point
	task  virt.Addr // that runs on the processor; 0: unknown
	e     trace.Event
	drop  bool // it is no event
}

// linux makes an event of what Linux does at a point.
func (s *stream) linux(ctx context.Context, p *point, stop gdb.Stop, regs *gdb.Registers, at time.Time) (intact bool) {
	e := trace.Event{Time: at, Source: trace.FromBreakpoint, Kind: p.kind, Name: p.function, VCPU: stop.CPU}
	l, err := s.g.Look(ctx)
	if err != nil {
		e.Note = "unreadable: " + err.Error()
		s.emit(e)
		return false
	}
	defer l.Close()
	if l.Boot != s.boot {
		return false // the kernel that was there is gone
	}
	h := &hit{ctx: ctx, s: s, o: s.layout, sys: l.Linux, r: l.Linux.Reader(), paths: l.Linux.NewProcessReader(), point: p, e: e}
	h.registers(regs)
	var code [nopSize]byte
	intact = p.watch != nil || l.Linux.ReadAt(code[:], p.addr) == nil && code == p.code
	h.task = h.current()
	if h.task != 0 && p.kind != trace.KindExec { // it is another program now
		h.process()
	}
	p.read(h)
	if h.drop {
		return intact
	}
	if h.r.Err != nil {
		h.e.Note = "in part: " + h.r.Err.Error()
	}
	s.emit(h.e)
	return intact
}

// process fills in whose event it is.
func (h *hit) process() {
	if h.task == 0 {
		return
	}
	h.e.Process = h.s.processes.Of(h.ctx, h.task)
	if _, tid, err := h.sys.TaskAt(h.task).IDs(); err == nil {
		h.e.TID = tid
	}
}

// registers takes what is needed of them.
func (h *hit) registers(regs *gdb.Registers) {
	for i, name := range [...]string{"rdi", "rsi", "rdx", "rcx", "r8", "r9"} {
		h.args[i], _ = regs.Get(name)
	}
	for i, name := range [...]string{"gs_base", "k_gs_base"} {
		v, _ := regs.Get(name)
		h.bases[i] = virt.Addr(v)
	}
	h.rip, _ = regs.Get("rip")
	rsp, _ := regs.Get("rsp")
	h.stack = virt.Addr(rsp)
}

func (h *hit) pointer(n int) virt.Addr { return virt.Addr(h.args[n]) }

// current is the task that runs on the processor that stopped. Its GS base is the processor's per-CPU
// area while it is in the kernel, and waits in KERNEL_GS_BASE while a program runs.
func (h *hit) current() virt.Addr {
	for _, base := range h.bases {
		cpu := slices.Index(h.sys.CPUAreas, base)
		if cpu < 0 {
			continue
		}
		if h.e.VCPU < 0 {
			h.e.VCPU = cpu
		}
		a, err := h.sys.CurrentAt(cpu)
		if err != nil {
			return 0
		}
		return h.r.Ptr(a)
	}
	return 0
}

// say adds a field of the event.
func (h *hit) say(name string, value any) {
	h.e.Fields = append(h.e.Fields, fmt.Sprintf("%s=%v", name, value))
}

// path is the path that a struct path stands for.
func (h *hit) path(a virt.Addr) string {
	p, _, err := h.paths.PathOf(h.r.Pointer(a, h.o.pathMount), h.r.Pointer(a, h.o.pathDentry))
	if err != nil && h.r.Err == nil {
		h.r.Err = err
	}
	return p
}
