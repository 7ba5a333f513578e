package cast

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/outsight-vmi/outsight/trace"
)

// played is what a player gets from a file.
type played struct {
	Header struct {
		Version, Width, Height int
		Timestamp              int64
		Duration               float64
		Title, Command         string
		Env                    map[string]string
	}
	Events []playedEvent
}

type playedEvent struct {
	At         float64
	Kind, Text string
}

func parse(t testing.TB, b []byte) (p played) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(lines[0]) != headerSize-1 {
		t.Errorf("the header has %d bytes", len(lines[0]))
	}
	if err := json.Unmarshal([]byte(lines[0]), &p.Header); err != nil {
		t.Fatalf("header %q: %v", lines[0], err)
	}
	for _, l := range lines[1:] {
		var e playedEvent
		if err := json.Unmarshal([]byte(l), &[]any{&e.At, &e.Kind, &e.Text}); err != nil {
			t.Fatalf("event %q: %v", l, err)
		}
		if n := len(p.Events); n > 0 && e.At < p.Events[n-1].At {
			t.Errorf("event %q lies before the one in front of it", l)
		}
		p.Events = append(p.Events, e)
	}
	return p
}

// text is all of one kind.
func (p *played) text(kind string) string {
	var b strings.Builder
	for _, e := range p.Events {
		if e.Kind == kind {
			b.WriteString(e.Text)
		}
	}
	return b.String()
}

func read(t testing.TB, path string) played {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, b)
}

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// feed is a recorder with the sessions that it reported.
type feed struct {
	*Recorder
	t    *testing.T
	at   time.Time
	ends map[string]Session
}

func newFeed(t *testing.T, o Options) *feed {
	t.Helper()
	f := &feed{t: t, at: noon, ends: map[string]Session{}}
	o.Folder = t.TempDir()
	o.Report = func(s *Session) {
		if s.Ended {
			f.ends[s.Terminal] = *s
		}
	}
	r, err := NewRecorder(o)
	if err != nil {
		t.Fatal(err)
	}
	f.Recorder = r
	return f
}

