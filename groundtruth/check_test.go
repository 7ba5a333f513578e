package groundtruth

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/virt"
)

// TestGuestCheck judges by the command: a clean guest, and one of which a process was taken
// off the task list, in every output format and by what is allowed and known.
func TestGuestCheck(t *testing.T) {
	labtest.NeedQEMU(t)
	g := labtest.Up(t, lab.Options{Memory: gib / 4})
	labtest.Output(t, g, "sleep 100000 </dev/null >/dev/null 2>&1 & echo ok")
	target := "lab:" + g.Name
	if a := run(t, nil, "check", target); a.status != 0 || a.stdout != "" || !strings.Contains(a.stderr, "nothing found by") {
		t.Fatalf("of a clean guest: status %d: %s%s", a.status, a.stdout, a.stderr)
	}
	// The guest's own programs, asked through the lab's agent, have nothing to hide.
	if a := run(t, nil, "check", target, "--only", "contradicted", "--ask"); a.status != 0 || !strings.Contains(a.stderr, "nothing found by 1 check\n") {
		t.Errorf("--ask: status %d: %s%s", a.status, a.stdout, a.stderr)
	}
	if a := run(t, nil, "check", target, "--only", "contradicted", "-v"); a.status != 0 || !strings.Contains(a.stderr, "were not asked") {
		t.Errorf("nobody asked: status %d: %s%s", a.status, a.stdout, a.stderr)
	}
	hideSleeper(t, g, target)

	a := run(t, nil, "check", target, "-o", "json")
	var f struct {
		Check, Title, Object, Severity, Show, Technique string
		Evidence                                        []string
	}
	if err := json.Unmarshal([]byte(a.stdout), &f); err != nil || a.status != 1 {
		t.Fatalf("status %d, %v: %s%s", a.status, err, a.stdout, a.stderr)
	}
	if f.Check != "hidden-process" || !strings.HasSuffix(f.Object, " sleep") || f.Severity != "high" || !strings.Contains(f.Show, target) || len(f.Evidence) == 0 {
		t.Errorf("found %+v", f)
	}
	// What it says shows it, does.
	if a := run(t, nil, strings.Fields(f.Show)[1:]...); a.status != 0 || !strings.Contains(a.stdout, "sleep") {
		t.Errorf("%s: status %d: %.200s%s", f.Show, a.status, a.stdout, a.stderr)
	}
	for format, want := range map[string]string{"table": "is missing from the task list", "csv": "hidden-process", "sarif": `"ruleId": "hidden-process"`, "ocsf": `"class_uid":2004`} {
		if a := run(t, nil, "check", target, "-o", format); a.status != 1 || !strings.Contains(a.stdout, want) {
			t.Errorf("-o %s: status %d: %.300s%s", format, a.status, a.stdout, a.stderr)
		}
	}
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	known := file("known.json", a.stdout)
	allowed := file("allowed.json", `[{"check": "hidden-process", "object": "process * sleep", "reason": "this test", "expires": "2100-01-01"}]`)
	for flag, value := range map[string]string{"--since": known, "--allow": allowed, "--skip": "hidden-process"} {
		if a := run(t, nil, "check", target, flag, value); a.status != 0 || a.stdout != "" {
			t.Errorf("%s: status %d: %s%s", flag, a.status, a.stdout, a.stderr)
		}
	}
	if a := run(t, nil, "check", target, "--allow", known); a.status != 2 || !strings.Contains(a.stderr, "write a list of entries") {
		t.Errorf("--allow of something else: status %d: %s", a.status, a.stderr)
	}
}

// hideSleeper takes the process sleep off the task list, as a rootkit does, until it is shown
// again.
func hideSleeper(t *testing.T, g *lab.Guest, target string) (show func()) {
	t.Helper()
	l, err := guest.LookAt(t.Context(), target, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tasks, err := l.Linux.Member("task_struct", "tasks")
	if err != nil {
		t.Fatal(err)
	}
	ram := labtest.OpenRAM(t, g)
	word := func(a virt.Addr) virt.Addr {
		v, err := l.Linux.Space.U64(a)
		if err != nil {
			t.Fatal(err)
		}
		return virt.Addr(v)
	}
	// put returns what puts another value there: by then the look is closed.
	put := func(a, v virt.Addr) func(virt.Addr) {
		page, err := l.Linux.Space.Translate(a)
		if err != nil {
			t.Fatal(err)
		}
		set := func(v virt.Addr) {
			if _, err := ram.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(v)), int64(page.PA)); err != nil {
				t.Fatal(err)
			}
		}
		set(v)
		return set
	}
	for p, err := range l.Processes(t.Context()) {
		if err == nil && p.Comm == "sleep" {
			node := tasks.At(p.Task.Addr)
			next, prev := word(node), word(node+8)
			before, after := put(prev, next), put(next+8, prev)
			return func() {
				before(node)
				after(node)
			}
		}
	}
	t.Fatal("sleep does not run")
	return nil
}
