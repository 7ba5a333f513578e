package check_test

import (
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/virt"
)

// TestGuestZooSpaces hides a process that runs little from the kernel's lists, beside a storm of short ones: that it
// runs shows which it is. Before and after, nothing is found.
func TestGuestZooSpaces(t *testing.T) {
	for _, kernel := range zooKernels("6.12") {
		t.Run(kernel, func(t *testing.T) {
			g, s := upListened(t, lab.Options{Kernel: kernel, Memory: 512 << 20, SMP: 2, Append: "pti=on"})
			labtest.Output(t, g, "echo x >/tmp/x; tail -f /tmp/x </dev/null >/dev/null 2>&1 & echo ok")
			checks := checksOf(t, "hidden-address-space", "hidden-process")
			run := func(t *testing.T) *check.Result {
				t.Helper()
				r, err := check.Run(t.Context(), s, checks, check.Listen(10*time.Second), check.Again(1))
				if err != nil {
					t.Fatal(err)
				}
				for _, gap := range append(r.Gaps, r.Unsupported...) {
					t.Errorf("%v", gap)
				}
				return r
			}
			hide := func(t *testing.T, k trick) {
				look, err := s.Look(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer look.Close()
				z := &zoo{T: t, ram: labtest.OpenRAM(t, g), look: look}
				defer z.restore()
				pid := z.pidOf(z.runner())
				k.do(z)
				r := run(t)
				judge(t, r, k.name, k.want)
				for _, f := range r.Findings {
					if f.Object.PID != pid || f.Object.Name != "tail" || f.Confidence != check.Certain {
						t.Errorf("process %d (tail) was hidden, not %s", pid, f.Title)
					}
				}
			}
			// In a guest that does next to nothing, processors keep the page tables of what ran last, and looks see the same.
			labtest.Output(t, g, "/bin/true; sleep 1; /bin/true")
			judge(t, run(t), "nothing", nil)
			t.Run("quiet", func(t *testing.T) { hide(t, spaceTricks()[0]) })
			labtest.Output(t, g, "while :; do /bin/true; done </dev/null >/dev/null 2>&1 & echo ok")
			judge(t, run(t), "nothing", nil)
			for _, k := range spaceTricks() {
				t.Run(k.name, func(t *testing.T) { hide(t, k) })
			}
			judge(t, run(t), "nothing any more", nil)
		})
	}
}

func checksOf(t *testing.T, ids ...string) (checks []*check.Check) {
	t.Helper()
	for _, id := range ids {
		c, ok := check.Lookup(id)
		if !ok {
			t.Fatalf("no check %s", id)
		}
		checks = append(checks, c)
	}
	return checks
}

// spaceTricks hide a process that runs.
func spaceTricks() []trick {
	offPIDs := func(z *zoo, v virt.Addr) {
		pid := z.ptr(v + z.offset("task_struct", "thread_pid"))
		for kind := range virt.Addr(2) {
			z.put(pid+z.offset("pid", "tasks")+8*kind, 0)
		}
	}
	return []trick{
		{"running task off the list", func(z *zoo) { z.unlink(z.runner() + z.offset("task_struct", "tasks")) }, []string{"hidden-address-space", "hidden-process"}},
		{"running task off its PID", func(z *zoo) { offPIDs(z, z.runner()) }, []string{"hidden-address-space", "hidden-process"}},
		{"running task off every list", func(z *zoo) {
			v := z.runner()
			for _, member := range []string{"tasks", "sibling", "cg_list", "thread_node"} {
				z.unlink(v + z.offset("task_struct", member))
			}
			offPIDs(z, v)
		}, []string{"hidden-address-space", "hidden-process"}},
	}
}

// runner is the task_struct of the process that runs little: it looks at a file once a second. What waits for a signal would not
// run any more without its PID.
func (z *zoo) runner() virt.Addr { return z.running("tail") }

func (z *zoo) pidOf(task virt.Addr) int32 {
	z.Helper()
	pid, _, err := z.look.Linux.TaskAt(task).IDs()
	if err != nil {
		z.Fatal(err)
	}
	return pid
}
