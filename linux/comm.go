package linux

import (
	"strings"

	"github.com/outsight-vmi/outsight/virt"
)

// comm is the task's name as /proc shows it (proc_task_name): kernel threads may
// have a longer one than fits the task, and a workqueue's worker adds what it
// works on.
func (l *Lister) comm(a virt.Addr, flags uint32) string {
	o, r := l.s.o, &l.r
	name := cString(r.bytes(a+virt.Addr(o.comm), 16)) // TASK_COMM_LEN
	if flags&flagKthread == 0 || r.err != nil {
		return name
	}
	defer func() { r.err = nil }() // the short name is good enough
	kthread := r.ptr(a + virt.Addr(o.kthread))
	if kthread == 0 || r.err != nil {
		return name
	}
	if o.ktFullName != absent {
		if full := r.ptr(kthread + virt.Addr(o.ktFullName)); full != 0 {
			// For workers the long name counts since they are named kworker/R-… (6.9);
			// before, /proc cut the names of rescuers.
			if s := r.cString(full, 63); r.err == nil && s != "" && (flags&flagWorker == 0 || strings.HasPrefix(s, "kworker/")) {
				name = s
			}
		}
	}
	if flags&flagWorker == 0 || o.ktData == absent || o.workerDesc == absent {
		return name
	}
	worker := r.ptr(kthread + virt.Addr(o.ktData))
	if worker == 0 || o.workerPool == absent || r.ptr(worker+virt.Addr(o.workerPool)) == 0 {
		return name
	}
	desc := cString(r.bytes(worker+virt.Addr(o.workerDesc), int(o.workerDescLen)))
	busy := r.ptr(worker+virt.Addr(o.workerWork)) != 0
	switch {
	case r.err != nil || desc == "":
		return name
	case busy:
		name += "+" + desc
	default:
		name += "-" + desc
	}
	return name[:min(len(name), 63)]
}
