package addrspace

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/vm"
)

// Options say what to trace.
type Options struct {
	Switches bool   // an event for each time that a processor goes on with another address space, too
	Fields   bool   // fill [trace.Event.Fields]
	Ring     uint64 // bytes of each vCPU's ring, a power of two; 0: 32 MiB
	// Guest is the machine's guest, if its kernel is known; nil: nothing is known of it.
	Guest *guest.Guest
	// Identify is asked now and then for the guest while there is none. It may be nil. The stream does not close what it gets.
	Identify func(ctx context.Context) (*guest.Guest, error)
}

// Stream is address spaces as they come, run and go. It is a [trace.Stream].
type Stream struct {
	m       *vm.Machine
	o       Options
	g       *guest.Guest
	track   *Tracker
	client  *plugin.Client
	records *plugin.Stream
	rec     plugin.Record
	old     []*plugin.Stream // whose last records are still to be read
	boot    int
	checked time.Time
	taken   uint
	lost    uint64
	found   chan *guest.Guest // nil unless it is looked for
	stop    context.CancelFunc
	unnamed *guest.Guest // it was found, and cannot be looked at yet
	procs   map[*Space]*trace.Process
	people  *trace.Processes
}

// Start begins to trace a machine that has outsight's plugin.
func Start(ctx context.Context, m *vm.Machine, o Options) (s *Stream, err error) {
	s = &Stream{m: m, o: o, track: NewTracker(), procs: map[*Space]*trace.Process{}}
	s.track.Switches = o.Switches
	made := s // what is returned with an error is nil
	if s.client, err = plugin.Dial(ctx, m.Plugin); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			made.Close()
		}
	}()
	if err := s.existing(ctx); err != nil {
		return nil, err
	}
	var l *guest.Look
	if o.Guest != nil {
		if l, err = o.Guest.Look(ctx); err != nil {
			return nil, err
		}
		defer l.Close()
	}
	if err := s.install(ctx, o.Guest, l); err != nil {
		return nil, err
	}
	return s, nil
}

// existing finds the address spaces that there are already. Without its monitor's registers all seem to be new.
func (s *Stream) existing(ctx context.Context) error {
	reader := s.m.Control.Registers
	if reader == nil {
		return nil
	}
	registers, err := reader.Registers(ctx)
	if err != nil {
		return ctx.Err()
	}
	var cr3 []uint64
	for _, r := range registers {
		if r.CR0>>31 != 0 && r.CR4&(1<<5) != 0 && r.CR3 != 0 { // paging, with PAE: long mode, else nothing is found
			cr3 = append(cr3, r.CR3)
		}
	}
	return s.track.Existing(ctx, s.m.Memory, cr3, time.Now())
}

// install puts probes in: with l, such that name owners.
func (s *Stream) install(ctx context.Context, g *guest.Guest, l *guest.Look) error {
	a := &plugin.Assembler{}
	machine := s.m
	var owners *Owners
	if l != nil {
		var err error
		if owners, err = OwnersOf(l); err != nil {
			return err
		}
		machine = l.Machine
	}
	Probes(a, machine.Memory, owners)
	if owners != nil {
		a.Linear(plugin.Linear{Address: owners.direct, Size: end(machine.Memory)})
	}
	records, err := s.client.Start(ctx, a, plugin.Options{Ring: s.o.Ring, Windows: Windows(machine.Memory)})
	if err != nil {
		return fmt.Errorf("trace address spaces: %w", err)
	}
	if s.records != nil {
		s.old = append(s.old, s.records)
	}
	s.records, s.checked = records, time.Now()
	if l == nil {
		return nil
	}
	s.g, s.boot, s.track.Owners = g, l.Boot, true
	if s.people == nil {
		s.people = trace.NewProcesses(g)
	}
	listed, err := owners.Listed(ctx, l.Linux)
	if err != nil {
		return nil //nolint:nilerr // they are named as they run
	}
	s.track.Name(listed)
	return nil
}

// Name gives owners to spaces that have none.
func (t *Tracker) Name(owners map[uint64]Owner) {
	for root, o := range owners {
		if s := t.spaces[root]; s != nil && !s.Owner.Known() {
			s.Owner = o
		}
	}
}

func end(m phys.Memory) uint64 {
	ranges := m.Ranges()
	if len(ranges) == 0 {
		return 0
	}
	return uint64(ranges[len(ranges)-1].End)
}

