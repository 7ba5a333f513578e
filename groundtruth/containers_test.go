package groundtruth

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// containersTold asks each runtime for its containers: its name, the container's identifier
// and its first process, by words.
const containersTold = `for id in $(docker ps -q --no-trunc); do docker inspect -f 'docker {{.Id}} {{.State.Pid}}' $id; done
for id in $(podman ps -q --no-trunc); do podman inspect -f 'podman {{.Id}} {{.State.Pid}}' $id; done
ctr tasks ls -q | while read id; do echo containerd $id $(ctr tasks ls | awk -v id=$id '$1 == id {print $2}'); done
ctr -n k8s.io tasks ls -q | while read id; do echo containerd $id $(ctr -n k8s.io tasks ls | awk -v id=$id '$1 == id {print $2}'); done
for name in $(lxc-ls --running); do echo lxc $name $(lxc-info -n $name -p -H); done
for name in $(machinectl list --no-legend | awk '$2 == "container" && $3 == "systemd-nspawn" {print $1}'); do
	echo nspawn $name $(machinectl show -p Leader --value $name)
done`

// TestGuestContainers compares the containers of a guest with what the kernel and the
// runtimes say of them.
func TestGuestContainers(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("set OUTSIGHT_SLOW: it fetches half of Debian's container runtimes")
	}
	g := guests.UpContainers(t, lab.Options{Kernel: os.Getenv("OUTSIGHT_KERNEL"), Memory: 2 * gib, SMP: 2})
	for _, view := range []string{"containers", "namespaces", "cgroups", "mounts"} {
		t.Run(view, func(t *testing.T) { viewCases[view].compare(t, g) })
	}
	t.Run("runtimes", func(t *testing.T) { containersByRuntime(t, g) })
}

func containersByRuntime(t *testing.T, g *lab.Guest) {
	rows, _ := viewCase{view: "containers", keys: []string{"id"}}.outside(t, g)
	runtimes := map[string]int{}
	for line := range strings.Lines(labtest.Output(t, g, containersTold)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			t.Errorf("the guest says %q", line)
			continue
		}
		runtimes[f[0]]++
		row := rows[" id="+f[1]]
		if row == nil {
			t.Errorf("%s is not shown", strings.TrimSpace(line))
			continue
		}
		if row["runtime"] != f[0] || row["root_pid"] != json.Number(f[2]) {
			t.Errorf("%s is shown as %v", strings.TrimSpace(line), row)
		}
	}
	for _, want := range []string{"docker", "podman", "containerd", "lxc", "nspawn"} {
		if runtimes[want] == 0 {
			t.Errorf("no container of %s runs", want)
		}
	}
	t.Logf("%d rows, %v", len(rows), runtimes)
}
