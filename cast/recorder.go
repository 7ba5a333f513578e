package cast

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/trace"
)

// Options say how to record.
type Options struct {
	Folder  string // is made if it is not there, for its owner alone
	Title   string // of the guest, for the title of each recording
	NoInput bool   // leave out what is typed
	// Size is the most bytes of one file, and Total of all. The recording goes on without what is more, which is counted.
	// 0: 64 MiB, and 4 GiB.
	Size, Total int64
	// Report hears of each recording when it begins and when it ends.
	Report func(s *Session)
}

const (
	defaultSize  = 64 << 20
	defaultTotal = 4 << 30
	smallest     = 4 * headerSize
	reserve      = 256 // bytes of each file, for the mark that it is full
	maxOpen      = 128 // files that are open at once; others are opened again when something happens
)

// Session is a recording.
type Session struct {
	Terminal      string // "pts/3"
	Path          string // of its file
	Began, Last   time.Time
	Ended         bool
	Columns, Rows int
	Leader        *trace.Leader // nil: unknown
	Output, Input uint64        // bytes that are recorded
	Dropped       uint64        // bytes for which there was no room
}

// Recorder writes recordings. It is for one goroutine.
type Recorder struct {
	o        Options
	sessions map[uint64]*recording // by number of the terminal
	open     int
	written  int64
	uses     uint64 // counts uses of files, to close the one that was not used for longest
	lost     uint64
	line     []byte
	text     []byte
}

// recording is a session and its file.
type recording struct {
	Session
	made          bool // its file
	f             *os.File
	used          uint64
	size          int64
	header        header
	output, input decoder
	hidden        bool   // the last keystroke was not echoed
	full          bool   // no more is written
	lost          uint64 // events of the source that were lost when it was last written to
}

// NewRecorder begins to record.
func NewRecorder(o Options) (*Recorder, error) {
	if o.Size == 0 {
		o.Size = defaultSize
	}
	if o.Total == 0 {
		o.Total = defaultTotal
	}
	if o.Size < smallest || o.Total < smallest {
		return nil, fmt.Errorf("record terminals: files of %d bytes, %d in all, are too small: at least %d are needed", o.Size, o.Total, smallest)
	}
	if err := os.MkdirAll(o.Folder, 0o700); err != nil {
		return nil, fmt.Errorf("record terminals: %w", err)
	}
	return &Recorder{o: o, sessions: map[uint64]*recording{}}, nil
}

// Lost says how many events of the source were lost so far: recordings say where.
func (r *Recorder) Lost(n uint64) { r.lost = n }

// Event records what happened at a terminal. Events of other kinds it passes over.
func (r *Recorder) Event(e *trace.Event) error {
	t := e.Terminal
	if t == nil {
		return nil
	}
	s := r.sessions[t.ID]
	if s == nil {
		if t.Action == trace.TerminalClose {
			return nil
		}
		s = &recording{Session: Session{Terminal: t.Name, Began: e.Time, Last: e.Time}, lost: r.lost}
		r.sessions[t.ID] = s
	}
	if e.Time.After(s.Last) { // players want times that only grow
		s.Last = e.Time
	}
	if t.Action == trace.TerminalClose {
		delete(r.sessions, t.ID)
		return r.end(s)
	}
	if t.Action == trace.TerminalInput && r.o.NoInput {
		return nil
	}
	if !s.made {
		if t.Columns > 0 && t.Rows > 0 {
			s.Columns, s.Rows = t.Columns, t.Rows
		}
		if t.Action == trace.TerminalResize {
			return nil
		}
		s.Began, s.Leader, s.Terminal = s.Last, t.Leader, t.Name
		if err := r.create(s); err != nil {
			return err
		}
	}
	return r.add(s, t)
}

// add writes an event into a file that is there.
func (r *Recorder) add(s *recording, t *trace.Terminal) error {
	if t.Leader != s.Leader && t.Leader != nil {
		s.Leader = t.Leader
		if err := r.rewrite(s); err != nil {
			return err
		}
	}
	line := r.line[:0]
	at := s.Last.Sub(s.Began)
	if r.lost > s.lost {
		line = appendEvent(line, at, 'm', fmt.Appendf(nil, "%d events were lost: something may be missing here", r.lost-s.lost))
		s.lost = r.lost
	}
	var n *uint64
	switch t.Action {
	case trace.TerminalResize:
		s.Columns, s.Rows = t.Columns, t.Rows
		size := strconv.AppendInt(append(strconv.AppendInt(r.text[:0], int64(t.Columns), 10), 'x'), int64(t.Rows), 10)
		line, r.text = appendEvent(line, at, 'r', size), size
	case trace.TerminalOutput:
		r.text = s.output.append(r.text[:0], t.Data)
		line, n = appendText(line, at, 'o', r.text), &s.Output
	case trace.TerminalInput:
		if t.Hidden && !s.hidden {
			line = appendEvent(line, at, 'm', []byte("input without echo"))
		}
		s.hidden = t.Hidden
		r.text = s.input.append(r.text[:0], t.Data)
		line, n = appendText(line, at, 'i', r.text), &s.Input
	}
	if t.Cut {
		line = appendEvent(line, at, 'm', []byte("what follows here is missing: it was too much at once"))
	}
	r.line = line
	wrote, err := r.write(s, line)
	if n != nil {
		if !wrote {
			n = &s.Dropped
		}
		*n += uint64(len(t.Data))
	}
	return err
}

