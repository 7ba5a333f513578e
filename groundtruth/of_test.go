package groundtruth

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// TestGuestOfProcess asks views whose rows are not a process's own for what has to do with
// one, and the guest from inside that one.
func TestGuestOfProcess(t *testing.T) {
	labtest.NeedQEMU(t)
	g := labtest.Up(t, lab.Options{Memory: gib / 4, Modules: []string{"dummy"}})
	guest := strings.Fields(labtest.Output(t, g, `mkdir -p /sys/fs/cgroup/unit/inner && ip link add dummy7 type dummy && ip link set dummy7 up || exit 1
unshare -m -n -u -i sh -c 'echo $$ >/sys/fs/cgroup/unit/inner/cgroup.procs; mount -t tmpfs mine /mnt; exec sleep 1000' >/dev/null 2>&1 </dev/null & sleep 2
pid=$(pidof sleep | tr ' ' '\n' | while read p; do grep -q unit /proc/$p/cgroup && echo $p; done)
echo $pid; for ns in /proc/$pid/ns/cgroup /proc/$pid/ns/ipc /proc/$pid/ns/mnt /proc/$pid/ns/net /proc/$pid/ns/pid /proc/$pid/ns/time /proc/$pid/ns/user /proc/$pid/ns/uts; do
	readlink $ns; done; wc -l </proc/$pid/mountinfo`))
	if len(guest) != 10 {
		t.Fatalf("%q", guest)
	}
	pid, namespaces := guest[0], guest[1:9]
	mounts, err := strconv.Atoi(guest[9])
	if err != nil {
		t.Fatal(err)
	}
	rows := func(view, pid string) []map[string]any {
		t.Helper()
		return rowsOf(t, view, "qemu:"+g.QMP(), "--pid", pid)
	}
	var got []string
	for _, row := range rows("namespaces", pid) {
		got = append(got, fmt.Sprintf("%v:[%v]", row["type"], row["inode"]))
	}
	if slices.Sort(got); !slices.Equal(got, namespaces) {
		t.Errorf("namespaces %q; the guest says %q", got, namespaces)
	}
	if got := rows("mounts", pid); len(got) != mounts || !slices.ContainsFunc(got, func(row map[string]any) bool { return row["source"] == "mine" }) {
		t.Errorf("%d mounts; the guest says %d", len(got), mounts)
	}
	if got := rows("interfaces", pid); len(got) != 1 || got[0]["name"] != "lo" {
		t.Errorf("interfaces: %v", got)
	}
	if got := rows("interfaces", "1"); !slices.ContainsFunc(got, func(row map[string]any) bool { return row["name"] == "dummy7" }) {
		t.Errorf("interfaces of process 1: %v", got)
	}
	var paths []any
	for _, row := range rows("cgroups", pid) {
		paths = append(paths, row["path"])
	}
	if !slices.Equal(paths, []any{"/", "/unit", "/unit/inner"}) {
		t.Errorf("control groups: %v", paths)
	}
	if got := rows("ttys", "1"); len(got) == 0 {
		t.Error("no terminal of process 1")
	}
	out, err := exec.Command(command(t), "mounts", "qemu:"+g.QMP(), "--pid", "32000").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "no rows for process 32000") {
		t.Errorf("a process that is not there: %v: %s", err, out)
	}
}
