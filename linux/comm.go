package linux

import (
	"strings"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// comm is the task's name as /proc shows it (proc_task_name): kernel threads may
// have a longer one than fits the task, and a workqueue's worker adds what it
// works on.
func (l *ProcessReader) comm(a virt.Addr, flags uint32) string {
	o, r := l.s.o, &l.r
	name := kobj.CString(r.Bytes(a+virt.Addr(o.comm), 16)) // TASK_COMM_LEN
	if flags&flagKthread == 0 || r.Err != nil {
		return name
	}
	defer func() { r.Err = nil }() // the short name is good enough
	kthread := r.Ptr(a + virt.Addr(o.kthread))
	if kthread == 0 || r.Err != nil {
		return name
	}
	if o.ktFullName != kobj.NoOffset {
		if full := r.Ptr(kthread + virt.Addr(o.ktFullName)); full != 0 {
			// For workers the long name counts since they are named kworker/R-… (6.9);
			// before, /proc cut the names of rescuers.
			if s := r.CString(full, 63); r.Err == nil && s != "" && (flags&flagWorker == 0 || strings.HasPrefix(s, "kworker/")) {
				name = s
			}
		}
	}
	if flags&flagWorker == 0 || o.ktData == kobj.NoOffset || o.workerDesc == kobj.NoOffset {
		return name
	}
	worker := r.Ptr(kthread + virt.Addr(o.ktData))
	if worker == 0 || o.workerPool == kobj.NoOffset || r.Ptr(worker+virt.Addr(o.workerPool)) == 0 {
		return name
	}
	desc := kobj.CString(r.Bytes(worker+virt.Addr(o.workerDesc), int(o.workerDescLen)))
	busy := r.Ptr(worker+virt.Addr(o.workerWork)) != 0
	switch {
	case r.Err != nil || desc == "":
		return name
	case busy:
		name += "+" + desc
	default:
		name += "-" + desc
	}
	return name[:min(len(name), 63)]
}