func (f *feed) say(x trace.Terminal) {
	f.t.Helper()
	f.at = f.at.Add(time.Millisecond)
	if err := f.Event(&trace.Event{Kind: trace.KindTerminal, Time: f.at, Terminal: &x}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *feed) shown(id uint64, data string) {
	f.t.Helper()
	f.say(trace.Terminal{ID: id, Name: fmt.Sprintf("pts/%d", id), Action: trace.TerminalOutput, Data: []byte(data)})
}

func (f *feed) typed(id uint64, data string, hidden bool) {
	f.t.Helper()
	f.say(trace.Terminal{ID: id, Name: fmt.Sprintf("pts/%d", id), Action: trace.TerminalInput, Data: []byte(data), Hidden: hidden})
}

func (f *feed) end(id uint64) {
	f.t.Helper()
	f.say(trace.Terminal{ID: id, Action: trace.TerminalClose})
}

func TestRecording(t *testing.T) {
	f := newFeed(t, Options{Title: "web"})
	f.say(trace.Terminal{ID: 7, Name: "pts/7", Action: trace.TerminalResize, Columns: 100, Rows: 30})
	f.shown(7, "snow\xe2\x98")
	f.shown(7, "\x83 \xff\x1b[0m\"\\\r\n")
	f.typed(7, "ls\r", false)
	f.typed(7, "se", true)
	f.typed(7, "cret\r", true)
	leader := &trace.Leader{Process: &trace.Process{PID: 5, UID: 1000}, Args: []string{"-bash"}, Term: "xterm", Exec: "/bin/bash"}
	f.say(trace.Terminal{ID: 7, Name: "pts/7", Action: trace.TerminalResize, Columns: 90, Rows: 20, Leader: leader})
	f.shown(7, "\xe2\x98")
	f.end(7)
	s := f.ends["pts/7"]
	p := read(t, s.Path)
	if h := p.Header; h.Version != 2 || h.Width != 100 || h.Height != 30 || h.Timestamp != noon.Unix() || h.Title != "web pts/7 uid 1000" ||
		h.Command != "-bash" || h.Env["TERM"] != "xterm" || h.Env["SHELL"] != "/bin/bash" || h.Duration != 0.007 {
		t.Errorf("header %+v", h)
	}
	if got, want := p.text("o"), "snow\u2603 \ufffd\x1b[0m\"\\\r\n\ufffd\ufffd"; got != want {
		t.Errorf("shown %q, want %q", got, want)
	}
	if got := p.text("i"); got != "ls\rsecret\r" {
		t.Errorf("typed %q", got)
	}
	if got := p.text("m"); got != "input without echo" {
		t.Errorf("marks %q", got)
	}
	if got := p.text("r"); got != "90x20" {
		t.Errorf("sizes %q", got)
	}
	if s.Output != 19 || s.Input != 10 || s.Dropped != 0 {
		t.Errorf("session %+v", s)
	}
}

func TestNoInput(t *testing.T) {
	f := newFeed(t, Options{NoInput: true})
	f.typed(1, "secret\r", true)
	f.shown(1, "ok")
	f.typed(1, "more", false)
	f.end(1)
	if p := read(t, f.ends["pts/1"].Path); p.text("o") != "ok" || p.text("i")+p.text("m") != "" {
		t.Errorf("%+v", p.Events)
	}
}

// TestLimits has no file grow beyond its limit, nor all of them together, and counts what is missing.
func TestLimits(t *testing.T) {
	f := newFeed(t, Options{Size: 8192, Total: 20000})
	sent := uint64(0)
	for n := range uint64(300) {
		for id := uint64(1); id <= 4; id++ {
			f.shown(id, strings.Repeat("x", 50))
			sent += 50
		}
		if n == 100 {
			f.end(1)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(f.o.Folder)
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, e := range entries {
		i, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if i.Size() > 8192 {
			t.Errorf("%s has %d bytes", e.Name(), i.Size())
		}
		total += i.Size()
		if p := read(t, f.o.Folder+"/"+e.Name()); !strings.HasSuffix(p.text("m"), fullText) {
			t.Errorf("%s does not say that something is missing", e.Name())
		}
	}
	if total > 20000 || total < 15000 {
		t.Errorf("all have %d bytes", total)
	}
	kept := uint64(0)
	for _, s := range f.ends {
		kept += s.Output + s.Dropped
	}
	if kept > sent || kept < sent/2 { // of terminals that were used twice only the second is known here
		t.Errorf("%d of %d bytes are accounted for", kept, sent)
	}
}

// TestManyTerminals has more terminals at once than files are open.
func TestManyTerminals(t *testing.T) {
	f := newFeed(t, Options{})
	const many = 3 * maxOpen
	for n := range 3 {
		for id := range uint64(many) {
			f.shown(id, fmt.Sprintf("%d;", n))
		}
	}
	if f.open > maxOpen {
		t.Errorf("%d files are open", f.open)
	}
	for id := range uint64(many) {
		f.end(id)
	}
	for name, s := range f.ends {
		if p := read(t, s.Path); p.text("o") != "0;1;2;" {
			t.Errorf("%s: %q", name, p.text("o"))
		}
	}
	if len(f.ends) != many || f.open != 0 {
		t.Errorf("%d sessions ended, %d files are open", len(f.ends), f.open)
	}
}

// TestHostileNames has a guest choose names and texts: they stay in the folder, and in the header's room.
func TestHostileNames(t *testing.T) {
	f := newFeed(t, Options{Title: strings.Repeat("t", 2000)})
	evil := strings.Repeat("\x01\"\xff", 5000)
	l := &trace.Leader{Process: &trace.Process{}, Args: []string{evil, evil}, Term: evil, Exec: evil}
	f.say(trace.Terminal{ID: 1, Name: "../../etc/passwd\x00\x1b]0;x", Action: trace.TerminalOutput, Data: []byte("x"), Columns: -1, Leader: l})
	f.Lost(3)
	f.say(trace.Terminal{ID: 1, Name: "x", Action: trace.TerminalOutput, Data: []byte("y"), Cut: true})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(f.o.Folder)
	if err != nil || len(entries) != 1 || strings.ContainsAny(entries[0].Name(), "/\x1b") {
		t.Fatal(entries, err)
	}
	p := read(t, f.o.Folder+"/"+entries[0].Name())
	if p.text("o") != "xy" || p.Header.Width != 80 || !strings.Contains(p.text("m"), "3 events were lost") || !strings.Contains(p.text("m"), "too much at once") {
		t.Errorf("%+v", p)
	}
}

// FuzzText checks that whatever bytes come, in whatever pieces, a player gets them, with U+FFFD for what is not UTF-8.
func FuzzText(f *testing.F) {
	f.Add([]byte("snow\xe2\x98\x83"), uint8(5))
	f.Add([]byte("\xff\xe2\x98\xe2\x98\x83\x1b\"\\\u2028\U0001f600"), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		var d decoder
		var line, text, got []byte
		for rest := b; len(rest) > 0; {
			n := min(max(int(size), 1), len(rest))
			text = d.append(text[:0], rest[:n])
			rest = rest[n:]
			if !utf8.Valid(text) || len(d.tail) >= utf8.UTFMax {
				t.Fatalf("%q is not valid, or %q is left", text, d.tail)
			}
			line = appendEvent(line[:0], time.Second, 'o', text)
			var e playedEvent
			if err := json.Unmarshal(line, &[]any{&e.At, &e.Kind, &e.Text}); err != nil || e.At != 1 || e.Kind != "o" {
				t.Fatalf("%q: %v", line, err)
			}
			for _, c := range line[:len(line)-1] {
				if c < ' ' {
					t.Fatalf("%q has control characters", line)
				}
			}
			got = append(got, e.Text...)
		}
		got = d.end(got)
		if want := bytes.Runes(b); string(want) != string(got) {
			t.Fatalf("got %q, want %q", got, string(want))
		}
	})
}
