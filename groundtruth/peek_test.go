package groundtruth

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// TestMemoryVerbs looks at a guest's memory by address, and the guest at its own.
func TestMemoryVerbs(t *testing.T) {
	labtest.NeedQEMU(t)
	g := labtest.Up(t, lab.Options{Memory: gib / 4, Modules: []string{"dummy"}})
	target := "qemu:" + g.QMP()
	run := func(args ...string) []byte {
		t.Helper()
		out, err := exec.Command(command(t), args...).Output()
		if err != nil {
			t.Fatalf("outsight %s: %v", strings.Join(args, " "), err)
		}
		return out
	}
	// Code of the first process: the guest reads it through /proc/1/mem.
	guest := labtest.Output(t, g, `set -- $(grep r-xp /proc/1/maps | head -1 | tr - ' '); start=$((0x$1)) end=$((0x$2))
echo $start $((end - start)); dd if=/proc/1/mem bs=4096 skip=$((start / 4096)) count=$(((end - start) / 4096)) 2>/dev/null | sha256sum`)
	var start, size uint64
	var sum string
	if _, err := fmt.Sscan(guest, &start, &size, &sum); err != nil {
		t.Fatalf("%q: %v", guest, err)
	}
	at := fmt.Sprintf("%#x", start)
	bytes := run("read", target, "--pid", "1", at, fmt.Sprint(size), "-o", "-")
	if got := sha256.Sum256(bytes); hex.EncodeToString(got[:]) != sum {
		t.Errorf("code of process 1 at %s: %d bytes, %x; the guest says %s", at, len(bytes), got, sum)
	}
	// The same taken out as a mapping, and as part of a core file.
	dir := t.TempDir()
	core := filepath.Join(dir, "core")
	run("extract", target, "--pid", "1", "-o", core)
	f, err := elf.Open(core)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := false
	for _, p := range f.Progs {
		if p.Vaddr != start {
			continue
		}
		found = true
		b := make([]byte, size)
		if _, err := p.ReadAt(b, 0); err != nil || sha256.Sum256(b) != sha256.Sum256(bytes) {
			t.Errorf("the core file has other bytes at %#x (%v)", start, err)
		}
	}
	if !found {
		t.Errorf("the core file has no segment at %#x", start)
	}
	module := filepath.Join(dir, "module")
	run("extract", target, "--module", "dummy", "-o", module)
	if m, err := elf.Open(module); err != nil || len(m.Progs) == 0 {
		t.Errorf("module: %v", err)
	}
	// Where a page lies, by /proc/1/pagemap.
	guest = labtest.Output(t, g, fmt.Sprintf(`dd if=/proc/1/pagemap bs=8 skip=%d count=1 2>/dev/null | od -An -tx8`, start/4096))
	var entry, physical uint64
	if _, err := fmt.Sscanf(strings.TrimSpace(guest), "%x", &entry); err != nil {
		t.Fatalf("%q: %v", guest, err)
	}
	for line := range strings.Lines(string(run("translate", target, "--pid", "1", at, "-o", "json"))) {
		var step struct {
			Physical *string `json:"physical"`
		}
		if err := json.Unmarshal([]byte(line), &step); err != nil {
			t.Fatal(err)
		}
		if step.Physical != nil {
			_, err = fmt.Sscanf(*step.Physical, "0x%x", &physical)
		}
	}
	const frame = 1<<55 - 1
	if err != nil || physical/4096 != entry&frame || physical == 0 {
		t.Errorf("%s lies at %#x; the guest says page %#x", at, physical, entry&frame)
	}
	// A type with what it holds, and code by its symbol.
	if out := string(run("struct", target, "task_struct.comm", "init_task", "-o", "json")); !strings.Contains(out, `"value":"\"swapper/0\""`) {
		t.Errorf("struct: %s", out)
	}
	if out := string(run("disassemble", target, "do_nanosleep")); !strings.Contains(out, "ret") {
		t.Errorf("disassemble: %s", out)
	}
	// A list, and objects that point to one another, as /proc has them.
	named := func(args ...string) (names []string) {
		for line := range strings.Lines(string(run(append([]string{"walk", target}, args...)...))) {
			if _, value, ok := strings.Cut(line, "name = "); ok { // perhaps a pointer before it
				names = append(names, strings.Split(value, `"`)[1])
			}
		}
		return names
	}
	if got, want := named("modules", "module.list", "name"), strings.Fields(labtest.Output(t, g, "cut -d' ' -f1 /proc/modules")); !slices.Equal(got, want) || len(want) == 0 {
		t.Errorf("walk over modules: %q; the guest says %q", got, want)
	}
	if got, want := named("file_systems", "file_system_type.next", "name"), strings.Fields(labtest.Output(t, g, "cut -f2 /proc/filesystems")); !slices.Equal(got, want) {
		t.Errorf("walk over file systems: %q; the guest says %q", got, want)
	}
	// init_task is its own parent and leads its own group (INIT_TASK of
	// init/init_task.c); whoever else points to it changes.
	var symbols []string
	for line := range strings.Lines(string(run("search", target, "--pointer", "init_task", "-o", "json"))) {
		var hit struct{ Symbol *string }
		if err := json.Unmarshal([]byte(line), &hit); err != nil {
			t.Fatal(err)
		}
		if hit.Symbol != nil {
			symbols = append(symbols, *hit.Symbol)
		}
	}
	for _, field := range []string{"real_parent", "parent", "group_leader"} {
		var member struct{ Offset string }
		if err := json.Unmarshal(run("struct", target, "task_struct."+field, "-o", "json"), &member); err != nil {
			t.Fatal(err)
		}
		if want := "init_task+" + member.Offset; !slices.Contains(symbols, want) {
			t.Errorf("search for init_task finds %q, not %s, its %s", symbols, want, field)
		}
	}
}
