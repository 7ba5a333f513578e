package linux

import (
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/kobj"
)

// offsets is where the members that this package reads lie, in bytes. It is the
// same for every guest that runs one kernel build.
type offsets struct {
	// struct task_struct
	tasks, threadNode, pid, tgid, comm, state, exitState, flags  uint32
	realParent, groupLeader, signal, mm, fs, nsproxy, realCred   uint32
	cgroups, threadPid, startBoottime, sumExec, kthread, taskRSS uint32
	stateWide, taskRSSLen                                        uint32
	// struct signal_struct
	threadHead, nrThreads, deadRuntime, prevUtime, prevStime, tty uint32
	// struct mm_struct
	pgd, argStart, argEnd, envStart, envEnd, exeFile, totalVM, rss uint32
	rssPercpu                                                      bool
	pcCount, pcCounters, pcSize                                    uint32 // struct percpu_counter
	// struct cred
	uid, gid, suid, sgid, euid, egid, fsuid, fsgid, userNS uint32
	// struct pid, struct upid
	pidLevel, pidNumbers, upidNr, upidNS, upidSize uint32
	// struct nsproxy and the namespaces
	nsUTS, nsIPC, nsMnt, nsNet, nsTime, nsCgroup                                uint32
	inumUTS, inumIPC, inumMnt, inumPID, inumNet, inumTime, inumCgroup, inumUser uint32
	// paths
	filePath, pathMnt, pathDentry, dName, dParent, dHash, qName, qLen uint32
	mntRoot, mountMnt, mountParent, mountPoint                        uint32
	// control groups
	dflCgrp, cssSubsys, cssCgroup, cgroupKn, knParent, knName, subsysLen uint32
	// kernel threads
	ktFullName, ktData, workerDesc, workerDescLen, workerWork, workerPool uint32
	// others
	ttyName, utsNodename, utsMachine uint32
}

func resolveOffsets(p *kernel.Profile) (*offsets, error) {
	r := &kobj.Resolver{Profile: p, Types: p}
	o := &offsets{}
	resolveTask(r, o)
	resolveMemory(r, o)
	resolveIdentity(r, o)
	resolvePaths(r, o)
	resolveGroups(r, o)
	if len(r.Errs) > 0 {
		return nil, fmt.Errorf("its structures are not as expected: %w", errors.Join(r.Errs...))
	}
	return o, nil
}

func resolveTask(r *kobj.Resolver, o *offsets) {
	const t = "task_struct"
	o.tasks = r.Offset(t, "tasks")
	o.threadNode = r.Offset(t, "thread_node")
	o.pid, o.tgid = r.Offset(t, "pid"), r.Offset(t, "tgid")
	o.comm = r.Offset(t, "comm")
	state := r.Field(t, "__state", "state") // renamed, and narrowed to 32 bits, in 5.14
	o.state, o.stateWide = state.Offset, state.Size
	o.exitState, o.flags = r.Offset(t, "exit_state"), r.Offset(t, "flags")
	o.realParent, o.groupLeader = r.Offset(t, "real_parent"), r.Offset(t, "group_leader")
	o.signal, o.mm, o.fs = r.Offset(t, "signal"), r.Offset(t, "mm"), r.Offset(t, "fs")
	o.nsproxy, o.realCred = r.Offset(t, "nsproxy"), r.Offset(t, "real_cred")
	o.cgroups = r.OptionalOffset(t, "cgroups")
	o.threadPid = r.Offset(t, "thread_pid")
	o.startBoottime = r.Offset(t, "start_boottime", "real_start_time") // 5.5
	o.sumExec = r.Offset(t, "se.sum_exec_runtime")
	o.kthread = r.Offset(t, "worker_private", "set_child_tid") // moved in 5.17
	// Until 6.1 each thread keeps part of its mm's counters (SPLIT_RSS_COUNTING).
	if f, err := r.Find(t, "rss_stat.count"); err == nil {
		o.taskRSS, o.taskRSSLen = f.Offset, f.Size/4
	} else {
		o.taskRSS = kobj.NoOffset
	}

	const s = "signal_struct"
	o.threadHead, o.nrThreads = r.Offset(s, "thread_head"), r.Offset(s, "nr_threads")
	o.deadRuntime = r.Offset(s, "sum_sched_runtime")
	o.prevUtime, o.prevStime = r.Offset(s, "prev_cputime.utime"), r.Offset(s, "prev_cputime.stime")
	o.tty = r.Offset(s, "tty")
	o.ttyName = r.OptionalOffset("tty_struct", "name")

	o.ktFullName = r.OptionalOffset("kthread", "full_name") // 5.17
	o.ktData = r.OptionalOffset("kthread", "data")
	o.workerWork, o.workerPool = r.OptionalOffset("worker", "current_work"), r.OptionalOffset("worker", "pool")
	o.workerDesc = r.OptionalOffset("worker", "desc")
	desc, _ := r.Find("worker", "desc")
	o.workerDescLen = min(desc.Size, 64)
}

