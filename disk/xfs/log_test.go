package xfs

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
)

// dirtyList is what the guest that wrote the dirty sample showed of its files.
func dirtyList(t *testing.T) []*listed {
	t.Helper()
	b, err := os.ReadFile("testdata/dirty.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var all []*listed
	for line := range bytes.Lines(b) {
		if line[0] == 0 {
			break
		}
		e := &listed{}
		if err := json.Unmarshal(line, e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// differences are how many files are not as they were shown.
func differences(t *testing.T, fs *FS) (count int, said string) {
	t.Helper()
	got := map[string]disk.Node{}
	var visit func(p string, n disk.Node)
	visit = func(p string, n disk.Node) {
		got[p] = n
		if n.Stat().Type() != disk.TypeDir {
			return
		}
		for e, err := range n.Entries() {
			if err != nil {
				return
			}
			if child, err := fs.Node(e.Inode); err == nil {
				visit(filepath.Join(p, e.Name), child)
			}
		}
	}
	root, err := fs.Root()
	if err != nil {
		t.Fatal(err)
	}
	visit(".", root)
	want := dirtyList(t)
	for _, w := range want {
		what := "is missing"
		if n, ok := got[string(w.Path)]; ok {
			what = difference(n, w, dirty)
		}
		if what != "" {
			count++
			said += string(w.Path) + ": " + what + "\n"
		}
		delete(got, string(w.Path))
	}
	for p := range got {
		count++
		said += p + ": was not there\n"
	}
	return count, said
}

// TestLog reads a file system whose log was not replayed by any kernel.
func TestLog(t *testing.T) {
	dev := sample(t, "dirty")
	fs, err := Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	if n, said := differences(t, fs); n != 0 {
		t.Error(said)
	}
	if info := fs.Info(); len(info.Notes) != 0 || len(info.Elsewhere) != 1 || !strings.Contains(info.Elsewhere[0], "transactions of the log") {
		t.Errorf("%+v", info)
	}
	var held []string
	for n, err := range fs.Unlinked() {
		if err != nil {
			t.Fatal(err)
		}
		b, err := readAll(n)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, string(b))
	}
	if len(held) != 1 || held[0] != "held\n" {
		t.Errorf("deleted and open: %q", held)
	}
	log, err := fs.newLogReader()
	if err != nil {
		t.Fatal(err)
	}
	if from, to, isDirty, err := log.dirty(); from != 40 || to != 119 || !isDirty || err != nil { // as xfs_logprint has them
		t.Errorf("the log is dirty from %d to %d (%v), %v", from, to, isDirty, err)
	}
	without := &FS{dev: dev, sb: fs.sb, cache: newCache(dev, fs.sb.bytes(), int64(fs.sb.blockSize))}
	if n, _ := differences(t, without); n < 20 {
		t.Errorf("%d differences without the log: the test shows nothing", n)
	}
}

// TestTornLog damages the log's records, from the last to the first: what is before each of them still counts.
func TestTornLog(t *testing.T) {
	dev := sample(t, "dirty")
	fs, err := Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	log, err := fs.newLogReader()
	if err != nil {
		t.Fatal(err)
	}
	var starts []int64
	if _, err := log.walk(40, -1, func(r *record) error { starts = append(starts, r.block); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(starts) < 5 {
		t.Fatalf("records at %d", starts)
	}
	for i := len(starts) - 1; i > 1; i-- {
		torn, err := Open(patched{dev, map[int64]byte{log.start + starts[i]*sector + 600: 1}})
		if err != nil {
			t.Fatal(err)
		}
		again, err := torn.newLogReader()
		if err != nil {
			t.Fatal(err)
		}
		if _, to, _, err := again.dirty(); to != starts[i] || err != nil {
			t.Errorf("with a damaged record at %d the log ends at %d, %v", starts[i], to, err)
		}
		for _, err := range readEverything(torn).errs {
			t.Errorf("with a damaged record at %d: %v", starts[i], err)
		}
	}
	// Where there are no checksums, the sectors say in which round they were written.
	last := starts[len(starts)-1]
	torn, err := open(patched{dev, map[int64]byte{log.start + (last+1)*sector: 1}}, true)
	if err != nil {
		t.Fatal(err)
	}
	again, err := torn.newLogReader()
	if err != nil {
		t.Fatal(err)
	}
	if _, to, _, err := again.dirty(); to != last || err != nil {
		t.Errorf("with a record of another round at %d the log ends at %d, %v", last, to, err)
	}
}

// TestOtherLogs has what is not replayed, and is said.
func TestOtherLogs(t *testing.T) {
	dev := sample(t, "dirty")
	fs, err := Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	log, err := fs.newLogReader()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at   int64
		x    byte
		want string
	}{
		{log.start + 40*sector + 303, 3, "a log of format 2"},
		{log.start + 40*sector + 512 + 13, 0x77, "without a header"}, // of the first transaction
	} {
		other, err := open(patched{dev, map[int64]byte{c.at: c.x}}, true)
		if err != nil {
			t.Fatal(err)
		}
		notes := strings.Join(other.Info().Notes, "\n")
		if !strings.Contains(notes, c.want) || !strings.Contains(notes, "not shown") {
			t.Errorf("notes %q, without %q", notes, c.want)
		}
	}
	super := bytes.Clone(dev.pages[0])
	clear(super[48:56])
	elsewhere := &memory{pages: map[int64][]byte{0: super}, size: dev.size}
	other, err := open(elsewhere, true)
	if err != nil {
		t.Fatal(err)
	}
	if notes := strings.Join(other.Info().Notes, "\n"); !strings.Contains(notes, "another device") {
		t.Errorf("notes of an external log: %q", notes)
	}
}
