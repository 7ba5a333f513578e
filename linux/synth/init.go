package synth

import "time"

// SetClock sets the guest's clock.
func (g *Guest) SetClock(boot, now time.Time) {
	var tk uint64
	if g.Old {
		tk = g.Address("shadow_timekeeper")
	} else {
		tk = g.Address("tk_core") + g.Member("tk_data", "timekeeper")
	}
	g.Set(tk, "timekeeper", "xtime_sec", uint64(now.Unix()))
	g.Set(tk, "timekeeper", "offs_real", uint64(boot.UnixNano()))
}

// Inode numbers of the initial namespaces. Real kernels count down the same way.
const (
	InumUTS    = 4026531838
	InumIPC    = 4026531839
	InumPID    = 4026531836
	InumUser   = 4026531837
	InumMount  = 4026531841
	InumNet    = 4026531840
	InumTime   = 4026531834
	InumCgroup = 4026531835
)

// buildInit makes task 0, the idle task, which heads the list of tasks, and what
// every process shares.
func (g *Guest) buildInit() {
	namespace := func(structure string, inum uint64) uint64 {
		a := g.Object(structure)
		g.Set(a, structure, "ns.inum", inum)
		return a
	}
	g.Set(g.Address("init_uts_ns"), "uts_namespace", "ns.inum", InumUTS)
	g.Set(g.Address("init_pid_ns"), "pid_namespace", "ns.inum", InumPID)
	proxy := g.Object("nsproxy")
	for member, a := range map[string]uint64{
		"uts_ns": g.Address("init_uts_ns"), "pid_ns_for_children": g.Address("init_pid_ns"),
		"ipc_ns": namespace("ipc_namespace", InumIPC), "mnt_ns": namespace("mnt_namespace", InumMount),
		"net_ns": namespace("net", InumNet), "time_ns": namespace("time_namespace", InumTime),
		"cgroup_ns": namespace("cgroup_namespace", InumCgroup),
	} {
		g.Set(proxy, "nsproxy", member, a)
	}
	g.shared["nsproxy"] = proxy
	g.shared["user_ns"] = namespace("user_namespace", InumUser)

	task, signal := g.Address("init_task"), g.Address("init_signals")
	g.Tasks[0] = task
	g.listInit(task + g.Member("task_struct", "tasks"))
	g.listInit(signal + g.Member("signal_struct", "thread_head"))
	g.fillTask(task, signal, Process{Comm: "swapper/0", Kernel: true}, 0)
	g.Set(task, "task_struct", "real_parent", task)
}

func (g *Guest) listInit(head uint64) {
	g.Put64(head, head)
	g.Put64(head+8, head)
}

// ListAdd adds node at the end of the list at head.
func (g *Guest) ListAdd(head, node uint64) { g.listAdd(head, node) }

// listAdd adds node at the end of the list at head.
func (g *Guest) listAdd(head, node uint64) {
	last := g.word(head + 8)
	g.Put64(node, head)
	g.Put64(node+8, last)
	g.Put64(last, node)
	g.Put64(head+8, node)
}

func (g *Guest) word(va uint64) uint64 {
	var b [8]byte
	if _, err := g.Memory.ReadAt(b[:], g.Phys(va)); err != nil {
		panic(err)
	}
	v := uint64(0)
	for i := range b {
		v |= uint64(b[i]) << (8 * i)
	}
	return v
}
