package tcg

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/device"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/virt"
)

// terminals makes events of what passes through terminals.
type terminals struct {
	g     *guest.Guest
	known map[uint64]*terminal
	next  uint64
	at    *terminalsAt // nil: terminals are not followed
	// waiting are what began, in that order: bytes that a function was given, until it says how many it took.
	// An echo is written while its keystroke is being received.
	waiting []*call
	event   trace.Terminal // the last that was handed out
}

// terminal is one that is in use.
type terminal struct {
	trace.Terminal
	address, peer uint64
	window        uint64
	session       uint64    // struct pid * of its session, when its leader was looked for
	asked         time.Time // when its leader was looked for
	typed         bool      // its leader was looked for since something was typed
}

const (
	maxTerminals = 1 << 16
	maxWaiting   = 1024
	askAgain     = time.Second // how often a leader is looked for until there is one
	returnWait   = time.Second // how long a function may take to say what it took
)

func (t *terminals) init(g *guest.Guest) {
	t.g, t.known = g, map[uint64]*terminal{}
}

// booted forgets the terminals of the last boot.
func (t *terminals) booted() {
	t.waiting = t.waiting[:0]
	clear(t.known)
}

// isTerminal says whether a record is one of a terminal.
func isTerminal(id uint16) bool { return id >= idTerminal && id <= idTerminalClose }

// record takes in a record of a terminal. What is done it hands to j.
func (t *terminals) record(ctx context.Context, j *joiner, s origin, r *plugin.Record) {
	id := int(r.Probe)
	if r.Words() < terminalWords || t.at == nil {
		return // the ring's writer cut it off
	}
	if id >= idTerminalReturn && id < idTerminalResize {
		t.returned(r, id-idTerminalReturn)
		t.flush(j, time.Time{})
		return
	}
	address := r.Word(wordTTY)
	if id == idTerminalClose && t.known[address] == nil {
		return
	}
	x := t.of(ctx, address, id, r)
	window := r.Word(wordWindow)
	if window != x.window && id != idTerminalClose {
		x.window = window
		c := j.record(ctx, s, r)
		c.terminal, c.action, c.done = x, trace.TerminalResize, true
		t.waiting = append(t.waiting, c)
	}
	if id == idTerminalResize {
		t.flush(j, time.Time{})
		return
	}
	c := j.record(ctx, s, r)
	c.terminal = x
	if id == idTerminalClose {
		c.action, c.done = trace.TerminalClose, true
		for _, a := range []uint64{x.address, x.peer} {
			if t.known[a] == x {
				delete(t.known, a)
			}
		}
	} else {
		f := terminalFunctions[id-idTerminal]
		c.action, c.function = trace.TerminalOutput, id-idTerminal
		if f.input {
			c.action = trace.TerminalInput
		}
		if f.char {
			c.bytes = append(c.bytes[:0], byte(r.Word(wordChar)))
			c.data = append(c.data[:0], piece{status: syscall.Whole, to: 1})
		} else {
			c.add(r, false)
		}
		c.done = f.whole || len(t.at.returns[c.function]) == 0
	}
	t.waiting = append(t.waiting, c)
	t.flush(j, c.entered)
}

// returned notes how much a function took.
func (t *terminals) returned(r *plugin.Record, function int) {
	for i := len(t.waiting) - 1; i >= 0; i-- {
		c := t.waiting[i]
		if c.done || c.task != r.Word(wordTask) || c.function != function {
			continue
		}
		c.done = true
		if took := int64(int32(r.Word(wordCount))); len(c.data) > 0 && took >= 0 && uint64(took) < c.words[wordCount] {
			p := &c.data[0]
			if n := min(int(took), p.to-p.from); n < p.to-p.from || p.status == syscall.Cut {
				p.to, p.status = p.from+n, syscall.Whole
			}
		}
		return
	}
}

// flush hands out what is done, in the order in which it began. What never returns (its record was lost) holds up the rest for a moment.
func (t *terminals) flush(j *joiner, now time.Time) {
	n := 0
	for _, c := range t.waiting {
		if !c.done && len(t.waiting)-n < maxWaiting && (now.IsZero() || now.Sub(c.entered) < returnWait) {
			break
		}
		n++
		if c.action != trace.TerminalInput && c.action != trace.TerminalOutput || len(c.data) > 0 && c.data[0].to > c.data[0].from {
			j.queue = append(j.queue, c)
		} else {
			j.free = append(j.free, c)
		}
	}
	t.waiting = slices.Delete(t.waiting, 0, n)
}

