package synth

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// structures is the guest's types: a line for each, members as "name type".
// A type is u8, u16, u32, u64, s32, s64, char, ptr or a structure, perhaps with
// [n]; a member "_" has no name. Lines after "old" or "new" belong to one
// generation only.
const structures = `
list_head next ptr, prev ptr
resource start u64, end u64, name ptr, flags u64, desc u64, parent ptr, sibling ptr, child ptr
hlist_bl_node next ptr, pprev ptr
sched_entity load u64, sum_exec_runtime u64
task_rss_stat events s32, count s32[4]
prev_cputime utime u64, stime u64, lock u32
old task_struct thread_info u64[3]EXTRA, state u64, stack ptr, flags u32, se sched_entity, tasks list_head, mm ptr, exit_state s32, exit_code s32, rss_stat task_rss_stat, pid s32, tgid s32, real_parent ptr, group_leader ptr, thread_pid ptr, pid_links ptr[8], thread_node list_head, set_child_tid ptr, start_boottime u64, real_cred ptr, cred ptr, comm char[16], fs ptr, files ptr, nsproxy ptr, signal ptr, parent_exec_id u64, self_exec_id u64, cgroups ptr
new task_struct thread_info u64[3]EXTRA, __state u32, saved_state u32, stack ptr, flags u32, se sched_entity, tasks list_head, mm ptr, exit_state s32, exit_code s32, pid s32, tgid s32, real_parent ptr, group_leader ptr, thread_pid ptr, pid_links ptr[8], thread_node list_head, worker_private ptr, start_boottime u64, real_cred ptr, cred ptr, comm char[16], fs ptr, files ptr, nsproxy ptr, signal ptr, parent_exec_id u64, self_exec_id u64, cgroups ptr
signal_struct sigcnt u32, live u32, nr_threads s32, thread_head list_head, sum_sched_runtime u64, prev_cputime prev_cputime, tty ptr
winsize ws_row u16, ws_col u16
tty_ctrl_anon pgrp ptr, session ptr
old tty_struct kref u32, driver ptr, ops ptr, index s32, ldisc ptr, name char[64], pgrp ptr, session ptr, count s32, winsize winsize, link ptr
new tty_struct kref u32, index s32, driver ptr, ops ptr, ldisc ptr, name char[64], count s32, winsize winsize, ctrl tty_ctrl_anon, link ptr
tty_driver kref u32, owner ptr, driver_name ptr, name ptr, major s32, minor_start s32, num u32, ttys ptr, tty_drivers list_head
tty_operations lookup ptr, write ptr
tty_ldisc ops ptr
tty_ldisc_ops name ptr, num s32, receive_buf ptr, receive_buf2 ptr
tty_file_private tty ptr, file ptr
new kthread flags u64, full_name ptr, data ptr
old kthread flags u64, data ptr
worker current_work ptr, pool ptr, desc char[24]
percpu_counter lock u32, count s64, list list_head, counters ptr
mm_rss_stat count u64[4]
mm_inner_anon users u32, pgd ptr, total_vm u64, arg_start u64, arg_end u64, env_start u64, env_end u64, task_size u64, exe_file ptr
old mm_context ldt ptr, ia32_compat u16
new mm_context ldt ptr, flags u64
old mm_struct _ mm_inner_anon, context mm_context, rss_stat mm_rss_stat
new mm_struct _ mm_inner_anon, context mm_context, rss_stat percpu_counter[4]
cred usage u32, uid u32, gid u32, suid u32, sgid u32, euid u32, egid u32, fsuid u32, fsgid u32, user_ns ptr
upid nr s32, ns ptr
pid count u32, level u32, tasks ptr[4], numbers upid[1]
ns_common ops ptr, inum u32
new_utsname sysname char[65], nodename char[65], release char[65], version char[65], machine char[65], domainname char[65]
uts_namespace name new_utsname, ns ns_common
ipc_namespace used u32, ns ns_common
mnt_namespace ns ns_common, root ptr
xarray xa_lock u32, xa_flags u32, xa_head ptr
idr idr_rt xarray, idr_base u32, idr_next u32
pid_namespace idr idr, level u32, parent ptr, ns ns_common
net passive u32, ns ns_common
time_namespace owner ptr, ns ns_common
cgroup_namespace owner ptr, ns ns_common
new binfmt_misc entries list_head, entries_lock u64, enabled u8
old user_namespace parent ptr, ns ns_common
new user_namespace parent ptr, ns ns_common, binfmt_misc ptr
nsproxy count u32, uts_ns ptr, ipc_ns ptr, mnt_ns ptr, pid_ns_for_children ptr, net_ns ptr, time_ns ptr, cgroup_ns ptr
path mnt ptr, dentry ptr
file f_mode u32, f_flags u32, f_op ptr, f_inode ptr, f_pos s64, private_data ptr, f_path path
fdtable max_fds u32, fd ptr, close_on_exec ptr, open_fds ptr
files_struct count u32, fdt ptr
super_block s_list list_head, s_dev u32
inode i_mode u16, i_nlink u32, i_rdev u32, i_ino u64, i_size s64, i_sb ptr
qstr_hash_anon hash u32, len u32
qstr _ qstr_hash_anon, name ptr
dentry d_flags u32, d_hash hlist_bl_node, d_parent ptr, d_name qstr
vfsmount mnt_root ptr, mnt_sb ptr, mnt_flags s32
mount mnt_hash list_head, mnt_parent ptr, mnt_mountpoint ptr, mnt_id s32, mnt vfsmount
css_set subsys ptr[8], dfl_cgrp ptr
cgroup_subsys_state cgroup ptr, ss ptr
cgroup self cgroup_subsys_state, kn ptr
old kernfs_node count u32, parent ptr, name ptr
new kernfs_node count u32, __parent ptr, name ptr
xa_node shift u8, offset u8, count u8, nr_values u8, parent ptr, array ptr, private_list list_head, slots ptr[64]
maple_tree ma_lock u32, ma_flags u32, ma_root ptr
maple_node words u64[32]
maple_range_64 parent ptr, pivot u64[15], slot ptr[16]
maple_arange_64 parent ptr, pivot u64[9], slot ptr[10], gap u64[10]
cpumask bits u64[2]
cpuinfo_topology apicid u32, pkg_id u32, die_id u32, core_id u32
old cpuinfo_x86 x86 u8, x86_model u8, x86_stepping u8, x86_virt_bits u8, x86_phys_bits u8, x86_capability u32[24], x86_vendor_id char[16], x86_model_id char[64], x86_cache_size u32, apicid u16, phys_proc_id u16, cpu_core_id u16, cpu_die_id u16, microcode u32
new cpuinfo_x86 x86_model u8, x86 u8, x86_stepping u8, x86_virt_bits u8, x86_phys_bits u8, x86_capability u32[24], x86_vendor_id char[16], x86_model_id char[64], topo cpuinfo_topology, x86_cache_size u32, microcode u32
ftrace_hash size_bits u64, buckets ptr, count u64
ftrace_func_entry hlist ptr[2], ip u64, direct u64
ftrace_ops_hash notrace_hash ptr, filter_hash ptr
ftrace_ops func ptr, next ptr, flags u64, private ptr, saved_func ptr, func_hash ptr, trampoline u64, trampoline_size u64, list list_head
bpf_ksym start u64, end u64, name char[512], lnode list_head
percpu_ref percpu_count_ptr u64, data ptr
callback_head next ptr, func ptr
work_struct data u64, entry list_head, func ptr
bpf_tramp_image image ptr, size s32, ksym bpf_ksym, pcref percpu_ref, ip_after_call ptr, ip_epilogue ptr, rcu callback_head, work work_struct
rcu_tasks gp_state s32, gp_jiffies u64, tasks_gp_seq u64, kthread_ptr ptr
bpf_trampoline hlist ptr[2], key u64, cur_image ptr
ftrace_page next ptr, records ptr, index s32
dyn_ftrace ip u64, flags u64
timekeeper xtime_sec u64, offs_real s64, offs_boot s64
new btf data ptr, data_size u32, id u32, base_btf ptr, start_id u32, start_str_off u32, name char[56]
new btf_module list list_head, module ptr, btf ptr
new tk_data lock u32, timekeeper timekeeper
`

