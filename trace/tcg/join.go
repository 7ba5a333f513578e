package tcg

import (
	"context"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/peek"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/addrspace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/virt"
)

// origin is where records come from: [plugin.Stream], or what makes records of the same form.
type origin interface {
	// Before is how many records were lost before the last one that was read: between least and most.
	Before() (least, most uint64)
	// Time is the host's time of a record.
	Time(*plugin.Record) time.Time
}

// joiner makes events of records: it joins the entry of a call with its return, by the task.
type joiner struct {
	source    trace.Source
	processes *trace.Processes
	o         Options
	calls     [2][]*syscall.Call
	asked     [2][]bool // nil: all
	pending   map[uint64]*call
	free      []*call
	changing  [2][]bool // calls by which what is known of a process changes
	queue     []*call   // done; those before next were handed out
	next      int
	handed    *call // whose memory the last event refers to
	lost      uint64
	missed    uint64      // records, before the last one at most
	unwanted  trace.Event // of a door that only says who a process is
	values    syscall.Values
	text      []byte
	clock     skew
	last      lastProcess
	probes    []*userProbe
	life      bool         // processes introduce themselves where they begin, and run a program
	kinds     []trace.Kind // of doors that are events
	names     *peek.Placer // of code and data, at the look at which the probes were set
	terminals terminals
	rings     rings
	mounts    mounts
	refusable [2][]*syscall.Call
	codes     map[codeKey]bool // that were reported
}

// lastProcess is the process of the last record: most often that of the next one too.
type lastProcess struct {
	task, born uint64
	process    *trace.Process
}

// who is the process of a task.
func (j *joiner) who(ctx context.Context, task, born, ids uint64) *trace.Process {
	if j.last.process == nil || j.last.task != task || j.last.born != born {
		j.last = lastProcess{task, born, j.processes.Born(ctx, virt.Addr(task), born, int32(ids>>32))}
	}
	return j.last.process
}

// call is a system call between its entry and its return.
type call struct {
	task, ids, nr, stamp, born uint64
	args                       [6]uint64
	vcpu                       int
	entered, left              time.Time
	seen                       bool // its entry was seen
	returned                   bool
	result                     int64
	note                       string
	altered                    bool
	probe                      *userProbe
	told                       *Answer      // that came by io_uring; nil: none
	ring                       bool         // an operation of io_uring
	event                      *trace.Event // of a door, complete
	terminal                   *terminal
	action                     trace.TerminalAction
	function                   int      // of terminalFunctions
	done                       bool     // nothing more is to come for it
	words                      []uint64 // of a probe; of a return, those behind its head
	lost                       uint64   // records, before its entry at least
	asked, before              uint64   // of an answer: its file and position when the call began
	bytes                      []byte
	data                       []piece
	process                    *trace.Process
}

// piece is an item in call.bytes.
type piece struct {
	tag      uint8
	status   syscall.Status
	from, to int
}

// maxPending bounds the calls that have not returned: a guest can have a million threads.
const maxPending = 1 << 18

func (j *joiner) init(g *guest.Guest, o Options) {
	j.processes, j.o, j.source = trace.NewProcesses(g), o, trace.FromPlugin
	j.pending = map[uint64]*call{}
	j.terminals.init(g)
	j.mounts.init(g)
}

// booted forgets what was under way in the last boot.
func (j *joiner) booted() {
	for task, c := range j.pending {
		j.free = append(j.free, c)
		delete(j.pending, task)
	}
	j.clock = skew{}
	j.processes.Booted()
	j.last.process = nil
	j.terminals.booted()
	j.rings.booted()
	j.codes = nil
}

func (j *joiner) new() *call {
	if n := len(j.free); n > 0 {
		c := j.free[n-1]
		j.free = j.free[:n-1]
		bytes, data, words := c.bytes[:0], c.data[:0], c.words[:0]
		*c = call{bytes: bytes, data: data, words: words}
		return c
	}
	return &call{}
}

// take takes a record in.
func (j *joiner) take(ctx context.Context, s origin, r *plugin.Record) {
	if _, lost := s.Before(); lost != j.missed {
		j.missed = lost
		j.processes.Unsure()
	}
	switch r.Probe {
	case idEntry:
		j.entry(ctx, s, r)
	case idReturn, idDenied:
		j.back(ctx, s, r)
	case idWhole:
		j.whole(ctx, s, r)
	case addrspace.ID:
		if j.o.Spaces != nil {
			j.o.Spaces.Take(r, s.Time(r))
		}
	case idExit:
		j.exit(s, r)
	default:
		if r.Probe == idExec {
			j.forget(r.Word(0), r.Word(1))
			return
		}
		if isRingAnswer(r.Probe) {
			j.ringAnswer(ctx, s, r)
			return
		}
		if isRing(r.Probe) {
			j.rings.record(ctx, j, s, r)
			return
		}
		if isDoor(r.Probe) {
			j.door(ctx, s, r)
			return
		}
		if isTerminal(r.Probe) {
			j.terminals.record(ctx, j, s, r)
			return
		}
		j.probed(ctx, s, r)
	}
}

