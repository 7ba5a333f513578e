package groundtruth

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/table/text"
)

// line is what the command prints of one process as JSON. What is missing is null,
// and left zero here.
type line struct {
	PID          int      `json:"pid"`
	PPID         *int     `json:"ppid"`
	UID          *uint32  `json:"uid"`
	GID          *uint32  `json:"gid"`
	State        string   `json:"state"`
	Threads      *int     `json:"threads"`
	VSize        uint64   `json:"vsize"`
	Comm         *string  `json:"comm"`
	Exe          string   `json:"exe"`
	ExeDeleted   bool     `json:"exe_deleted"`
	Args         []string `json:"args"`
	Cgroup       string   `json:"cgroup"`
	Container    string   `json:"container"`
	PIDNS        uint64   `json:"pid_ns"`
	KernelThread bool     `json:"kernel_thread"`
	Profile      string   `json:"profile"`
}

// printed is what the command itself prints of target, by process.
func printed(t *testing.T, target string) map[int]line {
	t.Helper()
	a := run(t, nil, "ps", target, "-o", "json")
	if a.status != 0 {
		t.Fatalf("exit status %d: %s", a.status, a.stderr)
	}
	lines := map[int]line{}
	for s := range strings.Lines(a.stdout) {
		var l line
		if err := json.Unmarshal([]byte(s), &l); err != nil {
			t.Fatalf("%v in %.200q", err, s)
		}
		if _, twice := lines[l.PID]; twice {
			t.Errorf("process %d is printed twice", l.PID)
		}
		lines[l.PID] = l
	}
	return lines
}

// printedDifferences holds what the command printed against what the guest said
// before and after.
func printedDifferences(lines map[int]line, before, after account) (diffs []string) {
	for k, a := range before.rows {
		b, stayed := after.rows[k]
		if !stayed {
			continue
		}
		// While the process lives no other one has its number.
		l, ok := lines[a.PID]
		if !ok {
			diffs = append(diffs, fmt.Sprintf("%d (%q) is in the guest's list before and after, but was not printed", a.PID, a.Comm))
			continue
		}
		for _, d := range lineDifferences(l, a, b) {
			diffs = append(diffs, fmt.Sprintf("%d (%q): %s", a.PID, a.Comm, d))
		}
	}
	return diffs
}

func lineDifferences(l line, a, b row) (diffs []string) {
	check := func(name string, got, before, after any) { field(&diffs, name, got, before, after) }
	if l.PPID == nil || l.UID == nil || l.GID == nil || l.Threads == nil || l.Comm == nil {
		return []string{fmt.Sprintf("what every process has is missing: %+v", l)}
	}
	check("ppid", *l.PPID, a.PPID, b.PPID)
	const effective = 1
	check("uid", *l.UID, a.UIDs[effective], b.UIDs[effective])
	check("gid", *l.GID, a.GIDs[effective], b.GIDs[effective])
	check("state", l.State, a.State, b.State)
	check("threads", *l.Threads, a.Threads, b.Threads)
	check("vsize", l.VSize, a.VSize, b.VSize)
	check("comm", withoutWork(text.FromLossless(*l.Comm), l.KernelThread), stableText(a), stableText(b))
	exe := text.FromLossless(l.Exe)
	if l.ExeDeleted {
		exe += " (deleted)"
	}
	check("exe", exe, string(a.Exe), string(b.Exe))
	args := make([]string, len(l.Args))
	for i, s := range l.Args {
		args[i] = text.FromLossless(s)
	}
	check("args", fmt.Sprintf("%q", args), fmt.Sprintf("%q", listed(a.Cmdline)), fmt.Sprintf("%q", listed(b.Cmdline)))
	check("cgroup", text.FromLossless(l.Cgroup), unified(a.Cgroup), unified(b.Cgroup))
	check("container", text.FromLossless(l.Container), containerID(unified(a.Cgroup)), containerID(unified(b.Cgroup)))
	check("pid_ns", l.PIDNS, inode(a.NS["pid"]), inode(b.NS["pid"]))
	check("kernel_thread", l.KernelThread, a.KernelThread, b.KernelThread)
	if l.Profile == "" {
		diffs = append(diffs, "it is not said where its profile is from")
	}
	return diffs
}

// listed splits arguments at their NULs; the last one ends them.
func listed(cmdline []byte) []string {
	if len(cmdline) == 0 {
		return nil
	}
	return strings.Split(trimmed(cmdline), "\x00")
}
