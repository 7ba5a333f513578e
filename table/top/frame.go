package top

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/table"
)

// Order is what a frame is sorted by.
type Order byte

// The orders; each is the key that chooses it.
const (
	ByCPU    Order = 'c' // most first
	ByMemory Order = 'm' // most first
	ByPID    Order = 'p'
	ByName   Order = 'n'
	ByTime   Order = 't' // most first
)

var orderNames = map[Order]string{ByCPU: "cpu", ByMemory: "memory", ByPID: "pid", ByName: "name", ByTime: "time"}

// Orders are the names of the orders.
var Orders = []string{"cpu", "memory", "pid", "name", "time"}

// ParseOrder finds an order by its name.
func ParseOrder(name string) (Order, error) {
	for o, n := range orderNames {
		if n == name {
			return o, nil
		}
	}
	return 0, fmt.Errorf("no order %q; there are %s", name, strings.Join(Orders, ", "))
}

// Options say how a frame is made of samples.
type Options struct {
	Order   Order // 0: by CPU
	Reverse bool
	Tree    bool   // parents above children; Order is that of siblings
	Filter  string // shown are processes with this in their name, arguments or number
}

// Line is a process in a frame.
type Line struct {
	*Process
	Percent float64 // of one processor since the sample before; negative: unknown
	Branch  string  // lines of the tree that lead to it
}

// Frame is the lines of a sample. before, which may be nil, is the sample before it.
func Frame(before, now *Sample, o Options) []Line {
	var passed time.Duration
	var past history
	if before != nil {
		passed, past.processes = now.At.Sub(before.At), before.Processes
	}
	filter := strings.ToLower(o.Filter)
	lines := make([]Line, 0, len(now.Processes))
	for i := range now.Processes {
		p := &now.Processes[i]
		had := past.of(p.Key)
		if !p.matches(filter) {
			continue
		}
		lines = append(lines, Line{Process: p, Percent: percent(p, had, passed)})
	}
	slices.SortStableFunc(lines, func(a, b Line) int {
		c := o.compare(a, b)
		if o.Reverse {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(a.PID, b.PID))
	})
	if o.Tree {
		lines = forest(lines)
	}
	return lines
}

// history finds processes in the sample before. A guest lists its processes in the order
// in which they began, so the next one asked for is mostly the next one there.
type history struct {
	processes []Process
	next      int
	byKey     map[Key]*Process // made when one is not where it was looked for
}

// of is the process with that key; nil if there was none.
func (h *history) of(k Key) *Process {
	for i := h.next; i < min(h.next+8, len(h.processes)); i++ { // some have ended
		if h.processes[i].Key == k {
			h.next = i + 1
			return &h.processes[i]
		}
	}
	if h.byKey == nil {
		h.byKey = make(map[Key]*Process, len(h.processes))
		for i := range h.processes {
			h.byKey[h.processes[i].Key] = &h.processes[i]
		}
	}
	return h.byKey[k]
}

// percent is how much of one processor p used. Of a process that was not there
// before it is not known, or whose time could not be read; a sum that falls, as
// threads end, is of no use at all.
func percent(p, before *Process, passed time.Duration) float64 {
	if passed <= 0 || before == nil || before.CPU.IsNull() || p.CPU.IsNull() {
		return -1
	}
	return 100 * max(0, float64(p.CPU.Duration())-float64(before.CPU.Duration())) / float64(passed)
}

func (p *Process) matches(lower string) bool {
	return lower == "" || strings.Contains(strings.ToLower(p.Comm), lower) ||
		strings.Contains(strings.ToLower(p.Command), lower) || strconv.Itoa(int(p.PID)) == lower
}

func (o Options) compare(a, b Line) int {
	number := func(v table.Value) int64 {
		if v.IsNull() {
			return -1
		}
		return v.Int()
	}
	switch o.Order {
	case ByMemory:
		return cmp.Compare(number(b.RSS), number(a.RSS))
	case ByPID:
		return cmp.Compare(a.PID, b.PID)
	case ByName:
		return cmp.Compare(a.Comm, b.Comm)
	case ByTime:
		return cmp.Compare(number(b.CPU), number(a.CPU))
	}
	return cmp.Or(cmp.Compare(b.Percent, a.Percent), cmp.Compare(number(b.CPU), number(a.CPU)))
}

// forest puts lines into the order of a tree.
func forest(lines []Line) []Line {
	rows := make([]table.Row, len(lines))
	for i, l := range lines {
		rows[i] = table.Row{table.IntValue(int64(l.PID)), table.IntValue(int64(l.PPID)), table.IntValue(int64(i))}
	}
	out := make([]Line, 0, len(lines))
	for _, b := range table.Forest(rows, 0, 1) {
		l := lines[b.Row[2].Int()]
		l.Branch = b.Lines
		out = append(out, l)
	}
	return out
}
