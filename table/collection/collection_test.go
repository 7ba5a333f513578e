package collection_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/collection"
	_ "github.com/outsight-vmi/outsight/table/views"
	"github.com/outsight-vmi/outsight/vm"
)

func synthetic(t testing.TB) *guest.Look {
	t.Helper()
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	g.Add(synth.Process{PID: 7, PPID: 1, Comm: "sshd"})
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &guest.Look{Target: "synthetic", Machine: &vm.Machine{Memory: g.Memory}, Linux: s}
}

// broken is a view that gives a row, then an element's error, then err.
func broken(name string, err error) table.View {
	return table.New(table.Spec{
		Name: name, Doc: "Show an error.",
		Columns: []table.Column{{Name: "n", Type: table.Int, Doc: "A number."}},
		Rows: func(context.Context, *guest.Look, table.Request) iter.Seq2[table.Row, error] {
			return func(yield func(table.Row, error) bool) {
				_ = yield(table.Row{table.IntValue(1)}, nil) && yield(nil, errors.New("one \x1b[2J of them")) && yield(nil, err)
			}
		},
	})
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	ps, _ := table.Lookup("ps")
	var told []string
	views := append(collection.Default(), broken("failing", table.Failure(errors.New("the end"))))
	m, err := collection.Write(t.Context(), synthetic(t), dir, collection.Options{
		Views: views, Tool: "test", Done: func(e collection.Entry) { told = append(told, e.View) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Views) != len(views) || len(told) != len(views) || m.Ended.Before(m.Begun) || m.Target != "synthetic" || m.Tool != "test" {
		t.Errorf("%+v, told of %d", m, len(told))
	}
	var saved collection.Manifest
	b, err := os.ReadFile(filepath.Join(dir, collection.ManifestName))
	if err := errors.Join(err, json.Unmarshal(b, &saved)); err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(saved.Views, m.Views, func(a, b collection.Entry) bool { return a.SHA256 == b.SHA256 && a.View == b.View }) {
		t.Errorf("manifest.json holds %+v", saved)
	}
	for i, e := range m.Views {
		b, err := os.ReadFile(filepath.Join(dir, e.File))
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != e.SHA256 || int64(len(b)) != e.Bytes || bytes.Count(b, []byte("\n")) != e.Rows {
			t.Errorf("%s does not hold what its entry says: %+v", e.File, e)
		}
		if e.View != views[i].Name() {
			t.Errorf("entry %d is %s, not %s", i, e.View, views[i].Name())
		}
		switch e.View {
		case ps.Name():
			if e.Rows != 2 || e.Error != "" || !bytes.Contains(b, []byte(`"comm":"sshd"`)) {
				t.Errorf("%+v: %s", e, b)
			}
		case "failing":
			if e.Rows != 1 || e.Unreadable != 1 || e.Error != "the end" || len(e.Notes) != 1 || strings.Contains(e.Notes[0], "\x1b") {
				t.Errorf("%+v", e)
			}
		}
	}
}

func TestWriteCSV(t *testing.T) {
	dir := t.TempDir()
	views, err := collection.Find([]string{"ps", "info", "ps"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := collection.Write(t.Context(), synthetic(t), dir, collection.Options{Views: views, Format: table.CSV})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "ps.csv"))
	if err != nil || len(m.Views) != 2 || !bytes.HasPrefix(b, []byte("pid,")) || bytes.Count(b, []byte("\n")) != 3 {
		t.Errorf("%v, %+v: %s", err, m, b)
	}
}

func TestRefusals(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := collection.Write(t.Context(), synthetic(t), full, collection.Options{}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("into a folder with files: %v", err)
	}
	for _, name := range []string{"no_such_view", "vms"} {
		if _, err := collection.Find([]string{"ps", name}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("view %s: %v", name, err)
		}
	}
	gone := collection.Options{Views: []table.View{broken("gone", table.Failure(phys.ErrGone))}}
	if _, err := collection.Write(t.Context(), synthetic(t), t.TempDir(), gone); !errors.Is(err, phys.ErrGone) {
		t.Errorf("of a guest that went away: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := collection.Write(ctx, synthetic(t), t.TempDir(), collection.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func Example() {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	system, err := linux.Open(context.Background(), g.Memory, kernel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	dir, err := os.MkdirTemp("", "evidence-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	views, _ := collection.Find([]string{"ps"})
	m, err := collection.Write(context.Background(), &guest.Look{Linux: system}, dir, collection.Options{Views: views})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Views[0].File, m.Views[0].Rows)
	// Output: ps.jsonl 1
}
