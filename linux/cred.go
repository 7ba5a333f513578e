package linux

import (
	"fmt"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Cred is all that says what a task may do.
type Cred struct {
	Task     Task
	PID, TID int32
	Comm     string
	Credentials
	Groups     []uint32 // supplementary, as the kernel sorted them
	GroupsLost int      // how many of them were not read, of more than are plausible
	Caps       Capabilities
	Securebits []string // names of those that are set, without "SECBIT_"
	NoNewPrivs bool
	Seccomp    string // "disabled", "strict", "filter"; "" if the kernel has none
	Filters    uint32 // seccomp filters, those of ancestors included
	LoginUID   uint32 // of the audit subsystem; ^0 if unset
	SessionID  uint32 // of the same
	Label      string // security label; see LabelErr
	LabelErr   error  // why there is none: ErrUnsupported for modules that are not known
	Addr       virt.Addr
	Overridden bool // it acts with other credentials than its own for now (override_creds)
}

// Capabilities are the five sets of a task, a bit for each capability.
type Capabilities struct {
	Effective, Permitted, Inheritable, Bounding, Ambient uint64
}

// capNames are the capabilities (include/uapi/linux/capability.h), by number.
var capNames = [...]string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
	"linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
	"sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
	"sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
	"mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
	"checkpoint_restore",
}

// CapabilityNames are the names of a set of capabilities, in the order of their
// numbers; "cap_41" stands for one that has no name yet.
func CapabilityNames(set uint64) []string {
	var names []string
	for i := range 64 {
		switch {
		case set&(1<<i) == 0:
		case i < len(capNames):
			names = append(names, capNames[i])
		default:
			names = append(names, fmt.Sprintf("cap_%d", i))
		}
	}
	return names
}

// securebitNames are the securebits (include/uapi/linux/securebits.h).
var securebitNames = [...]string{
	"noroot", "noroot_locked", "no_setuid_fixup", "no_setuid_fixup_locked", "keep_caps", "keep_caps_locked",
	"no_cap_ambient_raise", "no_cap_ambient_raise_locked",
	"exec_restrict_file", "exec_restrict_file_locked", "exec_deny_interactive", "exec_deny_interactive_locked", // 6.14
}

// maxGroups is NGROUPS_MAX.
const maxGroups = 65536

type credLayout struct {
	cred, securebits, groupInfo, atomicFlags, seccompMode, seccompCount, loginuid, sessionid kobj.Field
	inheritable, permitted, effective, bounding, ambient                                     kobj.Field
	ngroups, gids                                                                            kobj.Field
	label                                                                                    labelLayout
}

func (s *System) credLayout() (*credLayout, error) {
	return kobj.LayoutOf(s.Walker, "credentials", func(r *kobj.Resolver, o *credLayout) {
		r.Prefetch("apparmor_initialized", "apparmor_blob_sizes", "selinux_state", "lsm_names", "lsm_idlist", "lsm_active_cnt")
		const t, c = "task_struct", "cred"
		o.cred = r.Field(t, "cred")
		o.atomicFlags = r.Field(t, "atomic_flags")
		o.seccompMode, o.seccompCount = r.Optional(t, "seccomp.mode"), r.Optional(t, "seccomp.filter_count") // 5.9
		o.loginuid, o.sessionid = r.Optional(t, "loginuid"), r.Optional(t, "sessionid")
		o.securebits, o.groupInfo = r.Field(c, "securebits"), r.Field(c, "group_info")
		// Two words of 32 bits until 6.2, one of 64 since: the same eight bytes.
		o.inheritable, o.permitted = r.Field(c, "cap_inheritable"), r.Field(c, "cap_permitted")
		o.effective, o.bounding = r.Field(c, "cap_effective"), r.Field(c, "cap_bset")
		o.ambient = r.Field(c, "cap_ambient")
		o.ngroups, o.gids = r.Field("group_info", "ngroups"), r.Field("group_info", "gid")
		o.label.resolve(r)
	})
}

