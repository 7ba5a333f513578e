package tcg

import (
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/virt"
)

// A door is a function of the kernel through which everything of one kind passes, whatever asked for it: a system call of
// either width, io_uring, the kernel itself, or an exploit. What an event says is fetched where it happens, so it is
// complete for a process that ends at once, and no other thread can change it meanwhile.
type door struct {
	kind     trace.Kind
	name     string // of what happens; empty: the kind says it
	function string
	main     bool // without it the kind cannot be seen
	// places are where the program runs; nil: where the function begins.
	places func(s *linux.System, owners *linux.Owners) []virt.Addr
	write  func(c *compiler, o *doorLayout)
	read   func(j *joiner, e *trace.Event, r *doorRecord)
}

// doors are all of them. Each function is in Debian's kernels from 5.10 to 7.2.
var doors = []door{
	{kind: trace.KindExec, function: "finalize_exec", main: true, write: (*compiler).doorExec, read: (*joiner).doorExec},
	{kind: trace.KindFork, function: "wake_up_new_task", main: true, write: (*compiler).doorFork, read: (*joiner).doorFork},
	{kind: trace.KindExit, function: "acct_collect", main: true, write: (*compiler).doorExit, read: (*joiner).doorExit},
	{kind: trace.KindCreds, function: "commit_creds", main: true, write: (*compiler).doorCreds, read: (*joiner).doorCreds},
	// Each connection that TCP asks for, also by MSG_FASTOPEN; of the others, what says to whom they talk.
	{kind: trace.KindConnect, function: "tcp_connect", main: true, write: (*compiler).doorTCP, read: (*joiner).doorSocket},
	{kind: trace.KindConnect, function: "security_socket_connect", write: (*compiler).doorConnect, read: (*joiner).doorConnect},
	{kind: trace.KindListen, function: "security_socket_listen", main: true, write: (*compiler).doorListen, read: (*joiner).doorSocket},
	{kind: trace.KindListen, function: "security_socket_bind", write: (*compiler).doorBind, read: (*joiner).doorConnect},
	{kind: trace.KindListen, function: "security_socket_post_create", write: (*compiler).doorRaw, read: (*joiner).doorRaw},
	{kind: trace.KindAccept, function: "security_sock_graft", main: true, write: (*compiler).doorAccept, read: (*joiner).doorSocket},
	{kind: trace.KindModule, function: "do_init_module", main: true, write: (*compiler).doorModule, read: (*joiner).doorModule},
	{kind: trace.KindUnload, function: "free_module", main: true, write: (*compiler).doorModule, read: (*joiner).doorModule},
	{kind: trace.KindMount, function: "path_mount", main: true, write: (*compiler).doorMount, read: (*joiner).doorMount},
	{kind: trace.KindMount, name: "move", function: "security_move_mount", write: (*compiler).doorMoveMount, read: (*joiner).doorMount},
	{kind: trace.KindMount, name: "pivot_root", function: "security_sb_pivotroot", write: (*compiler).doorPivot, read: (*joiner).doorMount},
	{kind: trace.KindMount, name: "remount", function: "reconfigure_super", write: (*compiler).doorConfigure, read: (*joiner).doorMount},
	{kind: trace.KindMount, function: "__x64_sys_mount_setattr", places: attributesAt, write: (*compiler).doorAttributes, read: (*joiner).doorAttributes}, // 5.12
	{kind: trace.KindUnmount, function: "path_umount", main: true, write: (*compiler).doorUnmount, read: (*joiner).doorUnmount},
	// Called when a name is gone.
	{kind: trace.KindUnlink, name: "delete", function: "d_delete", main: true, write: (*compiler).doorDelete, read: (*joiner).doorLog},
	{kind: trace.KindUnlink, name: "rename", function: "d_move", write: (*compiler).doorRename, read: (*joiner).doorLog},
	{kind: trace.KindUnlink, name: "rename", function: "d_exchange", write: (*compiler).doorRename, read: (*joiner).doorLog},
	{kind: trace.KindUnlink, name: "truncate", function: "do_truncate", write: (*compiler).doorTruncate, read: (*joiner).doorLog},
	// Called for each mapping that is there or has other rights now.
	{kind: trace.KindNewCode, function: "perf_event_mmap", main: true, write: (*compiler).doorCode, read: (*joiner).doorCode},
	{kind: trace.KindRefused, function: "__x64_sys_setuid", main: true, places: refusedAt, write: (*compiler).doorRefused, read: (*joiner).doorRefused},
	{kind: trace.KindRefused, name: "seccomp", function: "__secure_computing", places: deniedAt, write: (*compiler).doorDenied, read: (*joiner).doorRefused},
}

