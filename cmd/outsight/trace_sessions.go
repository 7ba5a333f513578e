package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/cast"
	"github.com/outsight-vmi/outsight/table/text"
	"github.com/outsight-vmi/outsight/trace"
)

// sessionFlags say whether and how terminals are recorded.
type sessionFlags struct {
	folder  string
	noInput bool
	size    string
	total   string

	options  cast.Options
	recorder *cast.Recorder // nil: nothing is recorded
	show     func(e *trace.Event) error
	err      error // of showing
	events   uint64
	dropped  uint64 // bytes for which there was no room
}

func (f *sessionFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.folder, "sessions", "", "record all terminals into this `folder`, a file (asciicast v2) for each, instead of showing system calls")
	c.Flags().BoolVar(&f.noInput, "no-input", false, "leave out of recordings what is typed; it has passwords")
	c.Flags().StringVar(&f.size, "session-size", "64M", "most `bytes` of one recording, such as 10M")
	c.Flags().StringVar(&f.total, "sessions-size", "4G", "most `bytes` of all recordings")
}

// check says what is wrong with the flags.
func (f *sessionFlags) check(t *traceFlags) error {
	if f.folder == "" {
		if f.noInput {
			return usagef("--no-input: nothing is recorded without --sessions")
		}
		return nil
	}
	if t.summary && t.calls == nil {
		return usagef("--summary: counts system calls, and --sessions shows none: add --syscalls all")
	}
	size, err := parseSize(f.size)
	if err != nil {
		return usagef("--session-size: %w", err)
	}
	total, err := parseSize(f.total)
	if err != nil {
		return usagef("--sessions-size: %w", err)
	}
	f.options = cast.Options{Folder: f.folder, NoInput: f.noInput, Size: int64(size), Total: int64(total), Report: f.report}
	return nil
}

// begin makes the folder.
func (f *sessionFlags) begin(title string) (err error) {
	if f.folder == "" {
		return nil
	}
	f.options.Title = title
	f.recorder, err = cast.NewRecorder(f.options)
	return err
}

// event records something.
func (f *sessionFlags) event(e *trace.Event, lost uint64) error {
	if f.recorder == nil {
		return nil
	}
	f.events++
	f.recorder.Lost(lost)
	if err := f.recorder.Event(e); err != nil {
		return err
	}
	return f.err
}

// report shows that a recording began or ended.
func (f *sessionFlags) report(s *cast.Session) {
	e := trace.Event{Time: s.Last, Source: trace.FromPlugin, Kind: trace.KindSession, VCPU: -1, Name: "begin", Object: s.Path, Process: &trace.Process{PID: -1, PPID: -1}}
	if s.Leader != nil {
		e.Process, e.TID = s.Leader.Process, s.Leader.PID
	}
	e.Args = fmt.Sprintf("%s, %dx%d: recorded in %s", text.Visible(s.Terminal), s.Columns, s.Rows, s.Path)
	if s.Ended {
		e.Name = "end"
		e.Args = fmt.Sprintf("%s: recorded for %v: %d bytes shown, %d typed", text.Visible(s.Terminal), s.Last.Sub(s.Began).Round(time.Millisecond), s.Output, s.Input)
		if s.Dropped > 0 {
			f.dropped += s.Dropped
			e.Note = fmt.Sprintf("%d bytes are missing: there was no room", s.Dropped)
		}
	}
	if f.show != nil && f.err == nil {
		f.err = f.show(&e)
	}
}

// Close ends all recordings.
func (f *sessionFlags) Close() error {
	r := f.recorder
	if r == nil {
		return nil
	}
	f.recorder = nil
	return r.Close()
}
