package groundtruth

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/table"
)

var update = flag.Bool("update", false, "write the support table from the results in OUTSIGHT_RESULTS")

const (
	bookPath    = "../docs/support.jsonl" // what comparisons showed, newest of each
	detailsPath = "../docs/support.md"
	readmePath  = "../README.md"
)

// fact is what one comparison of a view showed.
type fact struct {
	View    string   `json:"view"`
	Kernel  string   `json:"kernel"`            // as the lab names it
	Source  string   `json:"source"`            // see sourceOf; for a dump, its format
	Rows    int      `json:"rows"`              // that were compared
	Columns []string `json:"columns,omitempty"` // that the guest told; of a dump, none: it was compared byte for byte
	Part    bool     `json:"part,omitempty"`    // the guest reports some of the rows only
	Equal   bool     `json:"equal"`
}

// sourceOf names the way in which a running guest is read.
func sourceOf(g *lab.Guest) string {
	switch {
	case os.Getenv(microVM) != "":
		return os.Getenv(microVM)
	case isDomain(g):
		return "libvirt"
	case g.Accel == lab.KVM:
		return "kvm"
	case g.Userland == lab.Debian:
		return "debian"
	case g.Private:
		return "private"
	}
	return "shared"
}

// record keeps facts for the support table, in the file that OUTSIGHT_RESULTS names.
func record(t *testing.T, facts ...fact) {
	t.Helper()
	path := os.Getenv("OUTSIGHT_RESULTS")
	if path == "" || os.Getenv("OUTSIGHT_FLAVOUR") != "" {
		return
	}
	// A kernel that is a file has no place in the table.
	facts = slices.DeleteFunc(facts, func(f fact) bool { return strings.Contains(f.Kernel, "/") })
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, f := range facts {
		if err := enc.Encode(f); err != nil {
			t.Fatal(err)
		}
	}
	// One write: guests are compared side by side.
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = file.Write(b.Bytes())
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// psColumns are the columns of ps that differences and printedDifferences compare.
var psColumns = []string{
	"args", "cgroup", "comm", "container", "cpu_time", "exe", "exe_deleted", "gid", "kernel_thread", "pid", "pid_ns",
	"ppid", "rss", "started", "state", "threads", "tid", "tty", "uid", "vsize",
}

// A page of the book is all that is known of one view on one kernel.
type page struct {
	View    string   `json:"view"`
	Kernel  string   `json:"kernel"`
	Rows    int      `json:"rows"`
	Columns []string `json:"columns,omitempty"`
	Part    bool     `json:"part,omitempty"`
	// Sources are what was compared, each with "equal", "none" (the guest had no such
	// thing) or "differs".
	Sources map[string]string `json:"sources"`
}

type book map[[2]string]*page

func (b book) page(view, kernel string) *page { return b[[2]string{view, kernel}] }

// add takes a newer fact in.
func (b book) add(f fact) {
	p := b.page(f.View, f.Kernel)
	if p == nil {
		p = &page{View: f.View, Kernel: f.Kernel, Sources: map[string]string{}}
		b[[2]string{f.View, f.Kernel}] = p
	}
	switch {
	case !f.Equal:
		p.Sources[f.Source] = "differs"
	case f.Rows == 0:
		p.Sources[f.Source] = "none"
	default:
		p.Sources[f.Source] = "equal"
	}
	if f.Source == "shared" || p.Columns == nil {
		p.Rows, p.Columns, p.Part = f.Rows, f.Columns, f.Part
	}
}

// lines calls f with every line of a file; one that is not there has none.
func lines(t *testing.T, path string, f func(line []byte) error) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	s := bufio.NewScanner(bytes.NewReader(data))
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		if err := f(s.Bytes()); err != nil {
			t.Fatalf("%s:%d: %v", path, n, err)
		}
	}
}

func readBook(t *testing.T) book {
	b := book{}
	lines(t, bookPath, func(line []byte) error {
		var p page
		if err := json.Unmarshal(line, &p); err != nil {
			return err
		}
		if _, known := table.Lookup(p.View); known { // else renamed since
			b[[2]string{p.View, p.Kernel}] = &p
		}
		return nil
	})
	return b
}

func (b book) text(t *testing.T) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	keys := slices.SortedFunc(maps.Keys(b), func(x, y [2]string) int { return slices.Compare(x[:], y[:]) })
	for _, key := range keys {
		if err := enc.Encode(b[key]); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

// TestSupportTable holds the tables of docs/support.md and the README against the results
// that they were made from. With -update it takes newer results in, and writes them again:
// make support does.
func TestSupportTable(t *testing.T) {
	b := readBook(t)
	if *update {
		lines(t, os.Getenv("OUTSIGHT_RESULTS"), func(line []byte) error {
			var f fact
			if err := json.Unmarshal(line, &f); err != nil {
				return err
			}
			b.add(f)
			return nil
		})
	}
	files := map[string]string{bookPath: b.text(t), detailsPath: b.details()}
	readme := read(t, readmePath)
	const begin, end = "<!-- made by make support: begin -->\n", "<!-- end -->\n"
	before, rest, ok1 := strings.Cut(readme, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", readmePath)
	}
	files[readmePath] = before + begin + b.sentence() + end + after
	for path, want := range files {
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if read(t, path) != want {
			t.Errorf("%s is not what its results say: run make support, or go test ./groundtruth -run TestSupportTable -update", path)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}
