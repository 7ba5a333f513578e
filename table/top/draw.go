package top

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/text"
)

// columns is the line above the processes.
const columns = "    PID    UID S  %CPU    RSS  VSIZE     TIME  THR COMMAND"

// Header is the lines above a frame. shown is how many of the processes it shows.
func Header(s *Sample, o Options, shown int) []string {
	running := 0
	for _, p := range s.Processes {
		if p.State == 'R' {
			running++
		}
	}
	first := fmt.Sprintf("%s  %s  up %v  load %s %s %s", text.Visible(s.Host), text.Visible(s.Release), s.Up, loadText(s.Load[0]), loadText(s.Load[1]), loadText(s.Load[2]))
	second := fmt.Sprintf("%d processes, %d running, %v threads  %d cpus  memory %v, %v free", len(s.Processes), running, s.Threads, s.CPUs, s.Total, s.Free)
	if s.Unreadable > 0 {
		second += fmt.Sprintf("  %d unreadable", s.Unreadable)
	}
	third := "by " + orderNames[o.order()]
	if o.Reverse {
		third += ", reversed"
	}
	if o.Tree {
		third += ", as a tree"
	}
	if o.Filter != "" {
		third += fmt.Sprintf("  %d match %s", shown, text.Visible(o.Filter))
	}
	return []string{first, second, third}
}

func loadText(v table.Value) string {
	if v.IsNull() {
		return v.String()
	}
	return strconv.FormatFloat(v.Float(), 'f', 2, 64)
}

func (o Options) order() Order {
	if o.Order == 0 {
		return ByCPU
	}
	return o.Order
}

// String is the line as it is drawn, fit for a terminal.
func (l Line) String() string {
	command := l.Command
	switch {
	case l.KernelThread:
		command = "[" + l.Comm + "]"
	case l.Swapped && command == "":
		command = l.Comm + " (swapped)"
	case command == "":
		command = l.Comm
	}
	return fmt.Sprintf("%7d %6v %s %5s %6v %6v %8v %4d %s%s",
		l.PID, l.UID, l.State, percentText(l.Percent), l.RSS, l.VSize, l.CPU, l.Threads, l.Branch, text.Visible(command))
}

// percentText keeps to five cells, whatever a guest says that it used.
func percentText(v float64) string {
	switch {
	case v < 0:
		return "-"
	case v < 999.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v < 99999:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return ">9999"
}

// Text is a whole frame as plain text, with lines of at most width cells; 0: as
// long as they are.
func Text(before, now *Sample, o Options, width int) string {
	lines := Frame(before, now, o)
	out := append(Header(now, o, len(lines)), columns)
	for _, l := range lines {
		out = append(out, l.String())
	}
	var b strings.Builder
	for _, s := range out {
		if width > 0 {
			s = text.Cut(s, width)
		}
		b.WriteString(s + "\n")
	}
	return b.String()
}
