// Package tcg is the source of events that sees everything: system calls of a guest that QEMU translates (TCG), by
// outsight's plugin in that QEMU. It compiles what is asked for into programs of probes, from the symbols and types of the guest's
// kernel, and makes events of what they fetch.
package tcg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/addrspace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/vm"
)

// Options say what to trace. The zero value is every system call of every process.
type Options struct {
	Calls  []string // names of system calls; nil: all; empty: none
	Probes []string // "FUNCTION[+OFFSET|%return] [LABEL=]ARG …": see [ParseProbe]
	Writes []string // "ADDRESS|SYMBOL[:BYTES]": who stores there
	PIDs   []int32  // of processes, in the initial PID namespace; nil: all
	Limit  int      // most bytes of a buffer or string that is data, as strace's -s; 0: 32
	Fields bool     // fill [trace.Event.Fields]
	Hold   Hold     // makes the guest wait for decisions
	// IOURing adds operations of io_uring, as events of [trace.KindIOURing], on Linux 6.0 and later. With Calls that are nil
	// (everything), they are left out on a kernel where they cannot be seen; else that is an error.
	IOURing bool
	// Terminals adds what is typed and shown at terminals, as events of [trace.KindTerminal]; PIDs do not
	// restrict it.
	Terminals bool
	// Kinds are events of the kernel's own functions, whoever asked for it: see [KindsOf]. Calls are left empty; PIDs
	// do not restrict them.
	Kinds []trace.Kind
	// Answers asks for what programs are told, by [Stream.NextAnswer]: directories, some files of /proc, netlink and
	// bpf(2). Calls, Probes and Writes are left empty.
	Answers bool
	// Spaces is a watch over address spaces beside; nil: none.
	Spaces *addrspace.Watch
	Ring   uint64 // bytes of each vCPU's ring, a power of two; 0: 32 MiB
}

// ErrNoPlugin says that a machine was started without the plugin.
var ErrNoPlugin = errors.New("the machine runs without outsight's plugin")

// Available says whether a machine can be traced so: nil, or why not and what to do.
func Available(m *vm.Machine) error {
	switch {
	case !m.Live():
		return &vm.Error{Kind: vm.ErrNotVM, What: "trace " + m.Title(), Why: "a dump stands still: nothing happens in it", Do: "trace a machine that runs"}
	case m.Plugin == "":
		return &vm.Error{
			Kind: vm.ErrUnsupported, What: "trace " + m.Title(), Err: ErrNoPlugin, Why: ErrNoPlugin.Error(),
			Do: "write it out (outsight plugin install) and start QEMU with -accel tcg and the -plugin line that this prints; a lab guest with outsight lab up --trace",
		}
	}
	return nil
}

// Stream is system calls as they return. It is a [trace.Stream].
type Stream struct {
	g       *guest.Guest
	o       Options
	client  *plugin.Client
	records *plugin.Stream
	join    joiner
	boot    int
	nested  bool // the probes mind that the guest runs guests
	checked time.Time
	taken   uint
	held    trace.Event
}

// Start begins to trace.
func Start(ctx context.Context, g *guest.Guest, o Options) (s *Stream, err error) {
	if err := Available(g.Machine()); err != nil {
		return nil, err
	}
	if o.Limit <= 0 {
		o.Limit = 32
	}
	if err := o.Hold.check(); err != nil {
		return nil, err
	}
	s = &Stream{g: g, o: o}
	s.join.init(g, o)
	l, err := g.Look(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	// What cannot be traced is said also where another monitor has the plugin.
	p, err := s.compile(ctx, l)
	if err != nil {
		return nil, err
	}
	made := s // what is returned with an error is nil
	if s.client, err = plugin.Dial(ctx, g.Machine().Plugin); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			made.Close()
		}
	}()
	if err := s.start(ctx, l, p); err != nil {
		return nil, err
	}
	return s, nil
}

// install puts the probes in that fit the kernel of a look.
func (s *Stream) install(ctx context.Context, l *guest.Look) error {
	p, err := s.compile(ctx, l)
	if err != nil {
		return err
	}
	return s.start(ctx, l, p)
}

// asked is what is to be traced, for the kernel of a look.
type asked struct {
	*compiler
	calls  []string
	probes []*userProbe
}