// idDoor is the mark of the records of the first door.
const idDoor = 300

func isDoor(id uint16) bool { return id >= idDoor && int(id) < idDoor+len(doors) }

// Kinds are all kinds that [Options.Kinds] can ask for.
func Kinds() (kinds []trace.Kind) {
	for _, d := range doors {
		if d.main {
			kinds = append(kinds, d.kind)
		}
	}
	return kinds
}

// KindsOf are the kinds that [Options.Kinds] can ask for in the guest of a look: those of which its kernel has the functions.
func KindsOf(l *guest.Look) (kinds []trace.Kind) {
	_, err := l.Linux.Owners()
	for _, d := range doors {
		if _, ok := l.Linux.Address(d.function); ok && d.main && (err == nil || d.places == nil) {
			kinds = append(kinds, d.kind)
		}
	}
	return kinds
}

// lifeKinds are by what a process becomes what it is. They are seen in every trace, for whose an event is must not depend on
// whether its process is still there, and still the same, when it is read.
var lifeKinds = []trace.Kind{trace.KindFork, trace.KindExec, trace.KindCreds}

// hasLife reports whether a kernel has all of their functions.
func hasLife(s *linux.System) bool {
	return !slices.ContainsFunc(doors, func(d door) bool {
		_, ok := s.Address(d.function)
		return !ok && d.main && slices.Contains(lifeKinds, d.kind)
	})
}

// doorLayout is where doors find what they fetch.
type doorLayout struct {
	comm, parent, cred, mm, signal    uint32 // task_struct
	flags, groupExit                  uint32 // signal_struct
	argStart, argEnd                  uint32 // mm_struct
	filename, file                    uint32 // linux_binprm
	fileMnt, fileDentry               uint32 // file
	pathMnt, pathDentry               uint32 // path
	inode, name, length, above, super uint32 // dentry
	mode, links, size                 uint32 // inode
	mount, mountParent, mountPoint    uint32 // mount: of its struct vfsmount, and more
	root, mountSuper                  uint32 // vfsmount
	superType, typeName               uint32 // super_block, file_system_type
	moduleName, taints                uint32
	ids                               [8]uint32 // cred
	inheritable, permitted, effective uint32
	userNS, number                    uint32    // cred, user_namespace
	sk, family, protocol, state       uint32    // socket, sock
	port, remotePort, local, remote   uint32    // sock
	local6, remote6                   uint32    // kobj.NoOffset: the kernel has no IPv6
	truncate                          [2]string // registers of do_truncate's dentry and length
	mounts, instance                  uint32    // super_block, mount: of the mounts of a file system
	mountList                         bool      // they are a list, until 6.17; else each leads to the next
	mounting                          mountLayout
	code                              codeLayout
}

