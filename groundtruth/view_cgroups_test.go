package groundtruth

import (
	"testing"

	"github.com/outsight-vmi/outsight/lab"
)

func init() {
	register(viewCase{
		view: "cgroups",
		// The guest reports the unified hierarchy only, and no groups without a folder.
		ignore: func(row map[string]any) bool {
			if row["removed"] == true {
				return true
			}
			n, ok := row["version"]
			return ok && show(row, "version") != "2" && n != nil
		},
		prepare: func(t *testing.T, g *lab.Guest) {
			t.Helper()
			// A tree with limits, one process in it, and one frozen.
			const script = `cd /sys/fs/cgroup && for c in memory pids; do echo +$c > cgroup.subtree_control; done 2>/dev/null
mkdir -p views/limited/deep views/frozen && cd views && for c in memory pids; do echo +$c > cgroup.subtree_control; done 2>/dev/null
echo 77 > limited/pids.max; echo 33554432 > limited/memory.max; echo 1 > frozen/cgroup.freeze
sleep 100000 >/dev/null 2>&1 </dev/null & echo $! > limited/deep/cgroup.procs`
			if _, err := g.Output(t.Context(), script); err != nil {
				t.Fatal(err)
			}
		},
	})
}