func appendText(line []byte, at time.Duration, kind byte, text []byte) []byte {
	if len(text) == 0 {
		return line // a character that is not whole yet
	}
	return appendEvent(line, at, kind, text)
}

// full is what a file ends with that has no more room.
const fullText = "the recording has reached its limit: what follows is missing"

// write appends lines to a file, if there is room.
func (r *Recorder) write(s *recording, b []byte) (wrote bool, err error) {
	if s.full || len(b) == 0 {
		return !s.full, nil
	}
	if s.size+int64(len(b)) > r.o.Size-reserve || r.written+int64(len(b)) > r.o.Total {
		s.full = true
		b = appendEvent(nil, s.Last.Sub(s.Began), 'm', []byte(fullText))
	}
	f, err := r.file(s)
	if err != nil {
		return false, err
	}
	n, err := f.WriteAt(b, s.size)
	s.size += int64(n)
	if !s.full {
		r.written += int64(n)
	}
	if err != nil {
		return false, fmt.Errorf("record %s: %w", s.Terminal, err)
	}
	return !s.full, nil
}

// create makes the file of a session, unless there is no room for any.
func (r *Recorder) create(s *recording) error {
	s.made = true
	if r.written+smallest > r.o.Total {
		s.full = true
		return nil
	}
	base := s.Began.UTC().Format("20060102T150405.000000Z") + "-" + fileName(s.Terminal)
	const most = 1000
	for i := 1; ; i++ {
		name := base
		if i > 1 {
			name += "-" + strconv.Itoa(i)
		}
		s.Path = filepath.Join(r.o.Folder, name+".cast")
		f, err := os.OpenFile(s.Path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, os.ErrExist) && i < most {
			continue
		}
		if err != nil {
			return fmt.Errorf("record %s: %w", s.Terminal, err)
		}
		r.opened(s, f)
		break
	}
	s.header = header{columns: s.Columns, rows: s.Rows, began: s.Began}
	s.size = headerSize
	r.written += headerSize + reserve
	if err := r.rewrite(s); err != nil {
		return err
	}
	r.report(s)
	return nil
}

// fileName is the name of a terminal as a part of a file's name. The guest chose it.
func fileName(name string) string {
	const most = 32
	name = strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_':
			return c
		}
		return '-'
	}, cut(name, most))
	if name == "" {
		return "tty"
	}
	return name
}

// rewrite writes the header again.
func (r *Recorder) rewrite(s *recording) error {
	if s.Path == "" {
		return nil
	}
	h := &s.header
	h.leader, h.duration = s.Leader, s.Last.Sub(s.Began)
	h.title = strings.TrimSpace(r.o.Title + " " + s.Terminal)
	if s.Leader != nil {
		h.title += " uid " + strconv.Itoa(int(s.Leader.UID))
		if s.Leader.Container != "" {
			h.title += " container " + s.Leader.Container
		}
	}
	f, err := r.file(s)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(h.append(nil), 0); err != nil {
		return fmt.Errorf("record %s: %w", s.Terminal, err)
	}
	return nil
}

// file is the file of a session, open.
func (r *Recorder) file(s *recording) (*os.File, error) {
	if s.f == nil {
		f, err := os.OpenFile(s.Path, os.O_RDWR, 0)
		if err != nil {
			return nil, fmt.Errorf("record %s: %w", s.Terminal, err)
		}
		r.opened(s, f)
	}
	r.uses++
	s.used = r.uses
	return s.f, nil
}

// opened notes an open file, and closes another where there are too many.
func (r *Recorder) opened(s *recording, f *os.File) {
	if r.open >= maxOpen {
		var oldest *recording
		for _, x := range r.sessions {
			if x.f != nil && (oldest == nil || x.used < oldest.used) {
				oldest = x
			}
		}
		if oldest != nil {
			oldest.f.Close()
			oldest.f = nil
			r.open--
		}
	}
	s.f = f
	r.open++
}

// end completes a recording.
func (r *Recorder) end(s *recording) error {
	if !s.made {
		return nil
	}
	s.Ended = true
	var err error
	if s.Path != "" {
		line := appendText(r.line[:0], s.Last.Sub(s.Began), 'o', s.output.end(nil))
		line = appendText(line, s.Last.Sub(s.Began), 'i', s.input.end(nil))
		_, err = r.write(s, line)
		err = errors.Join(err, r.rewrite(s))
		if s.f != nil {
			err = errors.Join(err, s.f.Close())
			s.f = nil
			r.open--
		}
	}
	r.report(s)
	return err
}

func (r *Recorder) report(s *recording) {
	if r.o.Report != nil {
		r.o.Report(&s.Session)
	}
}

// Close ends all recordings.
func (r *Recorder) Close() error {
	var errs []error
	for id, s := range r.sessions {
		delete(r.sessions, id)
		errs = append(errs, r.end(s))
	}
	return errors.Join(errs...)
}
