package groundtruth

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// TestGuestPeers writes an ELF dump that crash and drgn open without being told
// anything but the kernel's debug symbols, and list the same tasks from; crash shows what
// each processor was doing. It needs the tools of scripts/bench-tools.
func TestGuestPeers(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("set OUTSIGHT_SLOW: it takes minutes")
	}
	root := labtest.NeedTools(t)
	for _, series := range []string{"5.10", "6.1", "6.12", "7.2"} {
		t.Run(series, func(t *testing.T) { byPeers(t, root, series) })
	}
}

func byPeers(t *testing.T, root, series string) {
	g := guests.UpServer(t, lab.Options{Kernel: series, SMP: 2})
	vmlinux := debugSymbols(t, g.Kernel.Release)
	monitor(t, g, order{"stop", nil})
	core := filepath.Join(t.TempDir(), "guest.elf")
	if a := run(t, nil, "dump", "--format", "elf", "qemu:"+g.QMP(), "-o", core); a.status != 0 {
		t.Fatalf("dump: %s", a.stderr)
	}
	want := tasksOf(t, "qemu:"+g.QMP())
	if len(want) < 50 {
		t.Fatalf("only %d tasks", len(want))
	}
	if err := g.Down(); err != nil { // the others need the processors
		t.Fatal(err)
	}
	t.Run("crash", func(t *testing.T) {
		if series == "7.2" {
			t.Skip("crash 9.0.2 knows no kernel from which num_gpl_syms of struct module is gone; drgn must do")
		}
		c := labtest.Tool(t.Context(), root, "crash", "-s", vmlinux, core)
		c.Env = append(c.Env, "HOME="+t.TempDir())
		c.Stdin = strings.NewReader("ps\nbt -a\nquit\n")
		out := output(t, c)
		list, stacks, _ := strings.Cut(out, "\nPID: ")
		agree(t, want, crashTasks(list))
		// Registers and stacks of both processors come from the notes.
		if n := strings.Count(stacks, "RIP: "); n < 2 || strings.Count(stacks, " #0 [") != 2 {
			t.Errorf("bt -a:\n%s", stacks)
		}
	})
	t.Run("drgn", func(t *testing.T) {
		script := filepath.Join(t.TempDir(), "list.py")
		const list = `from drgn.helpers.linux.pid import for_each_task
for t in for_each_task(prog):
    print(t.pid.value_(), hex(t.value_()), t.comm.string_().decode(errors="backslashreplace"))
`
		if err := os.WriteFile(script, []byte(list), 0o600); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for line := range strings.Lines(output(t, labtest.Tool(t.Context(), root, "drgn", "-q", "--no-default-symbols", "-s", vmlinux, "-c", core, script))) {
			if f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3); len(f) == 3 {
				got[f[0]+" "+f[1]] = f[2]
			}
		}
		agree(t, want, got)
	})
}

// debugSymbols is the kernel's vmlinux with debug symbols.
func debugSymbols(t *testing.T, release string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "../scripts/bench-tools", "debug", release)
	c.Stderr = t.Output()
	out, err := c.Output()
	if err != nil {
		t.Skipf("no debug symbols of %s: %v", release, err)
	}
	return strings.TrimSpace(string(out))
}

func output(t *testing.T, c *exec.Cmd) string {
	t.Helper()
	c.Stderr = t.Output()
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%.2000s", c.Args[len(c.Args)-1], err, out)
	}
	return string(out)
}

// tasksOf are the names of all tasks of a target, by number and address.
func tasksOf(t *testing.T, target string) map[string]string {
	t.Helper()
	a := run(t, nil, "threads", target, "-o", "json")
	if a.status != 0 {
		t.Fatalf("threads: %s", a.stderr)
	}
	tasks := map[string]string{}
	for line := range strings.Lines(a.stdout) {
		var row struct {
			TID        int
			Comm, Task string
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		tasks[fmt.Sprintf("%d %s", row.TID, row.Task)] = row.Comm
	}
	return tasks
}

// crashTasks are the tasks that crash's ps lists, without the idle ones, which no list of
// the kernel has. A line begins with a mark if the task runs, and some names are in brackets:
//
//	>     201       1   0  ff36d1bb41f68000  RU   0.7  1262020     3788  server
func crashTasks(list string) map[string]string {
	tasks := map[string]string{}
	for line := range strings.Lines(list) {
		f := strings.Fields(strings.TrimLeft(line, "> "))
		if len(f) < 9 || f[0] == "0" {
			continue
		}
		if _, err := strconv.Atoi(f[0]); err == nil {
			tasks[f[0]+" 0x"+f[3]] = strings.Trim(strings.Join(f[8:], " "), "[]")
		}
	}
	return tasks
}

// agree compares lists of tasks. The names of kernel workers are longer for outsight,
// which asks the worker and not only its task.
func agree(t *testing.T, want, got map[string]string) {
	t.Helper()
	if a, b := slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)); !slices.Equal(a, b) {
		t.Errorf("%d tasks, not %d:\n%v\nwant\n%v", len(b), len(a), b, a)
	}
	const taskComm = 15 // bytes of a name in a task
	for id, name := range want {
		theirs := got[id]
		if theirs == "" && name != "" || theirs != name && !strings.HasPrefix(name, theirs[:min(len(theirs), taskComm)]) {
			t.Errorf("%s: %q, not %q", id, theirs, name)
		}
	}
}