// compile finds in the kernel of a look what is asked for. It needs no plugin.
func (s *Stream) compile(ctx context.Context, l *guest.Look) (*asked, error) {
	c := &compiler{Assembler: &plugin.Assembler{}, limit: uint32(s.o.Limit), hold: &s.o.Hold}
	var err error
	if c.o, err = layoutOf(ctx, l); err != nil {
		return nil, fmt.Errorf("trace system calls: %w", err)
	}
	c.calls = callsOf(ctx, l)
	c.refusable = refusableCalls(c.calls)
	s.join.refusable = c.refusable
	calls := s.o.Calls
	if s.o.Answers {
		calls = answerCalls
		if c.files, err = fileLayoutOf(l.Linux); err != nil {
			return nil, fmt.Errorf("listen to what programs are told: %w", err)
		}
	} else {
		c.sockets, _ = fileLayoutOf(l.Linux) // without it, messages of netlink are bytes
	}
	if err := s.join.want(c, calls); err != nil {
		return nil, err
	}
	if s.o.Answers {
		c.onlyAnswers()
	}
	for _, pid := range s.o.PIDs {
		c.pids = append(c.pids, uint32(pid))
	}
	var probes []*userProbe
	for _, text := range s.o.Probes {
		p, err := parseProbe(l, text)
		if err != nil {
			return nil, err
		}
		probes = append(probes, p)
	}
	for _, text := range s.o.Writes {
		p, err := parseWrite(l, text)
		if err != nil {
			return nil, err
		}
		probes = append(probes, p)
	}
	if err := s.setFiles(ctx, l, probes); err != nil {
		return nil, err
	}
	return &asked{c, calls, probes}, nil
}

// start makes programs of what was found, and has the plugin run them.
func (s *Stream) start(ctx context.Context, l *guest.Look, p *asked) (err error) {
	c, calls, probes := p.compiler, p.calls, p.probes
	c.gates = s.client.Hello.Gates
	withCalls := c.keep[abi64] == nil || len(calls) > 0 || len(s.o.Hold.Calls) > 0 || len(probes) == 0 && !s.o.Terminals && !s.o.IOURing && s.o.Kinds == nil
	if withCalls {
		c.program()
	}
	if s.o.Terminals {
		at, err := terminalsOf(l)
		if err != nil {
			return err
		}
		c.terminals(at)
		s.join.terminals.at = at
	}
	if s.o.IOURing {
		at, err := ringsOf(l)
		switch {
		case err == nil:
			c.rings(at)
		case calls != nil:
			return err
		}
	}
	if s.o.Answers {
		s.ringAnswers(l, c)
	}
	for i, p := range probes {
		c.probe(i, p)
	}
	if s.o.Kinds != nil {
		s.join.mounts.begin(ctx, l.Linux)
	}
	if err = c.doors(l.Linux, s.o.Kinds); err != nil && s.o.Kinds != nil {
		return err
	}
	if s.join.life = err == nil && hasLife(l.Linux); !s.join.life {
		c.execs(l.Linux)
	}
	if s.o.Spaces != nil {
		if err := s.o.Spaces.Program(ctx, c.Assembler, l); err != nil {
			return err
		}
	}
	ws, linears := windows(l)
	for _, l := range linears {
		c.Linear(l)
	}
	records, err := s.client.Start(ctx, c.Assembler, plugin.Options{Ring: s.o.Ring, Windows: ws, Spin: s.o.Hold.spin()})
	if err != nil {
		return fmt.Errorf("trace system calls: %w", err)
	}
	if s.records != nil {
		if l.Boot == s.boot {
			s.drain(ctx)
		}
		s.join.lost += s.records.Lost()
		s.records.Close()
	}
	s.join.use(l, probes, s.o.Kinds)
	s.records, s.boot, s.nested, s.checked = records, l.Boot, c.o.nested, time.Now()
	s.join.clock.learn(l)
	return nil
}

// ringAnswers adds answers by io_uring, where its operations can be seen (Linux 6.0 and later).
func (s *Stream) ringAnswers(l *guest.Look, c *compiler) {
	at, err := ringsOf(l)
	if err != nil {
		return
	}
	if o, err := ringAnswerLayoutOf(l); err == nil {
		c.ringAnswers(at, o)
	}
}

// internal are calls that are always watched: what is known of a process changes by them.
var internal = []string{"execve", "execveat", "prctl", "setuid", "setreuid", "setresuid"}

