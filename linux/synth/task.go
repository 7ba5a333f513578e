package synth

import (
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/phys"
)

// Process describes a process to add.
type Process struct {
	PID, PPID  int32  // PPID 0: child of the idle task
	NSPID      int32  // in a PID namespace of its own; 0: none
	Comm       string // at most 15 bytes
	Kernel     bool   // a kernel thread
	FullName   string // of a kernel thread, beyond Comm
	UID, GID   uint32
	State      uint32 // as in task_struct
	ExitState  uint32
	Threads    []int32       // TIDs of further threads
	Started    time.Duration // after boot
	CPUTime    time.Duration
	Exe        string   // empty: none
	Args       []string // nil: none
	Title      string   // written over the arguments, not NUL-terminated at their end
	RSS, VSize uint64   // in pages
	Cgroup     string   // empty: the root
	TTY        string
	ABI        string // ia32 or x32; empty: 64
	Execs      uint64 // programs that it ran since it was forked
}

// Stack is where processes have their arguments.
const Stack = 0x7ffd_0000_0000

const (
	flagKthread = 0x200000 // PF_KTHREAD
	resident    = 10       // pages of a process that count as file pages
	unsettled   = 2        // pages that the first CPU has not yet added to the sum
)

// Add adds a process and returns the address of its task_struct.
func (g *Guest) Add(p Process) uint64 {
	task, signal := g.Object("task_struct"), g.Object("signal_struct")
	g.Tasks[p.PID] = task
	g.listInit(signal + g.Member("signal_struct", "thread_head"))
	g.fillTask(task, signal, p, p.PID)
	g.listAdd(g.Tasks[0]+g.Member("task_struct", "tasks"), task+g.Member("task_struct", "tasks"))
	if !p.Kernel && p.ExitState == 0 {
		g.Set(task, "task_struct", "mm", g.memory(p))
	}
	for _, tid := range p.Threads {
		t := g.Object("task_struct")
		g.fillTask(t, signal, p, tid)
		g.Set(t, "task_struct", "group_leader", task)
		g.Set(t, "task_struct", "mm", g.Get(task, "task_struct", "mm"))
	}
	g.Set(signal, "signal_struct", "nr_threads", uint64(1+len(p.Threads)))
	if p.TTY != "" {
		tty := g.Object("tty_struct")
		g.Memory.CString(g.Phys(tty+g.Member("tty_struct", "name")), p.TTY)
		g.Set(signal, "signal_struct", "tty", tty)
	}
	return task
}

func (g *Guest) fillTask(task, signal uint64, p Process, tid int32) {
	const t = "task_struct"
	set := func(member string, v uint64) { g.Set(task, t, member, v) }
	set("pid", uint64(tid))
	set("tgid", uint64(p.PID))
	comm := make([]byte, 16)
	copy(comm[:15], p.Comm)
	g.Put(task+g.Member(t, "comm"), comm)
	if g.Old {
		set("state", uint64(p.State))
	} else {
		set("__state", uint64(p.State))
	}
	set("exit_state", uint64(p.ExitState))
	if p.Kernel {
		set("flags", flagKthread)
		g.kthread(task, p)
	}
	set("real_parent", g.Tasks[p.PPID])
	set("group_leader", task)
	set("signal", signal)
	if p.ExitState == 0 {
		set("nsproxy", g.shared["nsproxy"])
	}
	set("start_boottime", uint64(p.Started))
	set("self_exec_id", p.Execs)
	set("se.sum_exec_runtime", uint64(p.CPUTime))
	if g.shared["cgroup /"] != 0 {
		group := p.Cgroup
		if group == "" {
			group = "/"
		}
		set("cgroups", g.CSSSet(group))
	}
	set("real_cred", g.cred(p))
	set("thread_pid", g.pid(p, tid))
	g.listAdd(signal+g.Member("signal_struct", "thread_head"), task+g.Member(t, "thread_node"))
}

func (g *Guest) kthread(task uint64, p Process) {
	kt := g.Object("kthread")
	if g.Old {
		g.Set(task, "task_struct", "set_child_tid", kt)
		return
	}
	g.Set(task, "task_struct", "worker_private", kt)
	if p.FullName != "" {
		g.Set(kt, "kthread", "full_name", g.CString(p.FullName))
	}
}

func (g *Guest) cred(p Process) uint64 {
	c := g.Object("cred")
	for _, m := range []string{"uid", "suid", "euid", "fsuid"} {
		g.Set(c, "cred", m, uint64(p.UID))
	}
	for _, m := range []string{"gid", "sgid", "egid", "fsgid"} {
		g.Set(c, "cred", m, uint64(p.GID))
	}
	g.Set(c, "cred", "user_ns", g.shared["user_ns"])
	return c
}