// of is the terminal of a tty_struct.
func (t *terminals) of(ctx context.Context, address uint64, id int, r *plugin.Record) *terminal {
	x := t.known[address]
	if x == nil {
		if len(t.known) >= maxTerminals {
			clear(t.known) // they go on under new numbers
		}
		t.next++
		x = &terminal{address: address}
		x.ID = t.next
		t.known[address] = x
	}
	input := id >= idTerminal && id < idTerminalReturn && terminalFunctions[id-idTerminal].input
	session := r.Word(wordSession)
	if now := time.Now(); now.Sub(x.asked) > askAgain && (x.Name == "" || x.Leader == nil) || session != x.session && session != 0 || input && !x.typed {
		// Who types has a shell in front of him: what leads the session now is what will be of interest.
		x.typed = x.typed || input
		x.asked, x.session = now, session
		t.read(ctx, x)
	}
	return x
}

// read finds the name of a terminal, and who leads its session.
func (t *terminals) read(ctx context.Context, x *terminal) {
	l, err := t.g.Look(ctx)
	if err != nil {
		return
	}
	defer l.Close()
	tty, err := device.TerminalAt(l.Linux, virt.Addr(x.address))
	if err != nil {
		return
	}
	x.Name = strings.Clone(tty.Name)
	if x.peer == 0 && tty.Peer != 0 {
		x.peer = uint64(tty.Peer)
		if t.known[x.peer] == nil {
			t.known[x.peer] = x
		}
	}
	if tty.Session == 0 {
		return
	}
	for task, err := range l.Linux.Processes(ctx) {
		if err != nil {
			continue
		}
		if pid, _, err := task.IDs(); err == nil && pid == tty.Session {
			x.Leader = leaderOf(ctx, l.Linux, task)
			return
		}
	}
}

func leaderOf(ctx context.Context, s *linux.System, task linux.Task) *trace.Leader {
	reader := s.NewProcessReader()
	p, err := reader.ThreadAsProcess(ctx, task)
	if err != nil {
		return nil
	}
	l := &trace.Leader{Process: &trace.Process{
		PID: p.PID, PPID: p.PPID, UID: p.Creds.UID, Comm: strings.Clone(p.Comm), Exe: strings.Clone(p.Exe),
		Container: trace.ShortContainer(p.Container.ID), Started: p.SinceBoot,
	}}
	for _, a := range p.Args {
		l.Args = append(l.Args, strings.Clone(a))
	}
	env, _ := reader.Environment(task) // what is not there now is left out
	for _, v := range env {
		switch v.Name {
		case "TERM":
			l.Term = strings.Clone(v.Value)
		case "SHELL":
			l.Exec = strings.Clone(v.Value)
		}
	}
	return l
}

// fill fills the event of something at a terminal.
func (t *terminals) fill(j *joiner, e *trace.Event, c *call) {
	x := c.terminal
	t.event = x.Terminal
	y := &t.event
	y.Action, y.Columns, y.Rows = c.action, int(c.words[wordWindow]>>16&0xffff), int(c.words[wordWindow]&0xffff)
	local := c.words[wordLocal]
	y.Hidden = c.action == trace.TerminalInput && local&flagCanonical != 0 && local&flagEcho == 0
	if len(c.data) > 0 {
		y.Data, y.Cut = c.bytes[c.data[0].from:c.data[0].to], c.data[0].status != syscall.Whole
	}
	e.Kind, e.Name, e.Object, e.Terminal = trace.KindTerminal, string(c.action), x.Name, y
	j.text = j.text[:0]
	switch {
	case c.action == trace.TerminalResize:
		j.text = strconv.AppendInt(append(strconv.AppendInt(j.text, int64(y.Columns), 10), 'x'), int64(y.Rows), 10)
	case len(y.Data) > 0:
		j.text = strconv.AppendQuote(j.text, string(y.Data[:min(len(y.Data), j.o.Limit)]))
		if y.Cut || len(y.Data) > j.o.Limit {
			j.text = append(j.text, "..."...)
		}
	}
	e.Args = view(j.text)
}