// want sets which numbers the plugin is to keep, and which become events.
func (j *joiner) want(c *compiler, names []string) error {
	j.calls = c.calls
	for abi, calls := range c.calls {
		j.changing[abi] = make([]bool, len(calls))
		for n, call := range calls {
			j.changing[abi][n] = call != nil && slices.Contains(internal, call.Name)
		}
	}
	if names == nil {
		return nil
	}
	asked := map[string]bool{}
	for _, n := range names {
		asked[n] = false
	}
	kept := map[string]bool{} // true: nobody asked for them
	for _, n := range internal {
		kept[n] = true
	}
	for _, n := range j.o.Hold.Calls {
		kept[n] = false
	}
	for abi := range c.calls {
		j.asked[abi] = make([]bool, len(c.calls[abi]))
		c.keep[abi] = []uint32{}
		for n, call := range c.calls[abi] {
			if call == nil {
				continue
			}
			if _, ok := asked[call.Name]; ok {
				asked[call.Name], j.asked[abi][n] = true, true
			}
			aside, ok := kept[call.Name]
			if !j.asked[abi][n] && !ok {
				c.calls[abi][n] = nil // no code for it
				continue
			}
			c.keep[abi] = append(c.keep[abi], uint32(n))
			if aside && !j.asked[abi][n] {
				c.aside[abi] = append(c.aside[abi], uint32(n))
			}
		}
	}
	for n, found := range asked {
		if !found {
			return fmt.Errorf("unknown system call %q: outsight syscalls lists those of a guest", n)
		}
	}
	return nil
}

// Next implements [trace.Stream].
func (s *Stream) Next(ctx context.Context, e *trace.Event) error {
	c, err := s.next(ctx)
	if err == nil {
		s.join.fill(e, c)
		e.Lost += s.records.LostBefore()
	}
	return err
}

// next waits for the next call that is done. It is valid until the next one.
func (s *Stream) next(ctx context.Context) (*call, error) {
	for {
		if c := s.join.queued(); c != nil {
			return c, nil
		}
		if err := s.more(ctx); err != nil {
			return nil, err
		}
	}
}

// more takes in records until a call may be done.
func (s *Stream) more(ctx context.Context) error {
	var rec plugin.Record
	for s.join.next == len(s.join.queue) {
		err := s.records.Wait(ctx, &rec, s.patience())
		switch {
		case err == nil:
			s.join.take(ctx, s.records, &rec)
			if rec.Flags&plugin.Waits != 0 {
				if err := s.decide(ctx, &rec); err != nil {
					return err
				}
			}
		case errors.Is(err, plugin.ErrGone):
			return trace.ErrEnded
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, plugin.ErrIdle):
			return err
		}
		// The clock is looked at now and then only: it takes as long as a record.
		if s.taken++; (err != nil || s.taken%512 == 0) && time.Since(s.checked) > s.patience() {
			if err := s.check(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkEvery is how often it is asked whether the guest has booted again.
const checkEvery = 2 * time.Second

// check puts new probes in if another kernel runs.
func (s *Stream) check(ctx context.Context) error {
	s.checked = time.Now()
	s.join.last.process = nil
	l, err := s.g.Look(ctx)
	if err != nil {
		if errors.Is(err, vm.ErrGone) {
			return trace.ErrEnded
		}
		return nil // it boots, or is paused: later
	}
	defer l.Close()
	if l.Boot == s.boot && s.nested == runsGuests(ctx, l.Linux) {
		s.join.clock.learn(l)
		if s.join.moved(ctx, l) {
			return s.install(ctx, l)
		}
		return nil
	}
	s.join.booted()
	return s.install(ctx, l)
}

// Lost implements [trace.Stream].
func (s *Stream) Lost() uint64 { return s.join.lost + s.records.Lost() }

// Overdue is how many held calls went on before anybody decided.
func (s *Stream) Overdue() uint64 { return s.records.Overdue() }

// Waited is how long the last call that was held on a virtual CPU waited for its decision, by the plugin's clock.
func (s *Stream) Waited(vcpu int) time.Duration { return s.records.Waited(vcpu) }

// Close implements [trace.Stream]. The guest runs at full speed again.
func (s *Stream) Close() error {
	err := s.client.Close()
	if s.records != nil {
		s.records.Close()
	}
	return err
}

var _ trace.Stream = (*Stream)(nil)

// callsOf are the system calls of a guest, by ABI and number: those that are known, and what its kernel notes
// beyond.
func callsOf(ctx context.Context, l *guest.Look) (calls [2][]*syscall.Call) {
	calls[abi64] = append(calls[abi64], syscall.Table(syscall.ABI64)...)
	calls[abi32] = append(calls[abi32], syscall.Table(syscall.ABI32)...)
	noted, _ := hooks.Signatures(ctx, l.Linux) // without them, calls that are not known are shown by number
	for n, s := range noted {
		if s == nil || n >= maxNumber {
			continue
		}
		for len(calls[abi64]) <= n {
			calls[abi64] = append(calls[abi64], nil)
		}
		if calls[abi64][n] == nil {
			calls[abi64][n] = syscall.FromSignature(n, syscall.Signature{Name: s.Name, Types: s.Types, Args: s.Args})
		}
	}
	return calls
}
