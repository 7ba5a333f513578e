package planted

import (
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/linux/kobj"
)

// layout is where programs find what they fetch.
type layout struct {
	pid, tgid, started, comm, flags, status         int32 // task_struct
	parent, cred, mm, signal, exitCode, fs          int32
	voluntary, involuntary                          int32 // how often the task was switched away from
	uid                                             int32 // cred
	signalFlags, groupExit, live                    int32 // signal_struct
	argStart, argEnd                                int32 // mm_struct
	execName, file                                  int32 // linux_binprm
	fileMnt, fileDentry                             int32 // file
	rootMnt                                         int32 // fs_struct
	inode, above, super, length, inline, inlineSize int32 // dentry; inlineSize is how many bytes inline has
	links                                           int32 // inode
	moduleName, moduleSize, taints                  int32
}

func layoutOf(l *guest.Look) (*layout, error) {
	return kobj.LayoutOf(l.Linux.Walker, "planted probes", func(r *kobj.Resolver, o *layout) {
		const t, d = "task_struct", "dentry"
		at := func(structure string, paths ...string) int32 { return int32(r.Offset(structure, paths...)) }
		o.pid, o.tgid, o.comm, o.flags = at(t, "pid"), at(t, "tgid"), at(t, "comm"), at(t, "flags")
		o.started, o.status = at(t, "start_boottime"), at(t, "thread_info.status")
		o.parent, o.cred, o.mm, o.signal = at(t, "real_parent"), at(t, "real_cred"), at(t, "mm"), at(t, "signal")
		o.exitCode, o.fs = at(t, "exit_code"), at(t, "fs")
		o.voluntary, o.involuntary = at(t, "nvcsw"), at(t, "nivcsw")
		o.uid = at("cred", "uid")
		o.signalFlags, o.groupExit, o.live = at("signal_struct", "flags"), at("signal_struct", "group_exit_code"), at("signal_struct", "live")
		o.argStart, o.argEnd = at("mm_struct", "arg_start"), at("mm_struct", "arg_end")
		o.execName, o.file = at("linux_binprm", "exec"), at("linux_binprm", "file")
		o.fileMnt, o.fileDentry = at("file", "f_path.mnt"), at("file", "f_path.dentry")
		o.rootMnt = at("fs_struct", "root.mnt")
		o.inode, o.above, o.super = at(d, "d_inode"), at(d, "d_parent"), at(d, "d_sb")
		o.length = at(d, "d_name.len", "__d_name.len")
		name := r.Field(d, "d_iname", "d_shortname") // renamed in 6.14
		o.inline, o.inlineSize = int32(name.Offset), int32(name.Size)
		o.links = at("inode", "i_nlink", "__i_nlink")
		module := r.Field("module", "name")
		o.moduleName, o.moduleSize = int32(module.Offset), int32(module.Size)
		o.taints = at("module", "taints")
	})
}

// tracepoint says whether the kernel has a tracepoint that programs can be attached to.
func tracepoint(spec *btf.Spec, name string) (found bool) {
	spec.ByName("btf_trace_"+name, func(btf.TypeID, btf.Type) bool {
		found = true
		return false
	}, btf.KindTypedef)
	return found
}