func (c *call) head(r *plugin.Record) {
	c.task, c.ids, c.nr, c.stamp, c.born = r.Word(wordTask), r.Word(wordIDs), r.Word(wordCall), r.Word(wordStamp), r.Word(wordBorn)
	c.vcpu = r.VCPU
}

func (j *joiner) entry(ctx context.Context, s origin, r *plugin.Record) {
	c := j.new()
	c.head(r)
	c.seen, c.entered = true, s.Time(r)
	c.lost, _ = s.Before()
	for i := range min(r.Words()-headWords, 6) {
		c.args[i] = r.Word(headWords + i)
	}
	if j.o.Answers && r.Words() > headWords+1 {
		c.asked, c.before = r.Word(r.Words()-2), r.Word(r.Words()-1)
	}
	c.add(r, false)
	c.process = j.who(ctx, c.task, c.born, c.ids)
	if old := j.pending[c.task]; old != nil {
		if !old.returned { // else only its end was not seen
			old.note = "its return was not seen"
		}
		j.done(old)
	}
	if k := j.kind(c.nr); k != nil && k.NoReturn {
		delete(j.pending, c.task)
		j.done(c)
		return
	}
	if len(j.pending) >= maxPending {
		for task, old := range j.pending { // any of them
			old.note = "too many calls are under way: its return is not waited for"
			delete(j.pending, task)
			j.done(old)
			break
		}
	}
	j.pending[c.task] = c
}

func (j *joiner) back(ctx context.Context, s origin, r *plugin.Record) {
	c := j.pending[r.Word(wordTask)]
	if c != nil && c.returned {
		j.done(c)
		delete(j.pending, c.task)
		c = nil
	}
	stamp := r.Word(wordStamp)
	_, lost := s.Before()
	// Where records were lost meanwhile, only the stamp proves that this is the return of that entry.
	unsure := c != nil && stamp != c.stamp && lost != c.lost
	if c != nil && (c.nr != r.Word(wordCall) && !j.bothExec(c.nr, r.Word(wordCall)) || c.born != r.Word(wordBorn) || unsure) {
		c.note = "its return was not seen"
		delete(j.pending, c.task)
		j.done(c)
		c = nil
	}
	if c == nil { // it began before the trace did
		c = j.new()
		c.head(r)
		c.note = "it began before the trace did"
		if lost > 0 {
			c.note = "its beginning was not seen"
		}
		c.process = j.who(ctx, c.task, c.born, c.ids)
	}
	delete(j.pending, c.task)
	c.returned, c.result, c.left = true, int64(r.Word(wordResult)), s.Time(r)
	c.vcpu = r.VCPU
	for i := headWords; i < r.Words(); i++ {
		c.words = append(c.words, r.Word(i))
	}
	if stamp == 0 || stamp == c.stamp || !c.seen {
		c.add(r, true)
	} else {
		c.note = "what it gave back was not read: its thread moved to another processor"
	}
	j.changed(c)
	if j.o.Answers && !c.failed() {
		j.pending[c.task] = c // what it wrote is read again at its end
		return
	}
	j.done(c)
}

// whole takes in a record that has all of a call.
func (j *joiner) whole(ctx context.Context, s origin, r *plugin.Record) {
	c := j.new()
	c.head(r)
	if old := j.pending[c.task]; old != nil {
		old.note = "its return was not seen"
		delete(j.pending, c.task)
		j.done(old)
	}
	c.seen, c.returned, c.result, c.left = true, true, int64(r.Word(wordResult)), s.Time(r)
	for i := range c.args {
		c.args[i] = r.Word(headWords + i)
	}
	c.entered = c.left
	if began := r.Word(wordBegan); began != 0 && began <= r.Ticks {
		c.entered = c.left.Add(-time.Duration(r.Ticks - began))
	}
	c.add(r, false)
	c.process = j.who(ctx, c.task, c.born, c.ids)
	j.changed(c)
	j.done(c)
}

// bothExec says that two numbers are those of running another program: one that is of the other ABI has its number in the saved
// registers (__set_personality_ia32, __set_personality_x64).
func (j *joiner) bothExec(a, b uint64) bool {
	x, y := j.kind(a), j.kind(b)
	return x != nil && y != nil && a>>32 != b>>32 && replaces(x.Name) && replaces(y.Name)
}

// changed forgets what a call has changed.
func (j *joiner) changed(c *call) {
	abi, n := c.nr>>32, c.nr&0xffffffff
	if k := j.kind(c.nr); j.life && k != nil && replaces(k.Name) {
		return // its door has said what it runs now
	}
	if c.result == 0 && abi <= 1 && n < uint64(len(j.changing[abi])) && j.changing[abi][n] {
		j.forget(c.task, c.ids)
	}
}

