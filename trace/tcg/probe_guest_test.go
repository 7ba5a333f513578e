package tcg_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/plugin"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// TestGuestFileProbes compares what probes in a program and in a library saw with what the programs said that they did, with shared and
// with private memory: every call, in every process, also of those that were started later.
func TestGuestFileProbes(t *testing.T) {
	labtest.NeedQEMU(t)
	labtest.NeedTool(t, "gcc")
	program := filepath.Join(t.TempDir(), "probed")
	if out, err := exec.Command("gcc", "-static", "-no-pie", "-O1", "-o", program, "testdata/probed.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	for _, o := range []lab.Options{{Name: "probes-shared", SMP: 2}, {Name: "probes-private", Kernel: "5.10", Private: true}} {
		t.Run(o.Name, func(t *testing.T) {
			path, err := plugin.Install(filepath.Join(t.TempDir(), plugin.FileName))
			if err != nil {
				t.Fatal(err)
			}
			o.Plugin = path
			o.Files = labtest.Program(t, "/usr/bin/strace", "usr/bin/strace", "strace", "libunwind8", "liblzma5", "libc6", "libgcc-s1")
			o.Files["/probed"] = program
			g := labtest.Up(t, o)
			const libc = "/usr/lib/x86_64-linux-gnu/libc.so.6"
			stop := watch(t, g, tcg.Options{Calls: []string{}, Probes: []string{
				"/probed:weigh text=+0(%di):string n=%si:s32 number=+0(%dx):s64 name=+0(+8(%dx)):string",
				"/probed:weigh%return $retval",
				libc + ":getenv name=+0(%di):string",
			}})
			said := labtest.Output(t, g, "for i in 1 2 3; do /probed a bb ccc; done; /probed last")
			labtest.Output(t, g, "STRACE_X=1 /usr/bin/strace -V")
			all := stop()
			var want, got []string
			for line := range strings.Lines(said) {
				var text, name string
				var n, result int
				if _, err := fmt.Sscan(line, &text, &n, &name, &result); err != nil {
					t.Fatal(line, err)
				}
				number := 1000 * (n + 2)
				want = append(want, fmt.Sprintf("n=%d number=%d text=%q name=%q", n, number, text, name), fmt.Sprintf("$retval=%d", result))
			}
			env := 0
			for _, e := range all {
				switch {
				case e.Kind != trace.KindProbe || e.Process == nil:
					t.Errorf("%+v", e)
				case strings.HasPrefix(e.Name, libc):
					if e.Process.Comm != "strace" || !strings.HasPrefix(e.Args, `name="`) {
						t.Errorf("%s in %s", e.Args, e.Process.Comm)
					}
					env++
				default:
					// Of a process that has ended when it is looked at nobody knows the file any more.
					if e.Process.Comm != "probed" || e.Process.Exe != "/probed" && e.Process.Exe != "" {
						t.Errorf("%s in %s (%s)", e.Args, e.Process.Comm, e.Process.Exe)
					}
					got = append(got, e.Args)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("seen\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if env == 0 {
				t.Error("nobody asked for a variable")
			}
			t.Logf("%d calls of the program, %d of the library", len(got)/2, env)
		})
	}
}