// CredOf reads what t may do: its own credentials (real_cred), which is what /proc
// shows.
func (l *ProcessReader) CredOf(t Task) (_ *Cred, err error) {
	o, err := l.s.credLayout()
	if err != nil {
		return nil, err
	}
	var c *Cred
	err = l.steady(t, func(id identity) error {
		loads := l.now.loads()
		if c = l.cred(t, o, id); l.r.Err != nil {
			return fmt.Errorf("credentials of task %#x: %w", uint64(t.Addr), l.r.Err)
		}
		if c.PID <= 0 || c.PID > maxTasks || c.TID <= 0 || c.TID > maxTasks {
			return fmt.Errorf("task at %#x: %w: process %d, thread %d", uint64(t.Addr), kobj.ErrBroken, c.PID, c.TID)
		}
		if again := l.ptrAfter(t.Addr+virt.Addr(l.s.o.realCred), c.Addr, loads); again != c.Addr {
			return errChanged
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (l *ProcessReader) cred(t Task, o *credLayout, id identity) *Cred {
	r, a := &l.r, t.Addr
	c := &Cred{Task: t, PID: id.pid, TID: id.tid}
	c.Comm = l.comm(a, r.U32(a+virt.Addr(l.s.o.flags)))
	c.Addr = r.Ptr(a + virt.Addr(l.s.o.realCred))
	c.Overridden = r.Pointer(a, o.cred) != c.Addr
	p := Process{}
	l.creds(&p, a)
	c.Credentials = p.Creds
	c.Caps = Capabilities{
		Effective: r.Uint(c.Addr, o.effective), Permitted: r.Uint(c.Addr, o.permitted), Inheritable: r.Uint(c.Addr, o.inheritable),
		Bounding: r.Uint(c.Addr, o.bounding), Ambient: r.Uint(c.Addr, o.ambient),
	}
	bits := r.Uint(c.Addr, o.securebits)
	for i, name := range securebitNames {
		if bits&(1<<i) != 0 {
			c.Securebits = append(c.Securebits, name)
		}
	}
	const noNewPrivs = 1 << 0 // PFA_NO_NEW_PRIVS
	c.NoNewPrivs = r.Uint(a, o.atomicFlags)&noNewPrivs != 0
	if o.seccompMode.Present() {
		c.Seccomp = seccompMode(r.Uint(a, o.seccompMode))
		c.Filters = uint32(r.Uint(a, o.seccompCount))
	}
	c.LoginUID, c.SessionID = ^uint32(0), ^uint32(0)
	if o.loginuid.Present() && o.sessionid.Present() {
		c.LoginUID, c.SessionID = uint32(r.Uint(a, o.loginuid)), uint32(r.Uint(a, o.sessionid))
	}
	l.groups(c, o)
	if r.Err == nil {
		c.Label, c.LabelErr = l.label(c.Addr, &o.label)
	}
	return c
}

func seccompMode(mode uint64) string {
	names := [...]string{"disabled", "strict", "filter", "dead"}
	if mode < uint64(len(names)) {
		return names[mode]
	}
	return fmt.Sprint(mode)
}

// groups reads the supplementary groups. All listings together may read so many
// bytes only: all tasks of a hostile guest could share one long list.
func (l *ProcessReader) groups(c *Cred, o *credLayout) {
	r := &l.r
	info := r.Pointer(c.Addr, o.groupInfo)
	if info == 0 || r.Err != nil {
		return
	}
	n := int(r.Uint(info, o.ngroups))
	have := min(max(n, 0), maxGroups, l.textLeft/4)
	c.GroupsLost = max(n-have, 0)
	l.spend(4 * have)
	b := r.Bytes(o.gids.At(info), 4*have)
	if r.Err != nil {
		return
	}
	c.Groups = make([]uint32, have)
	for i := range c.Groups {
		c.Groups[i] = uint32(b[4*i]) | uint32(b[4*i+1])<<8 | uint32(b[4*i+2])<<16 | uint32(b[4*i+3])<<24
	}
}
