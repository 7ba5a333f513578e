package linux

import (
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/kernel"
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
	r := &resolver{p: p, types: p}
	o := &offsets{}
	r.task(o)
	r.memory(o)
	r.identity(o)
	r.paths(o)
	r.groups(o)
	if len(r.errs) > 0 {
		return nil, fmt.Errorf("its structures are not as expected: %w", errors.Join(r.errs...))
	}
	return o, nil
}

func (r *resolver) task(o *offsets) {
	const t = "task_struct"
	o.tasks = r.must(t, "tasks")
	o.threadNode = r.must(t, "thread_node")
	o.pid, o.tgid = r.must(t, "pid"), r.must(t, "tgid")
	o.comm = r.must(t, "comm")
	state := r.field(t, "__state", "state") // renamed, and narrowed to 32 bits, in 5.14
	o.state, o.stateWide = state.Offset, state.Size
	o.exitState, o.flags = r.must(t, "exit_state"), r.must(t, "flags")
	o.realParent, o.groupLeader = r.must(t, "real_parent"), r.must(t, "group_leader")
	o.signal, o.mm, o.fs = r.must(t, "signal"), r.must(t, "mm"), r.must(t, "fs")
	o.nsproxy, o.realCred = r.must(t, "nsproxy"), r.must(t, "real_cred")
	o.cgroups = r.may(t, "cgroups")
	o.threadPid = r.must(t, "thread_pid")
	o.startBoottime = r.must(t, "start_boottime", "real_start_time") // 5.5
	o.sumExec = r.must(t, "se.sum_exec_runtime")
	o.kthread = r.must(t, "worker_private", "set_child_tid") // moved in 5.17
	// Until 6.1 each thread keeps part of its mm's counters (SPLIT_RSS_COUNTING).
	if f, err := r.find(t, "rss_stat.count"); err == nil {
		o.taskRSS, o.taskRSSLen = f.Offset, f.Size/4
	} else {
		o.taskRSS = absent
	}

	const s = "signal_struct"
	o.threadHead, o.nrThreads = r.must(s, "thread_head"), r.must(s, "nr_threads")
	o.deadRuntime = r.must(s, "sum_sched_runtime")
	o.prevUtime, o.prevStime = r.must(s, "prev_cputime.utime"), r.must(s, "prev_cputime.stime")
	o.tty = r.must(s, "tty")
	o.ttyName = r.may("tty_struct", "name")

	o.ktFullName = r.may("kthread", "full_name") // 5.17
	o.ktData = r.may("kthread", "data")
	o.workerWork, o.workerPool = r.may("worker", "current_work"), r.may("worker", "pool")
	o.workerDesc = r.may("worker", "desc")
	desc, _ := r.find("worker", "desc")
	o.workerDescLen = min(desc.Size, 64)
}

func (r *resolver) memory(o *offsets) {
	const m = "mm_struct"
	o.pgd = r.must(m, "pgd")
	o.argStart, o.argEnd = r.must(m, "arg_start"), r.must(m, "arg_end")
	o.envStart, o.envEnd = r.must(m, "env_start"), r.must(m, "env_end")
	o.exeFile, o.totalVM = r.must(m, "exe_file"), r.must(m, "total_vm")
	rss := r.field(m, "rss_stat")
	o.rss = rss.Offset
	o.pcSize = r.size("percpu_counter")
	// Four plain counters until 6.1, four per-CPU ones since 6.2.
	o.rssPercpu = rss.Size >= 3*o.pcSize && o.pcSize > 8
	if o.rssPercpu {
		o.pcCount, o.pcCounters = r.must("percpu_counter", "count"), r.must("percpu_counter", "counters")
	}
}

func (r *resolver) identity(o *offsets) {
	const c = "cred"
	o.uid, o.gid = r.must(c, "uid"), r.must(c, "gid")
	o.suid, o.sgid = r.must(c, "suid"), r.must(c, "sgid")
	o.euid, o.egid = r.must(c, "euid"), r.must(c, "egid")
	o.fsuid, o.fsgid = r.must(c, "fsuid"), r.must(c, "fsgid")
	o.userNS = r.must(c, "user_ns")

	o.pidLevel, o.pidNumbers = r.must("pid", "level"), r.must("pid", "numbers")
	o.upidNr, o.upidNS, o.upidSize = r.must("upid", "nr"), r.must("upid", "ns"), r.size("upid")

	const n = "nsproxy"
	o.nsUTS, o.nsIPC, o.nsMnt = r.must(n, "uts_ns"), r.must(n, "ipc_ns"), r.must(n, "mnt_ns")
	o.nsNet = r.must(n, "net_ns")
	o.nsTime, o.nsCgroup = r.may(n, "time_ns"), r.may(n, "cgroup_ns") // 5.6, 4.6
	o.inumUTS, o.inumIPC = r.may("uts_namespace", "ns.inum"), r.may("ipc_namespace", "ns.inum")
	o.inumMnt, o.inumPID = r.must("mnt_namespace", "ns.inum"), r.must("pid_namespace", "ns.inum")
	o.inumNet = r.may("net", "ns.inum")
	o.inumTime, o.inumCgroup = r.may("time_namespace", "ns.inum"), r.may("cgroup_namespace", "ns.inum")
	o.inumUser = r.may("user_namespace", "ns.inum")
	o.utsNodename = r.must("uts_namespace", "name.nodename")
	o.utsMachine = r.must("uts_namespace", "name.machine")
}

func (r *resolver) paths(o *offsets) {
	o.filePath = r.must("file", "f_path", "__f_path")
	o.pathMnt, o.pathDentry = r.must("path", "mnt"), r.must("path", "dentry")
	o.dName, o.dParent = r.must("dentry", "d_name", "__d_name"), r.must("dentry", "d_parent")
	o.dHash = r.must("dentry", "d_hash.pprev")
	o.qName, o.qLen = r.must("qstr", "name"), r.must("qstr", "len")
	o.mntRoot = r.must("vfsmount", "mnt_root")
	o.mountMnt, o.mountParent = r.must("mount", "mnt"), r.must("mount", "mnt_parent")
	o.mountPoint = r.must("mount", "mnt_mountpoint")
}

func (r *resolver) groups(o *offsets) {
	if o.cgroups == absent {
		return // built without CONFIG_CGROUPS
	}
	o.dflCgrp, o.cssCgroup = r.must("css_set", "dfl_cgrp"), r.must("cgroup_subsys_state", "cgroup")
	subsys := r.field("css_set", "subsys")
	o.cssSubsys, o.subsysLen = subsys.Offset, min(subsys.Size/8, 32)
	o.cgroupKn = r.must("cgroup", "kn")
	o.knParent, o.knName = r.must("kernfs_node", "__parent", "parent"), r.must("kernfs_node", "name") // 6.15
}