// Windows are what programs read guest-physical memory through.
func Windows(m phys.Memory) (ws []plugin.Window) {
	hosted, ok := phys.As[phys.Hosted](m)
	if !ok {
		return nil
	}
	var first phys.Host
	for i, h := range hosted.Hosts() {
		if i == 0 {
			first = h
		}
		// Memory that was plugged in can be unplugged, and its mapping goes with it. What QEMU's process has in one
		// piece from its start on, the machine was made with. A file stays mapped by the plugin itself.
		if h.File == nil && !continues(first, h) || len(ws) == 32 {
			continue
		}
		ws = append(ws, plugin.Window{Range: h.Range, File: h.File, Host: h.Offset})
	}
	return ws
}

// continues says whether h continues first in the monitor's address space: RAM that was split in guest-physical
// addresses alone, at the hole below 4 GiB.
func continues(first, h phys.Host) bool {
	return h.Start == first.Start || h.Offset == first.Offset+first.Size()
}

// checkEvery is how often tables are looked at, and whether the guest has booted again.
const checkEvery = time.Second

// Next implements [trace.Stream].
func (s *Stream) Next(ctx context.Context, e *trace.Event) error {
	for {
		if c, ok := s.track.Next(); ok {
			s.fill(ctx, e, &c)
			return nil
		}
		if err := s.next(ctx); err != nil {
			return err
		}
	}
}

// next takes in one more record, if there is one soon.
func (s *Stream) next(ctx context.Context) error {
	if len(s.old) > 0 {
		return s.rest(ctx)
	}
	err := s.records.Wait(ctx, &s.rec, checkEvery/4)
	switch {
	case err == nil:
		s.track.Take(&s.rec, s.records.Time(&s.rec))
	case errors.Is(err, plugin.ErrGone):
		return trace.ErrEnded
	case ctx.Err() != nil:
		return ctx.Err()
	case !errors.Is(err, plugin.ErrIdle):
		return err
	}
	// The clock is looked at now and then only: it takes as long as a record.
	if s.taken++; (err != nil || s.taken%512 == 0) && time.Since(s.checked) > checkEvery {
		return s.check(ctx)
	}
	return nil
}

// rest reads what an earlier program's rings still have.
func (s *Stream) rest(ctx context.Context) error {
	old := s.old[0]
	err := old.Wait(ctx, &s.rec, time.Millisecond)
	if err == nil {
		s.track.Take(&s.rec, old.Time(&s.rec))
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.lost += old.Lost()
	old.Close()
	s.old = s.old[1:]
	return nil
}

func (s *Stream) check(ctx context.Context) error {
	s.checked = time.Now()
	s.track.Sweep(s.memory(), s.checked)
	if s.g == nil {
		return s.identify(ctx)
	}
	l, err := s.g.Look(ctx)
	if err != nil {
		if errors.Is(err, vm.ErrGone) {
			return trace.ErrEnded
		}
		return nil // it boots, or is paused: later
	}
	defer l.Close()
	if l.Boot == s.boot {
		return nil
	}
	return s.install(ctx, s.g, l)
}

func (s *Stream) memory() phys.Memory {
	if s.g != nil {
		return s.g.Machine().Memory
	}
	return s.m.Memory
}

// identify takes in the guest when it is known.
func (s *Stream) identify(ctx context.Context) error {
	if s.o.Identify == nil {
		return nil
	}
	if s.unnamed == nil && s.found == nil {
		var looking context.Context
		looking, s.stop = context.WithCancel(ctx)
		s.found = make(chan *guest.Guest, 1)
		go func(found chan<- *guest.Guest) {
			g, err := s.o.Identify(looking)
			if err != nil {
				g = nil
			}
			found <- g
		}(s.found)
		return nil
	}
	if s.unnamed == nil {
		select {
		case s.unnamed = <-s.found:
			s.stop()
			s.found = nil
		default:
		}
	}
	if s.unnamed == nil {
		return nil
	}
	l, err := s.unnamed.Look(ctx)
	if err != nil {
		return nil // it boots again
	}
	defer l.Close()
	return s.install(ctx, s.unnamed, l)
}

// Summary returns what ran so far.
func (s *Stream) Summary() Summary { return s.track.Summary() }

// Lost implements [trace.Stream].
func (s *Stream) Lost() (n uint64) {
	for _, old := range s.old {
		n += old.Lost()
	}
	return n + s.lost + s.records.Lost()
}

// Close implements [trace.Stream]. The guest runs at full speed again.
func (s *Stream) Close() error {
	if s.found != nil {
		s.stop()
		<-s.found
	}
	err := s.client.Close()
	for _, r := range append(s.old, s.records) {
		if r != nil {
			r.Close()
		}
	}
	return err
}

var _ trace.Stream = (*Stream)(nil)