func resolveMemory(r *kobj.Resolver, o *offsets) {
	const m = "mm_struct"
	o.pgd = r.Offset(m, "pgd")
	o.argStart, o.argEnd = r.Offset(m, "arg_start"), r.Offset(m, "arg_end")
	o.envStart, o.envEnd = r.Offset(m, "env_start"), r.Offset(m, "env_end")
	o.exeFile, o.totalVM = r.Offset(m, "exe_file"), r.Offset(m, "total_vm")
	rss := r.Field(m, "rss_stat")
	o.rss = rss.Offset
	o.pcSize = r.Size("percpu_counter")
	// Four plain counters until 6.1, four per-CPU ones since 6.2.
	o.rssPercpu = rss.Size >= 3*o.pcSize && o.pcSize > 8
	if o.rssPercpu {
		o.pcCount, o.pcCounters = r.Offset("percpu_counter", "count"), r.Offset("percpu_counter", "counters")
	}
}

func resolveIdentity(r *kobj.Resolver, o *offsets) {
	const c = "cred"
	o.uid, o.gid = r.Offset(c, "uid"), r.Offset(c, "gid")
	o.suid, o.sgid = r.Offset(c, "suid"), r.Offset(c, "sgid")
	o.euid, o.egid = r.Offset(c, "euid"), r.Offset(c, "egid")
	o.fsuid, o.fsgid = r.Offset(c, "fsuid"), r.Offset(c, "fsgid")
	o.userNS = r.Offset(c, "user_ns")

	o.pidLevel, o.pidNumbers = r.Offset("pid", "level"), r.Offset("pid", "numbers")
	o.upidNr, o.upidNS, o.upidSize = r.Offset("upid", "nr"), r.Offset("upid", "ns"), r.Size("upid")

	const n = "nsproxy"
	o.nsUTS, o.nsIPC, o.nsMnt = r.Offset(n, "uts_ns"), r.Offset(n, "ipc_ns"), r.Offset(n, "mnt_ns")
	o.nsNet = r.Offset(n, "net_ns")
	o.nsTime, o.nsCgroup = r.OptionalOffset(n, "time_ns"), r.OptionalOffset(n, "cgroup_ns") // 5.6, 4.6
	o.inumUTS, o.inumIPC = r.OptionalOffset("uts_namespace", "ns.inum"), r.OptionalOffset("ipc_namespace", "ns.inum")
	o.inumMnt, o.inumPID = r.Offset("mnt_namespace", "ns.inum"), r.Offset("pid_namespace", "ns.inum")
	o.inumNet = r.OptionalOffset("net", "ns.inum")
	o.inumTime, o.inumCgroup = r.OptionalOffset("time_namespace", "ns.inum"), r.OptionalOffset("cgroup_namespace", "ns.inum")
	o.inumUser = r.OptionalOffset("user_namespace", "ns.inum")
	o.utsNodename = r.Offset("uts_namespace", "name.nodename")
	o.utsMachine = r.Offset("uts_namespace", "name.machine")
}

func resolvePaths(r *kobj.Resolver, o *offsets) {
	o.filePath = r.Offset("file", "f_path", "__f_path")
	o.pathMnt, o.pathDentry = r.Offset("path", "mnt"), r.Offset("path", "dentry")
	o.dName, o.dParent = r.Offset("dentry", "d_name", "__d_name"), r.Offset("dentry", "d_parent")
	o.dHash = r.Offset("dentry", "d_hash.pprev")
	o.qName, o.qLen = r.Offset("qstr", "name"), r.Offset("qstr", "len")
	o.mntRoot = r.Offset("vfsmount", "mnt_root")
	o.mountMnt, o.mountParent = r.Offset("mount", "mnt"), r.Offset("mount", "mnt_parent")
	o.mountPoint = r.Offset("mount", "mnt_mountpoint")
}

func resolveGroups(r *kobj.Resolver, o *offsets) {
	if o.cgroups == kobj.NoOffset {
		return // built without CONFIG_CGROUPS
	}
	o.dflCgrp, o.cssCgroup = r.Offset("css_set", "dfl_cgrp"), r.Offset("cgroup_subsys_state", "cgroup")
	subsys := r.Field("css_set", "subsys")
	o.cssSubsys, o.subsysLen = subsys.Offset, min(subsys.Size/8, 32)
	o.cgroupKn = r.Offset("cgroup", "kn")
	o.knParent, o.knName = r.Offset("kernfs_node", "__parent", "parent"), r.Offset("kernfs_node", "name") // 6.15
}
