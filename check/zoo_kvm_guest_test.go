package check_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm"
)

// kvmTricks are those that are done on KVM where time is short: one of each class.
var kvmTricks = []string{"task off the list", "module off the list", "system call elsewhere", "jump at the start of a function", "text writable", "vDSO of one process"}

// Between these lines a KVM host prints what was found in it.
const (
	zooBegins = "== facts"
	zooEnds   = "== the command says"
)

// TestGuestKVMZoo judges guests on real KVM: clean ones, of which it must say against what
// they were verified, and ones in which tricks are done from outside. With OUTSIGHT_KVM=all it
// does every trick on every kernel, in shared and in private memory.
func TestGuestKVMZoo(t *testing.T) {
	labtest.NeedQEMU(t)
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("set OUTSIGHT_SLOW: a guest in an emulated KVM host takes minutes")
	}
	command := buildCommand(t)
	tests := labtest.Binary(t)
	kernels, sources := []string{"6.12"}, []vm.Source{vm.SourcePrivate}
	if os.Getenv("OUTSIGHT_KVM") == "all" {
		kernels, sources = []string{"5.10", "6.1", "6.12", "7.2"}, []vm.Source{vm.SourceShared, vm.SourcePrivate}
	}
	for _, kernel := range kernels {
		for _, source := range sources {
			t.Run(kernel+"-"+string(source), func(t *testing.T) {
				n := labtest.Nested{
					Command: command, Run: "^TestInsideZoo$", Patience: 10 * time.Minute,
					Guest:   lab.Options{Kernel: kernel, Modules: zooModules},
					Private: source == vm.SourcePrivate,
					Env:     []string{"OUTSIGHT_KVM=" + os.Getenv("OUTSIGHT_KVM"), "OUTSIGHT_WITNESS_KERNEL=" + kernel, "OUTSIGHT_ZOO=/zoo.jsonl"},
					After:   "echo '" + zooBegins + "'; cat /zoo.jsonl; echo '" + zooEnds + "'; /outsight check lab:inner 2>&1 || exit 1",
				}
				for range 3 {
					out, err := n.Try(t, tests)
					if err == nil {
						test, command, _ := strings.Cut(out, zooEnds+"\n")
						_, facts, _ := strings.Cut(test, zooBegins+"\n")
						recordFacts(t, facts)
						if !strings.Contains(command, "verified against Debian's signature") || !strings.Contains(command, "nothing found by") {
							t.Errorf("the command says %q", command)
						}
						t.Log(test, command)
						return
					}
					t.Logf("another try, after %v: %s", err, out)
					if strings.Contains(out, "--- FAIL: TestInsideZoo") {
						break
					}
				}
				t.Error("this guest on KVM was not judged as it is")
			})
		}
	}
}

// buildCommand builds the command.
func buildCommand(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "outsight")
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "../cmd/outsight")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	return path
}

// TestInsideZoo is what TestGuestKVMZoo runs inside its KVM host.
func TestInsideZoo(t *testing.T) {
	g := labtest.NestedGuest(t)
	labtest.Output(t, g, "sleep 100000 </dev/null >/dev/null 2>&1 & echo ok")
	s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	silent(t, s)
	began := time.Now()
	r, err := check.Run(t.Context(), s, check.All(), remember(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d checks take %v of processors that are emulated", len(check.All()), time.Since(began).Round(time.Millisecond))
	for _, a := range r.Assurances() {
		t.Logf("%s: %s", a.State, a.Text)
		if a.State != check.Verified || !strings.Contains(a.Text, "Debian's signature") && !strings.Contains(a.Text, "the kernel's own keys") {
			t.Errorf("%s is %s: %s", a.Subject, a.State, a.Text)
		}
	}
	if len(r.Assurances()) == 0 {
		t.Error("nothing is said of what was verified")
	}
	t.Run(os.Getenv("OUTSIGHT_WITNESS_KERNEL"), func(t *testing.T) {
		done := 0
		for _, k := range tricks() {
			if os.Getenv("OUTSIGHT_KVM") == "all" || slices.Contains(kvmTricks, k.name) {
				t.Run(k.name, func(t *testing.T) { perform(t, g, s, k) })
				done++
			}
		}
		if done < len(kvmTricks) {
			t.Errorf("%d tricks were done, of %d", done, len(kvmTricks))
		}
	})
	silent(t, s)
}
