package groundtruth

import (
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// traced makes the guest's kernel use its probes, its tracer and its events.
func traced(t *testing.T, g *lab.Guest) {
	t.Helper()
	const script = `cd /sys/kernel/tracing 2>/dev/null && [ -e kprobe_events ] || { mount -t tracefs t /sys/kernel/tracing; cd /sys/kernel/tracing; } || exit 1
grep -q osight kprobe_events && exit 0
echo 'p:osightp vfs_read' >> kprobe_events && echo 'r:osightr vfs_write' >> kprobe_events &&
echo 'p:osightq vfs_read+0x5' >> kprobe_events; echo 1 > events/kprobes/osightp/enable && echo 1 > events/kprobes/osightr/enable &&
echo 1 > events/sched/sched_process_fork/enable && echo 1 > events/sched/sched_process_exit/enable &&
echo vfs_fsync > set_ftrace_filter && echo function > current_tracer`
	labtest.Output(t, g, script)
}

// busyWork makes a worker of the kernel run work that lasts: it waits for a program that
// the kernel was told loads modules.
func busyWork(t *testing.T, g *lab.Guest) {
	t.Helper()
	const script = `cat /proc/[0-9]*/comm | grep -q ^osslow && exit 0
echo '#!/bin/sh
sleep 100000' > /tmp/osslow && chmod +x /tmp/osslow && old=$(cat /proc/sys/kernel/modprobe) && echo /tmp/osslow > /proc/sys/kernel/modprobe || exit 1
mount -t outsight-nothing none /tmp >/dev/null 2>&1 </dev/null & sleep 1; echo $old > /proc/sys/kernel/modprobe`
	labtest.Output(t, g, script)
}

func init() {
	register(viewCase{view: "ftrace", keys: []string{"function_symbol", "filter"}, prepare: traced, subset: true})
	register(viewCase{view: "notifiers", subset: true})
	register(viewCase{view: "work_items", keys: []string{"worker", "function_symbol"}, prepare: busyWork, subset: true})
	register(viewCase{view: "kprobes", keys: []string{"probed", "return"}, prepare: traced})
	register(viewCase{view: "ftrace_functions", keys: []string{"name"}, prepare: traced})
	register(viewCase{view: "tracepoints", keys: []string{"name"}, prepare: traced, subset: true})
	register(viewCase{view: "lsm", keys: []string{"lsm", "rank"}, subset: true})
	register(viewCase{view: "timers", keys: []string{"cpu", "base", "expires", "function_symbol"}, subset: true})
	register(viewCase{view: "workqueues", subset: true})
	register(viewCase{view: "syscalls", keys: []string{"abi", "nr"}, subset: true, ignore: func(row map[string]any) bool { return row["used"] == false }})
	register(viewCase{view: "idt", keys: []string{"vector"}, subset: true, ignore: func(row map[string]any) bool { return row["cpu"] != nil }})
}
