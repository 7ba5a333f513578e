// Package collection takes many views of one guest at once and keeps them as files: what
// an investigator does first, before it is decided what matters.
package collection

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/text"
)

// ManifestName is the file that says what the others are.
const ManifestName = "manifest.json"

// Options say what is taken.
type Options struct {
	// Views are what is taken; nil is [Default].
	Views []table.View
	// Format is that of the files, JSON or CSV; empty is JSON.
	Format table.Format
	// Tool is the name and version of the program, for the manifest.
	Tool string
	// Done is called for each view that is finished, one at a time. It may be nil.
	Done func(Entry)
}

// Manifest says what was taken, of what, when, and on which word it rests.
type Manifest struct {
	Tool    string    `json:"tool"`
	Target  string    `json:"target"`
	Profile string    `json:"profile"`
	Paused  bool      `json:"paused"`
	Begun   time.Time `json:"begun"` // by the clock of the host
	Ended   time.Time `json:"ended"`
	Views   []Entry   `json:"views"`
}

// Entry is what became of one view.
type Entry struct {
	View       string   `json:"view"`
	File       string   `json:"file"`
	Rows       int      `json:"rows"`
	Unreadable int      `json:"unreadable"` // elements that came with an error
	Notes      []string `json:"notes"`      // what could not be read, and why
	Error      string   `json:"error,omitempty"`
	Bytes      int64    `json:"bytes"`
	SHA256     string   `json:"sha256"`
	Seconds    float64  `json:"seconds"`
}

// Default are all views of a guest but those that read all of its memory, which take
// longer than all others together and are taken where they are asked for by name.
func Default() []table.View {
	return slices.DeleteFunc(table.All(), func(v table.View) bool {
		spec := table.SpecOf(v)
		return spec.Host || spec.Exhaustive
	})
}

// Find looks names up.
func Find(names []string) ([]table.View, error) {
	var views []table.View
	for _, name := range names {
		v, ok := table.Lookup(name)
		if !ok || table.SpecOf(v).Host {
			return nil, fmt.Errorf("no view %q of a guest; outsight tables lists them", name)
		}
		if !slices.Contains(views, v) {
			views = append(views, v)
		}
	}
	return views, nil
}

// Write takes views of g, on all processors, into files of dir, which is made if need be
// and must be empty. A view that fails does not stop the others: its Entry says why. The
// error is of what concerns all: the folder, the guest that is gone, an end of ctx.
func Write(ctx context.Context, g *guest.Look, dir string, o Options) (*Manifest, error) {
	if o.Views == nil {
		o.Views = Default()
	}
	o.Format = cmp.Or(o.Format, table.JSON)
	if err := emptyFolder(dir); err != nil {
		return nil, err
	}
	m := &Manifest{Tool: o.Tool, Target: g.Target, Profile: g.Profile(), Paused: g.Paused(), Begun: time.Now().UTC(), Views: make([]Entry, len(o.Views))}
	errs := make([]error, len(o.Views))
	next := make(chan int, len(o.Views))
	for i := range o.Views {
		next <- i
	}
	close(next)
	var workers sync.WaitGroup
	var done sync.Mutex
	for range min(runtime.GOMAXPROCS(0), len(o.Views)) {
		workers.Go(func() {
			for i := range next {
				m.Views[i], errs[i] = take(ctx, g, dir, o.Views[i], o.Format)
				if o.Done != nil && errs[i] == nil {
					done.Lock()
					o.Done(m.Views[i])
					done.Unlock()
				}
			}
		})
	}
	workers.Wait()
	if err := errors.Join(ctx.Err(), cmp.Or(errs...)); err != nil {
		return nil, err
	}
	m.Ended = time.Now().UTC()
	return m, m.write(filepath.Join(dir, ManifestName))
}

func emptyFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil { // it will hold secrets of the guest
		return fmt.Errorf("collection: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("collection: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("collection: folder %s is not empty: name another", dir)
	}
	return nil
}

// take writes one view.
func take(ctx context.Context, g *guest.Look, dir string, v table.View, format table.Format) (e Entry, err error) {
	begun := time.Now()
	e = Entry{View: v.Name(), File: v.Name() + "." + suffix(format), Notes: []string{}}
	f, err := os.OpenFile(filepath.Join(dir, e.File), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return e, fmt.Errorf("collection: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := &counted{w: f, sum: sha256.New()}
	var report table.Report
	// Memory that is mapped faults if its file shrinks meanwhile.
	gone := phys.Guard(func() error { return encode(ctx, g, v, format, out, &report, &e.Rows) })
	if err := errors.Join(ctx.Err(), gone); err != nil {
		return e, err
	}
	if report.Err != nil {
		e.Error = text.Visible(report.Err.Error())
	}
	for _, note := range report.Diagnostics(v) {
		e.Notes = append(e.Notes, text.Visible(note))
	}
	e.Unreadable, e.Bytes, e.SHA256 = report.Unreadable, out.n, hex.EncodeToString(out.sum.Sum(nil))
	e.Seconds = time.Since(begun).Seconds()
	return e, nil
}

func encode(ctx context.Context, g *guest.Look, v table.View, format table.Format, w io.Writer, report *table.Report, n *int) error {
	columns, err := table.Select(v.Columns(), "all", format)
	if err != nil {
		return err
	}
	enc, err := table.NewEncoder(w, format, v.Columns(), table.Options{Columns: columns})
	if err != nil {
		return err
	}
	for row := range table.Rows(ctx, v, g, table.Request{}, report) {
		*n++
		if err := enc.Row(row); err != nil {
			return fmt.Errorf("collection: %w", err)
		}
	}
	if err := enc.Close(); err != nil {
		return fmt.Errorf("collection: %w", err)
	}
	if errors.Is(report.Err, phys.ErrGone) {
		return report.Err
	}
	return nil
}

func suffix(f table.Format) string {
	if f == table.JSON {
		return "jsonl" // one object a line
	}
	return string(f)
}

type counted struct {
	w   io.Writer
	sum hash.Hash
	n   int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.sum.Write(p[:n])
	c.n += int64(n)
	return n, err
}

func (m *Manifest) write(path string) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("collection: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("collection: %w", err)
	}
	return nil
}
