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
	used := map[Key]time.Duration{}
	var passed time.Duration
	if before != nil {
		passed = now.At.Sub(before.At)
		for _, p := range before.Processes {
			if !p.CPU.IsNull() {
				used[p.Key] = p.CPU.Duration()
			}
		}
	}
	filter := strings.ToLower(o.Filter)
	var lines []Line
	for i := range now.Processes {
		p := &now.Processes[i]
		if !p.matches(filter) {
			continue
		}
		lines = append(lines, Line{Process: p, Percent: percent(p, used, passed)})
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

// percent is how much of one processor p used. Of a process that was not there
// before it is not known, or whose time could not be read; a sum that falls, as
// threads end, is no use at all.
func percent(p *Process, used map[Key]time.Duration, passed time.Duration) float64 {
	had, known := used[p.Key]
	if passed <= 0 || !known || p.CPU.IsNull() {
		return -1
	}
	return 100 * max(0, float64(p.CPU.Duration())-float64(had)) / float64(passed)
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