func (g *Guest) pid(p Process, tid int32) uint64 {
	size := g.Size("upid")
	a := g.Alloc(g.Size("pid")+size, 64)
	if tid == p.PID {
		g.index(uint64(tid), a)
		const leader = 1 // PIDTYPE_TGID
		g.Put64(a+g.Member("pid", "tasks")+8*leader, g.Tasks[tid]+g.Member("task_struct", "pid_links")+16*leader)
	}
	upid := a + g.Member("pid", "numbers")
	g.Set(upid, "upid", "nr", uint64(tid))
	g.Set(upid, "upid", "ns", g.Address("init_pid_ns"))
	if p.NSPID != 0 {
		g.Set(a, "pid", "level", 1)
		ns := g.Object("pid_namespace")
		g.Set(ns, "pid_namespace", "ns.inum", InumPID-100)
		g.Set(upid+size, "upid", "nr", uint64(p.NSPID))
		g.Set(upid+size, "upid", "ns", ns)
	}
	return a
}

// index adds a PID structure to the initial namespace's, if its number is below 64: they
// have one node.
func (g *Guest) index(nr, pid uint64) {
	if nr == 0 || nr >= 64 { // that of the idle task is in no namespace's IDR
		return
	}
	head := g.Address("init_pid_ns") + g.Member("pid_namespace", "idr.idr_rt.xa_head")
	node := g.word(head) &^ 2
	if node == 0 {
		node = g.Object("xa_node")
		g.Put64(head, node|2) // xa_mk_node
	}
	g.Put64(node+g.Member("xa_node", "slots")+8*nr, pid)
}

// memory makes an mm_struct with page tables and arguments.
func (g *Guest) memory(p Process) uint64 {
	mm := g.Object("mm_struct")
	set := func(member string, v uint64) { g.Set(mm, "mm_struct", member, v) }
	root := g.UserTables()
	set("pgd", g.Direct(root))
	set("total_vm", p.VSize)
	g.abi(mm, p.ABI)
	if p.Exe != "" {
		set("exe_file", g.File(p.Exe))
	}
	if text := strings.Join(p.Args, "\x00"); p.Args != nil {
		text += "\x00"
		size := uint64(len(text))
		if p.Title != "" {
			text = p.Title + "\x00"
			size = uint64(len(p.Title)) // ends in the middle of the title
		}
		pages := (uint64(len(text)) + phys.PageSize - 1) / phys.PageSize
		a := g.Alloc(pages*phys.PageSize, phys.PageSize)
		g.Put(a, []byte(text))
		tables := g.Tables(root)
		for i := range pages {
			tables.Map(Stack+i*phys.PageSize, g.Phys(a)+phys.Addr(i*phys.PageSize), phys.PageSize, Present|Writable|User|NX)
		}
		set("arg_start", Stack)
		set("arg_end", Stack+size)
	}
	g.resident(mm, p.RSS)
	return mm
}

// abi notes the ABI of a program as exec does.
func (g *Guest) abi(mm uint64, abi string) {
	const top64, top32 = 1<<47 - 4096, 0xffffe000
	if abi == "" {
		g.Set(mm, "mm_struct", "task_size", top64)
	} else {
		g.Set(mm, "mm_struct", "task_size", top32)
	}
	if g.Old {
		g.Set(mm, "mm_struct", "context.ia32_compat", map[string]uint64{"ia32": 17, "x32": 30}[abi]) // TIF_IA32, TIF_X32
	} else {
		g.Set(mm, "mm_struct", "context.flags", map[string]uint64{"": 2, "ia32": 1}[abi]) // MM_CONTEXT_HAS_VSYSCALL, MM_CONTEXT_UPROBE_IA32
	}
}

// resident spreads the count of resident pages over the counters.
func (g *Guest) resident(mm, pages uint64) {
	at := mm + g.Member("mm_struct", "rss_stat")
	file := min(pages, resident)
	if g.Old {
		g.Put64(at, file)
		g.Put64(at+8, pages-file)
		return
	}
	step := g.Size("percpu_counter")
	g.Set(at, "percpu_counter", "count", file)
	anon := pages - file
	if anon > unsettled {
		anon -= unsettled
		slot := g.shared["slot"] + 64
		g.shared["slot"] = slot
		if slot < phys.PageSize { // else the areas are full, and the sum is all
			g.Set(at+step, "percpu_counter", "counters", slot)
			g.Memory.Uint32(g.Phys(g.areas[0]+slot), unsettled)
		} else {
			anon += unsettled
		}
	}
	g.Set(at+step, "percpu_counter", "count", anon)
}
