package trace

import (
	"path"
	"strconv"
	"strings"
	"time"

	visible "github.com/outsight-vmi/outsight/table/text"
)

// What says in one text what happened, for people: what the event is about, its arguments and its
// result, as far as its kind has them.
func (e *Event) What() string {
	switch e.Kind {
	case KindExec:
		// The command line says it all, unless the file is called otherwise.
		first := e.Args[:strings.IndexAny(e.Args+" ", " \n")]
		switch name := strings.TrimPrefix(path.Base(strings.Trim(first, "'")), "-"); {
		case e.Args == "", strings.HasSuffix(e.Object, Deleted):
		case name == path.Base(e.Object), isBox(path.Base(e.Object)), e.Process != nil && name == e.Process.Comm: // a link to it
			return e.Args
		}
		return join(e.Object, ": ", e.Args)
	case KindSyscall, KindProbe, KindIOURing, KindRefused:
		return join(e.Name+"("+e.Args+")", " = ", e.Result)
	case KindFinding:
		return join(join(e.Name, ": ", e.Args), ", ", e.Object)
	case KindMount, KindUnmount:
		if e.Args != "" {
			return e.Args
		}
	case KindExit: // sources say by which name it went, or how it ended
		if e.Object == e.Result {
			return join(e.Args, " ", e.Result)
		}
	case KindSession, KindTerminal:
		return join(e.Name, " ", e.Args)
	case KindBPF:
		return join(join(e.Name, " ", e.Object), ": ", e.Args)
	case KindDevice, KindModule:
		return join(e.Object, ": ", e.Args)
	}
	return join(join(e.Object, " ", e.Args), " ", e.Result)
}

// join puts sep between two texts of which one may be empty.
func join(a, sep, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + sep + b
}

// LineHeader is the line above [Event.AppendLine]'s.
const LineHeader = "TIME          EVENT        PID  COMM             WHAT"

// AppendLine appends an event as one line for a terminal, without a line break: time, event, pid, comm,
// what happened and, behind a #, the note. Guest text in it is harmless.
func (e *Event) AppendLine(b []byte, zone *time.Location) []byte {
	b = e.Time.In(zone).AppendFormat(b, "15:04:05.000")
	b = pad(append(b, "  "...), string(e.Kind), 7)
	pid, comm := "-", "-"
	if e.Process != nil {
		pid, comm = strconv.Itoa(int(e.Process.PID)), visible.Visible(e.Process.Comm)
	}
	for range 9 - len(pid) {
		b = append(b, ' ')
	}
	b = append(append(b, pid...), "  "...)
	b = append(pad(b, comm, 15), "  "...)
	b = visible.AppendVisible(b, oneLine(e.What()))
	if e.Note != "" {
		b = visible.AppendVisible(append(b, "  # "...), oneLine(e.Note))
	}
	return b
}

// oneLine is s with a space for each line break: where a script is an argument it has many.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " ") }

func pad(b []byte, s string, width int) []byte {
	b = append(b, s...)
	for range width - visible.Width(s) {
		b = append(b, ' ')
	}
	return b
}
