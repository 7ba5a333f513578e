package tcg_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// compiled is a program of testdata.
func compiled(t *testing.T, source string, flags ...string) string {
	t.Helper()
	labtest.NeedTool(t, "gcc")
	program := filepath.Join(t.TempDir(), strings.TrimSuffix(source, ".c"))
	if out, err := exec.Command("gcc", append(flags, "-static", "-O1", "-o", program, filepath.Join("testdata", source))...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	return program
}

// TestGuestIOUring compares the operations of a program that works by io_uring with what it says of them: all that it asked for, once
// each, with its arguments and what the kernel told it; by its own thread, by workers, and by a thread of the kernel's that polls.
func TestGuestIOUring(t *testing.T) {
	labtest.NeedQEMU(t)
	kernels := []string{lab.DefaultKernel}
	if os.Getenv("OUTSIGHT_SLOW") != "" {
		kernels = []string{"6.1", "6.12", "7.2"}
	}
	program := compiled(t, "uring.c")
	for _, k := range kernels {
		t.Run(k, func(t *testing.T) {
			g := traced(t, lab.Options{Name: "uring-" + k, Kernel: k, SMP: 2, Files: map[string]string{"/uring": program}})
			for _, how := range []string{"", "async", "sqpoll", "sqpoll async", "multishot"} {
				if k == "6.1" && how == "multishot" {
					continue // before 6.5 what comes before the last completion is not seen
				}
				t.Run(how, func(t *testing.T) { ringOperations(t, g, "/uring "+how) })
			}
		})
	}
}

func ringOperations(t *testing.T, g *lab.Guest, command string) {
	stop := watch(t, g, tcg.Options{Calls: []string{}, IOURing: true})
	said := labtest.Output(t, g, command)
	all := stop()
	want := slices.Sorted(strings.Lines(said))
	var got []string
	for _, e := range all {
		if e.Kind != trace.KindIOURing || e.Process == nil {
			t.Errorf("%+v", e)
			continue
		}
		// Of a process that has ended when it is looked at nobody knows the name any more.
		if comm := e.Process.Comm; comm != "uring" && comm != "" && !strings.HasPrefix(comm, "iou-sqp-") {
			t.Errorf("%s by %s", e.Name, comm)
		}
		args, _, _ := strings.Cut(e.Args, ", IOSQE_")
		line := fmt.Sprintf("%s(%s = %d", e.Name, args, e.Return)
		switch {
		case !e.Returned:
			line += " <" + e.Note + ">"
		case e.Note != "":
			line += " more"
		}
		got = append(got, line+"\n")
	}
	slices.Sort(got)
	for i := 0; i < max(len(got), len(want)); i++ {
		switch {
		case i >= len(want):
			t.Errorf("too many: %s", got[i])
		case i >= len(got):
			t.Errorf("missing: %s", want[i])
		case got[i] != want[i]:
			t.Errorf("\n got %swant %s", got[i], want[i])
		default:
			continue
		}
		if i > 20 {
			break
		}
	}
	t.Logf("%d operations", len(got))
}