// states is enum system_states as of 6.0.
var states = []string{"SYSTEM_BOOTING", "SYSTEM_SCHEDULING", "SYSTEM_FREEING_INITMEM", "SYSTEM_RUNNING", "SYSTEM_HALT", "SYSTEM_POWER_OFF", "SYSTEM_RESTART", "SYSTEM_SUSPEND"}

// types holds the structures, laid out as a compiler would.
type types struct {
	structs map[string]*btf.Struct
	order   []string
}

var scalars = map[string]*btf.Int{
	"u8":  {Name: "unsigned char", Size: 1},
	"u16": {Name: "unsigned short", Size: 2},
	"u32": {Name: "unsigned int", Size: 4},
	"u64": {Name: "unsigned long", Size: 8},
	"s32": {Name: "int", Size: 4, Encoding: btf.Signed},
	"s64": {Name: "long", Size: 8, Encoding: btf.Signed},
	// char of the kernel's is signed, and not the same as unsigned char.
	"char": {Name: "char", Size: 1, Encoding: btf.Signed},
}

var pointer = &btf.Pointer{Target: &btf.Void{}}

func newTypes(o Options) *types {
	ts := &types{structs: map[string]*btf.Struct{}}
	extra := ""
	if o.ExtraMember {
		extra = ", extra u64"
	}
	for line := range strings.Lines(strings.ReplaceAll(strings.TrimSpace(structures), "EXTRA", extra)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "old" || name == "new" {
			if (name == "old") != o.Old {
				continue
			}
			name, rest, _ = strings.Cut(rest, " ")
		}
		ts.add(name, strings.Split(rest, ", "))
	}
	return ts
}