func doorLayoutOf(s *linux.System) (*doorLayout, error) {
	o, err := kobj.LayoutOf(s.Walker, "events of the kernel's functions", func(r *kobj.Resolver, o *doorLayout) {
		const t, k, d = "task_struct", "sock", "dentry"
		o.comm, o.parent, o.cred, o.mm, o.signal = r.Offset(t, "comm"), r.Offset(t, "real_parent"), r.Offset(t, "real_cred"), r.Offset(t, "mm"), r.Offset(t, "signal")
		o.flags, o.groupExit = r.Offset("signal_struct", "flags"), r.Offset("signal_struct", "group_exit_code")
		o.argStart, o.argEnd = r.Offset("mm_struct", "arg_start"), r.Offset("mm_struct", "arg_end")
		o.filename, o.file = r.Offset("linux_binprm", "filename"), r.Offset("linux_binprm", "file")
		o.fileMnt, o.fileDentry = r.Offset("file", "f_path.mnt"), r.Offset("file", "f_path.dentry")
		o.pathMnt, o.pathDentry = r.Offset("path", "mnt"), r.Offset("path", "dentry")
		o.inode, o.above, o.super = r.Offset(d, "d_inode"), r.Offset(d, "d_parent"), r.Offset(d, "d_sb")
		o.name = r.Offset(d, "d_name.name", "d_name.__name", "__d_name.name")
		o.length = r.Offset(d, "d_name.len", "__d_name.len")
		o.mode, o.links, o.size = r.Offset("inode", "i_mode"), r.Offset("inode", "i_nlink", "__i_nlink"), r.Offset("inode", "i_size")
		o.mount, o.mountParent, o.mountPoint = r.Offset("mount", "mnt"), r.Offset("mount", "mnt_parent"), r.Offset("mount", "mnt_mountpoint")
		o.root, o.mountSuper = r.Offset("vfsmount", "mnt_root"), r.Offset("vfsmount", "mnt_sb")
		o.superType, o.typeName = r.Offset("super_block", "s_type"), r.Offset("file_system_type", "name")
		for i, id := range []string{"uid", "gid", "suid", "euid", "egid", "fsuid", "sgid", "fsgid"} {
			o.ids[i] = r.Offset("cred", id)
		}
		o.inheritable, o.permitted, o.effective = r.Offset("cred", "cap_inheritable"), r.Offset("cred", "cap_permitted"), r.Offset("cred", "cap_effective")
		o.userNS, o.number = r.Offset("cred", "user_ns"), r.Offset("user_namespace", "ns.inum")
		o.sk, o.family, o.protocol, o.state = r.Offset("socket", "sk"), r.Offset(k, "__sk_common.skc_family"), r.Offset(k, "sk_protocol"), r.Offset(k, "__sk_common.skc_state")
		o.port, o.remotePort = r.Offset(k, "__sk_common.skc_num"), r.Offset(k, "__sk_common.skc_dport")
		o.local, o.remote = r.Offset(k, "__sk_common.skc_rcv_saddr"), r.Offset(k, "__sk_common.skc_daddr")
		o.local6, o.remote6 = r.OptionalOffset(k, "__sk_common.skc_v6_rcv_saddr"), r.OptionalOffset(k, "__sk_common.skc_v6_daddr")
		mounts := r.Field("super_block", "s_mounts")
		o.mounts, o.mountList = mounts.Offset, mounts.Size > 8
		o.instance = r.Offset("mount", "mnt_instance", "mnt_next_for_sb")
		o.mounting.resolve(r)
		o.code.resolve(r)
		o.moduleName, o.taints = r.OptionalOffset("module", "name"), r.OptionalOffset("module", "taints")
	})
	if err != nil {
		return nil, err
	}
	// Which argument of do_truncate is what differs: mnt_userns came in front in 5.12.
	if spec, err := s.Types(); err == nil {
		o.truncate = [2]string{parameter(spec, "do_truncate", "dentry"), parameter(spec, "do_truncate", "length")}
	}
	return o, nil
}

// parameter is the register of a function's parameter; empty: it has none of that name.
func parameter(spec *btf.Spec, function, name string) string {
	i := slices.IndexFunc(spec.Params(spec.Declared(function)), func(p btf.Member) bool { return p.Name == name })
	if i < 0 || i >= len(parameters) {
		return ""
	}
	return parameters[i]
}

// doors writes the programs of the kinds that are wanted, and those of [lifeKinds].
func (c *compiler) doors(s *linux.System, kinds []trace.Kind) error {
	o, err := doorLayoutOf(s)
	if err != nil {
		return err
	}
	// The calls of which a trace of calls has no code.
	calls := c.calls
	c.calls = c.refusable
	defer func() { c.calls = calls }()
	for i := range doors {
		d := &doors[i]
		at, ok := s.Address(d.function)
		wanted := slices.Contains(kinds, d.kind)
		if c.brief = !wanted; !ok || c.brief && !slices.Contains(lifeKinds, d.kind) {
			continue
		}
		p := plugin.Probe{Where: plugin.AtAddress, ID: uint16(idDoor + i)}
		places := []virt.Addr{at + landing(s, at)}
		if d.places != nil {
			owners, err := s.Owners()
			if err != nil {
				return fmt.Errorf("find where %s is seen: %w", d.kind, err)
			}
			places = d.places(s, owners)
		}
		c.each(p, places, func() {
			if c.brief {
				c.Aside()
			}
			d.write(c, o)
		})
	}
	return nil
}

// landing is how long the mark for indirect calls is that a function begins with: direct calls may pass it over.
func landing(s *linux.System, at virt.Addr) virt.Addr {
	var code [4]byte
	if err := s.ReadAt(code[:], at); err != nil {
		return 0
	}
	switch code {
	case [4]byte{0xf3, 0x0f, 0x1e, 0xfa}, // endbr64
		[4]byte{0x66, 0x0f, 0x1f, 0x00}, // sealed, 5.18
		[4]byte{0x0f, 0x1f, 0x40, 0xd6}: // sealed, 6.16
		return 4
	}
	return 0
}
