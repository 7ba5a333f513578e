package tcg

import (
	"context"
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
)

// Records are where a [Decoder] gets records from: what it has to know beside them.
type Records = origin

// What records for a [Decoder] are made of: a system call's begins with the words of its task (address of the task_struct), its IDs (PID << 32 | TID), its
// number and ABI (<< 32), a stamp that its entry and its return have in common, the start of the task, and the result.
// Those of an entry are followed by six arguments.
const (
	EntryID  = idEntry
	ReturnID = idReturn
	// WholeID marks a return that has six arguments and the time of the entry (0: unknown) too, of a call that has no record of its entry. Times are in
	// nanoseconds.
	WholeID    = idWhole
	WholeWords = wordBegan + 1
	CallWords  = headWords
	DoorWords  = probeWords // of a door: task, IDs, 0, start of the task; then its parent's PID and its user
	TagComm    = tagComm
	TagPath    = tagPath
	TagWhole   = tagWhole
)

// wordBegan is the word of [WholeID] that has the time of the entry.
const wordBegan = headWords + 6

// Slots of the programs that [Calls] gives.
const (
	SlotArgs   = sArgs // and the next five
	SlotResult = sResult
)

// Calls are the system calls of a guest, and what is to be fetched of each.
type Calls struct {
	c     *compiler
	names []string
}

// CallsOf finds the system calls of a guest that are asked for by name; nil: all. Those by which what is known of a process changes are added.
// Of strings and buffers at most limit bytes are fetched.
func CallsOf(ctx context.Context, l *guest.Look, names []string, limit int) (*Calls, error) {
	return newCalls(callsOf(ctx, l), names, limit)
}

// KnownCalls are those of any guest: without what its kernel notes of its own.
func KnownCalls(names []string, limit int) (*Calls, error) {
	return newCalls([2][]*syscall.Call{slices.Clone(syscall.Table(syscall.ABI64)), slices.Clone(syscall.Table(syscall.ABI32))}, names, limit)
}

func newCalls(calls [2][]*syscall.Call, names []string, limit int) (*Calls, error) {
	c := &compiler{Assembler: &plugin.Assembler{}, limit: uint32(limit), hold: &Hold{}, calls: calls}
	var j joiner
	if err := j.want(c, names); err != nil {
		return nil, err
	}
	return &Calls{c, names}, nil
}

// Numbers are the numbers of an ABI's calls, in ascending order.
func (cs *Calls) Numbers(abi syscall.ABI) (ns []uint32) {
	for n, call := range cs.c.calls[abi] {
		if call != nil {
			ns = append(ns, uint32(n))
		}
	}
	return ns
}

// Name is the name of a call.
func (cs *Calls) Name(abi syscall.ABI, number uint32) string { return cs.c.calls[abi][number].Name }

// Returns says whether a call returns.
func (cs *Calls) Returns(abi syscall.ABI, number uint32) bool {
	return !cs.c.calls[abi][number].NoReturn
}

// Entry is the program that fetches what a call's arguments lead to before it is done.
func (cs *Calls) Entry(abi syscall.ABI, number uint32) ([]plugin.Instruction, error) {
	return cs.program(func(c *compiler) {
		c.fetch(int(abi), int(number))
		c.fetchStack(int(abi), int(number))
	})
}

// Again is the program that fetches when a call returns what could not be read before. It has nothing for one that replaces the memory of
// its process.
func (cs *Calls) Again(abi syscall.ABI, number uint32) ([]plugin.Instruction, error) {
	if replaces(cs.Name(abi, number)) {
		return nil, nil
	}
	return cs.program(func(c *compiler) { c.fetch(int(abi), int(number)) })
}

// Return is the program that fetches what a call has given back.
func (cs *Calls) Return(abi syscall.ABI, number uint32) ([]plugin.Instruction, error) {
	return cs.program(func(c *compiler) { c.fetchGiven(int(abi), int(number)) })
}

func (cs *Calls) program(write func(*compiler)) ([]plugin.Instruction, error) {
	c := *cs.c
	c.Assembler = &plugin.Assembler{}
	write(&c)
	return c.Instructions()
}

// DoorID marks the records of a kind of event that is complete by itself: fork, exec, exit, module and unload.
func DoorID(kind trace.Kind) uint16 {
	return uint16(idDoor + slices.IndexFunc(doors, func(d door) bool { return d.kind == kind && d.main }))
}

// Decoder makes events of records that something else than the plugin made, in the same form. All processes introduce themselves in
// them, where they begin and where they run a program.
type Decoder struct{ join joiner }

// NewDecoder makes events from a source of a guest's calls and kinds of events.
func NewDecoder(g *guest.Guest, from trace.Source, limit int, fields bool) *Decoder {
	d := &Decoder{}
	d.join.init(g, Options{Limit: limit, Fields: fields})
	d.join.source, d.join.life = from, true
	return d
}

// Use says which records come from now on, for the kernel of a look.
func (d *Decoder) Use(ctx context.Context, l *guest.Look, calls *Calls, kinds []trace.Kind, tracepoints ...*Tracepoint) error {
	c := &compiler{Assembler: &plugin.Assembler{}}
	c.calls = callsOf(ctx, l)
	if err := d.join.want(c, calls.names); err != nil {
		return fmt.Errorf("decode system calls: %w", err)
	}
	var probes []*userProbe
	for _, t := range tracepoints {
		probes = append(probes, t.probe)
	}
	d.join.use(l, probes, kinds)
	d.join.mounts.begin(ctx, l.Linux)
	d.Learn(l)
	return nil
}

// Learn takes in what the guest's clock says at a look.
func (d *Decoder) Learn(l *guest.Look) { d.join.clock.learn(l) }

// Booted forgets what was under way in the last boot.
func (d *Decoder) Booted() { d.join.booted() }

// Take takes in a record. Events that it completes are what [Decoder.Next] returns, until it has none.
func (d *Decoder) Take(ctx context.Context, s Records, r *plugin.Record) { d.join.take(ctx, s, r) }

// Next writes the next event that is complete into e, if there is one. It is valid until the next call.
func (d *Decoder) Next(e *trace.Event) bool {
	c := d.join.queued()
	if c == nil {
		return false
	}
	d.join.fill(e, c)
	return true
}

// All says whether every call was asked for, also those that are not known.
func (cs *Calls) All() bool { return cs.names == nil }