// forget has the process of a task read again.
func (j *joiner) forget(task, ids uint64) {
	j.processes.Forget(virt.Addr(task), int32(ids>>32))
	j.last.process = nil
}

// add keeps the items of a record. Those of a return come in place of what could not be read at the entry.
func (c *call) add(r *plugin.Record, again bool) {
	known := len(c.data)
	for items := r.Items(); ; {
		item, ok := items.Next()
		if !ok {
			return
		}
		if again && !c.better(item, known) {
			continue
		}
		from := len(c.bytes)
		c.bytes = append(c.bytes, item.Data...)
		c.data = append(c.data, piece{item.Tag, syscall.Status(item.Status), from, len(c.bytes)})
	}
}

// better says whether an item of a return is to be kept: if there is none of its tag, or one that
// could not be read, which is dropped.
func (c *call) better(item plugin.Item, known int) bool {
	unreadable := false
	for i := range c.data[:known] {
		if c.data[i].tag != item.Tag {
			continue
		}
		if c.data[i].status == syscall.Unreadable {
			unreadable = true
		}
	}
	has := false
	for i := range c.data[:known] {
		if c.data[i].tag == item.Tag {
			has = true
			if unreadable {
				c.data[i].tag = dropped
			}
		}
	}
	return !has || unreadable
}

// dropped is the tag of an item that another came for.
const dropped = 255

// pieces adds what was fetched of the arguments of a call, and of its socket: what else has a high tag is of something else, or was dropped.
func (c *call) pieces(to []syscall.Data) []syscall.Data {
	for _, p := range c.data {
		if p.tag < tagComm || p.tag == syscall.TagSocket {
			to = append(to, syscall.Data{Tag: p.tag, Status: p.status, Bytes: c.bytes[p.from:p.to]})
		}
	}
	return to
}

func (j *joiner) kind(nr uint64) *syscall.Call {
	abi, n := nr>>32, nr&0xffffffff
	if abi > 1 || n >= uint64(len(j.calls[abi])) {
		return nil
	}
	return j.calls[abi][n]
}

// done hands a call out, unless nobody asked for it.
func (j *joiner) done(c *call) {
	abi, n := c.nr>>32, c.nr&0xffffffff
	if abi <= 1 && j.asked[abi] != nil && (n >= uint64(len(j.asked[abi])) || !j.asked[abi][n]) {
		j.free = append(j.free, c)
		return
	}
	j.queue = append(j.queue, c)
}

// queued is the next call that is done; nil if there is none.
func (j *joiner) queued() *call {
	if j.handed != nil {
		j.free = append(j.free, j.handed)
		j.handed = nil
	}
	if j.next == len(j.queue) {
		return nil
	}
	c := j.queue[j.next]
	if j.next++; j.next == len(j.queue) {
		j.queue, j.next = j.queue[:0], 0
	}
	j.handed = c
	return c
}

func (j *joiner) fill(e *trace.Event, c *call) {
	if c.event != nil {
		*e = *c.event
		e.Lost, e.Guest = j.lost, j.clock.guest(e.Time)
		return
	}
	*e = trace.Event{
		Time: c.entered, Source: j.source, Kind: trace.KindSyscall, VCPU: c.vcpu, TID: int32(c.ids), Process: c.process,
		Note: c.note, Lost: j.lost, Return: c.result, Returned: c.returned, Fields: e.Fields[:0],
	}
	if e.Time.IsZero() {
		e.Time = c.left
	} else if c.returned {
		e.Duration = max(c.left.Sub(c.entered), 0)
	}
	e.Guest = j.clock.guest(e.Time)
	if e.Process == nil {
		e.Process = &trace.Process{PID: int32(c.ids >> 32), PPID: -1}
	}
	switch {
	case c.probe != nil:
		j.fillProbe(e, c)
		return
	case c.ring:
		j.fillRing(e, c)
		return
	case c.terminal != nil:
		j.terminals.fill(j, e, c)
		return
	}
	v := &j.values
	v.Args, v.Returned, v.Result, v.Data = c.args, c.returned, c.result, v.Data[:0]
	v.Data = c.pieces(v.Data)
	k := j.kind(c.nr)
	if k == nil {
		j.unknown(e, c)
		return
	}
	e.Name = k.NameOf(v)
	j.text = j.text[:0]
	args, result := 0, 0
	if c.seen {
		j.text = k.AppendArgs(j.text, v, syscall.Options{Limit: j.o.Limit})
		args = len(j.text)
	}
	if c.returned {
		j.text = k.AppendResult(j.text, v)
		result = len(j.text)
	}
	e.Args = view(j.text[:args])
	if c.returned {
		e.Result = view(j.text[args:result])
		setErrno(e, c.result)
	}
	if j.o.Fields && c.seen {
		e.Fields = k.Fields(v)
	}
}
