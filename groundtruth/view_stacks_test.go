package groundtruth

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

func init() {
	register(viewCase{view: "stacks", ignore: awake})
}

// awake says of a thread that it may be somewhere else at every look: it is the
// teller's, or what serves it.
func awake(row map[string]any) bool {
	comm, _ := row["comm"].(string)
	return ofTeller(row) || strings.HasPrefix(comm, "kworker/") || strings.HasPrefix(comm, "rcu_")
}

// TestGuestRunningStacks finds a program that does nothing but read zeros, and one that
// never asks the kernel for anything, where they must be.
func TestGuestRunningStacks(t *testing.T) {
	labtest.NeedQEMU(t)
	for _, kernel := range []string{"5.10", "6.1", "6.12", "7.2"} {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			g := labtest.Up(t, lab.Options{Name: "running-" + kernel, Kernel: kernel, Memory: gib / 4})
			labtest.Output(t, g, `dd if=/dev/zero of=/dev/null bs=64M count=1000000 >/dev/null 2>&1 </dev/null & (while :; do :; done) >/dev/null 2>&1 </dev/null &`)
			reads, spins := false, false
			for range 60 {
				out, err := exec.Command(command(t), "stacks", "qemu:"+g.QMP(), "--pause", "--running", "--where", "running", "-o", "json", "--columns", "all").Output()
				if err != nil {
					t.Fatal(err)
				}
				for line := range strings.Lines(string(out)) {
					var row struct {
						Comm, Wchan, Cut *string
						Stack            []string
					}
					if err := json.Unmarshal([]byte(line), &row); err != nil {
						t.Fatal(err)
					}
					all := strings.Join(row.Stack, " ")
					switch {
					case row.Cut != nil: // the rest is not known
					case *row.Comm == "dd" && strings.Contains(all, " vfs_read+") && strings.Contains(all, " do_syscall_64+") && strings.HasPrefix(row.Stack[len(row.Stack)-1], "entry_SYSCALL_64_after_hwframe+"):
						reads = true
					case *row.Comm == "sh" && len(row.Stack) == 0:
						spins = true
					}
				}
				if reads && spins {
					return
				}
			}
			t.Errorf("dd was seen to read: %v; the shell was seen to run: %v", reads, spins)
		})
	}
}