func (ts *types) add(name string, members []string) {
	s := &btf.Struct{Name: name}
	if strings.HasSuffix(name, "_anon") {
		s.Name = ""
	}
	size, widest := uint32(0), uint32(1)
	for _, m := range members {
		member, kind, _ := strings.Cut(m, " ")
		if member == "_" {
			member = ""
		}
		t := ts.parse(kind)
		align := alignOf(t)
		size, widest = (size+align-1)&^(align-1), max(widest, align)
		s.Members = append(s.Members, btf.Member{Name: member, Type: t, Offset: btf.Bits(size * 8)})
		size += sizeOf(t)
	}
	s.Size = (size + widest - 1) &^ (widest - 1)
	ts.structs[name] = s
	ts.order = append(ts.order, name)
}

func (ts *types) parse(kind string) btf.Type {
	if base, n, ok := strings.Cut(strings.TrimSuffix(kind, "]"), "["); ok {
		count, err := strconv.Atoi(n)
		if err != nil {
			panic(err)
		}
		return &btf.Array{Index: scalars["u32"], Type: ts.parse(base), Nelems: uint32(count)}
	}
	if kind == "ptr" {
		return pointer
	}
	if t, ok := scalars[kind]; ok {
		return t
	}
	if t, ok := ts.structs[kind]; ok {
		return t
	}
	panic("no type " + kind)
}

func sizeOf(t btf.Type) uint32 {
	n, err := btf.Sizeof(t)
	if err != nil {
		panic(err)
	}
	return uint32(n)
}

func alignOf(t btf.Type) uint32 {
	switch t := t.(type) {
	case *btf.Array:
		return alignOf(t.Type)
	case *btf.Struct:
		widest := uint32(1)
		for _, m := range t.Members {
			widest = max(widest, alignOf(m.Type))
		}
		return widest
	}
	return sizeOf(t)
}

func (ts *types) size(structure string) uint32 {
	s, ok := ts.structs[structure]
	if !ok {
		panic("no struct " + structure)
	}
	return s.Size
}

// member is the place and the size of a member, by path.
func (ts *types) member(structure, path string) (off, size uint32) {
	ts.size(structure)
	var t btf.Type = ts.structs[structure]
	for part := range strings.SplitSeq(path, ".") {
		if a, ok := t.(*btf.Array); ok {
			t = a.Type
		}
		m, bits := find(t, part)
		if m == nil {
			panic(fmt.Sprintf("no member %s in struct %s", path, structure))
		}
		off, t = off+bits/8, m.Type
	}
	return off, sizeOf(t)
}

func find(t btf.Type, name string) (*btf.Member, uint32) {
	s, ok := t.(*btf.Struct)
	if !ok {
		return nil, 0
	}
	for i := range s.Members {
		m := &s.Members[i]
		if m.Name == name {
			return m, uint32(m.Offset)
		}
		if m.Name == "" {
			if inner, bits := find(m.Type, name); inner != nil {
				return inner, bits + uint32(m.Offset)
			}
		}
	}
	return nil, 0
}

// blob encodes all types as BTF.
func (ts *types) blob() []byte {
	enum := &btf.Enum{Name: "system_states", Size: 4}
	for i, name := range states {
		enum.Values = append(enum.Values, btf.EnumValue{Name: name, Value: uint64(i)})
	}
	all := []btf.Type{enum}
	for _, name := range ts.order {
		all = append(all, ts.structs[name])
	}
	b, err := btf.NewBuilder(all, nil)
	if err != nil {
		panic(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		panic(err)
	}
	return raw
}
