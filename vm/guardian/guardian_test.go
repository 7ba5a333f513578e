package guardian_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outsight-vmi/outsight/vm/guardian"
)

// recipe makes a guardian write to a file instead of resuming a machine.
type recipe struct{ File string }

func init() {
	guardian.Register("test", func(_ context.Context, data json.RawMessage) error {
		var r recipe
		if err := json.Unmarshal(data, &r); err != nil {
			return err
		}
		return os.WriteFile(r.File, []byte("resumed"), 0o600)
	})
	guardian.Register("fails", func(context.Context, json.RawMessage) error { return fmt.Errorf("on purpose") })
}

const victim = "OUTSIGHT_TEST_GUARDED"

func TestMain(m *testing.M) {
	if file := os.Getenv(victim); file != "" {
		g, err := guardian.Start(context.Background(), "test", recipe{file})
		if err == nil {
			err = g.Arm()
		}
		fmt.Println(err)
		select {}
	}
	goleak.VerifyTestMain(m)
}

func start(t *testing.T) (*guardian.Guard, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "resumed")
	g, err := guardian.Start(t.Context(), "test", recipe{file})
	if err != nil {
		t.Fatal(err)
	}
	return g, file
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func TestDone(t *testing.T) {
	g, file := start(t)
	if err := g.Arm(); err != nil {
		t.Error(err)
	}
	g.Done()
	if exists(file) {
		t.Error("it resumed what runs again")
	}
}

func TestAbandon(t *testing.T) {
	for _, armed := range []bool{false, true} {
		g, file := start(t)
		if armed {
			if err := g.Arm(); err != nil {
				t.Error(err)
			}
		}
		if err := g.Abandon(t.Context()); err != nil {
			t.Error(err)
		}
		if exists(file) != armed {
			t.Errorf("armed %v, resumed %v", armed, !armed)
		}
	}
	g, err := guardian.Start(t.Context(), "fails", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Arm(); err != nil {
		t.Error(err)
	}
	if err := g.Abandon(t.Context()); err == nil {
		t.Error("a failure is not reported")
	}
}

func TestUnknownKind(t *testing.T) {
	if _, err := guardian.Start(t.Context(), "nothing", nil); err == nil {
		t.Error("started without a recipe")
	}
}

// TestKilled: the process group of what is watched gets signals, the last one SIGKILL;
// the guardian outlives them and does its work.
func TestKilled(t *testing.T) {
	for _, signals := range [][]syscall.Signal{
		{syscall.SIGKILL},
		{syscall.SIGHUP, syscall.SIGKILL},
	} {
		file := filepath.Join(t.TempDir(), "resumed")
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), victim+"="+file)
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var said string
		if _, err := fmt.Fscanln(out, &said); err != nil || said != "<nil>" {
			t.Fatalf("%v: %s", err, said)
		}
		for _, id := range children(t, c.Process.Pid) { // whoever kills what he finds
			_ = syscall.Kill(id, syscall.SIGTERM)
			_ = syscall.Kill(id, syscall.SIGINT)
		}
		for _, s := range signals {
			_ = syscall.Kill(-c.Process.Pid, s)
		}
		_ = c.Wait()
		for end := time.Now().Add(10 * time.Second); !exists(file); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("it was not resumed")
			}
		}
	}
}

// children are the children of process pid.
func children(t *testing.T, pid int) (pids []int) {
	t.Helper()
	found, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Skip("the kernel does not list children")
		}
		for _, id := range strings.Fields(string(b)) {
			if p, err := strconv.Atoi(id); err == nil {
				pids = append(pids, p)
			}
		}
	}
	if len(pids) == 0 {
		t.Error("no guardian runs")
	}
	return pids
}

// A guardian watches from before the machine is paused until it runs again.
func ExampleStart() {
	g, err := guardian.Start(context.Background(), "test", recipe{File: os.DevNull})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Done() // after the machine has been resumed
	fmt.Println("ready:", g.Arm() == nil)
	// The machine is paused here.

	// Output: ready: true
}
