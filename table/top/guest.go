package top

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/mm"
	"github.com/outsight-vmi/outsight/linux/sched"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/text"
)

const (
	// keep is how long arguments and user are held to be what they were: they
	// seldom change but with the program, which is noticed at once.
	keep = 3 * time.Second
	// still is how long a process that did not run is held to be as it was. What can
	// change without it is its parent, when that ends, and memory that is taken from it.
	still = time.Second
	// maxCommand bounds what is kept of the arguments of one process, in bytes.
	maxCommand = 1024
	maxDetail  = 2000 // rows
)

// Guest is a [Source]: an opened guest.
type Guest struct {
	g    *guest.Guest
	boot int

	mu     sync.Mutex
	closed bool
	known  map[Key]*slow
}

// slow is what is read of a process now and then.
type slow struct {
	mm      uint64
	comm    string
	uid     table.Value
	command string
	swapped bool
	read    time.Time
	seen    time.Time

	// The process as it was last read, and its pulse just before.
	pulse linux.Pulse
	last  Process
	at    time.Time
}

// NewGuest watches g.
func NewGuest(g *guest.Guest) *Guest {
	return &Guest{g: g, boot: g.Boot(), known: map[Key]*slow{}}
}

// Live is part of [Source].
func (s *Guest) Live() bool { return s.g.Machine().Live() }

// Close ends the looking, and waits until nothing reads the guest any more. It does
// not close it.
func (s *Guest) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

var errClosed = errors.New("top: nothing is looked at any more")

// Sample is part of [Source].
func (s *Guest) Sample(ctx context.Context) (out *Sample, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	now := time.Now()
	look, err := s.g.Look(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("top: %w: %w", ErrEnded, err)
	}
	defer look.Close()
	if look.Boot != s.boot {
		return nil, fmt.Errorf("top: %w: it was rebooted", ErrEnded)
	}
	err = phys.Guard(func() (err error) {
		out, err = s.sample(ctx, look.Linux, now)
		return err
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if errors.Is(err, phys.ErrGone) {
		return nil, fmt.Errorf("top: %w: %w", ErrEnded, err)
	}
	return out, err
}

func (s *Guest) sample(ctx context.Context, l *linux.System, now time.Time) (*Sample, error) {
	gap := table.Missing(table.Unreadable)
	out := &Sample{At: now, Host: "?", Release: l.Release, Up: gap, Load: [3]table.Value{gap, gap, gap}, Threads: gap, Total: gap, Free: gap, CPUs: l.CPUs()}
	if name, err := l.Hostname(); err == nil {
		out.Host = name
	}
	if c, err := l.Clock(); err == nil {
		out.Up = table.DurationValue(c.Up)
	}
	if load, err := sched.ReadLoad(l); err == nil {
		for i, v := range load.Averages {
			out.Load[i] = table.FloatValue(v)
		}
		out.Threads = table.IntValue(load.Threads)
	}
	if m, err := mm.ReadRAM(l); err == nil {
		out.Total, out.Free = table.SizeValue(m.Total), table.SizeValue(m.Free)
	}
	lister := l.NewProcessReader()
	var first error
	for t, err := range l.Processes(ctx) {
		var p *linux.Process
		var pulse linux.Pulse
		if err == nil {
			pulse, _ = lister.Pulse(t) // what cannot be read has no pulse, and is reported by Brief
			if k := s.known[keyOf(t, pulse.PID, pulse.SinceBoot)]; k != nil && k.holds(pulse, now) {
				k.seen = now
				out.Processes = append(out.Processes, k.last)
				continue
			}
			p, err = lister.Brief(ctx, t)
		}
		if errors.Is(err, phys.ErrGone) {
			return nil, err
		}
		if err != nil {
			out.Unreadable++
			first = cmp.Or(first, err)
			continue
		}
		out.Processes = append(out.Processes, s.process(ctx, lister, p, pulse, now))
	}
	for k, v := range s.known {
		if v.seen != now {
			delete(s.known, k)
		}
	}
	if len(out.Processes) == 0 {
		if first == nil {
			first = errors.New("there are none")
		}
		return nil, fmt.Errorf("top: no process can be read: %w", first)
	}
	return out, nil
}

func keyOf(t linux.Task, pid int32, born time.Duration) Key { return Key{pid, uint64(t.Addr), born} }

// holds reports whether a process with that pulse is as it was when last read. Of one
// with several threads the first one's pulse does not show it.
func (k *slow) holds(pulse linux.Pulse, now time.Time) bool {
	return k.pulse == pulse && k.last.Threads == 1 && now.Sub(k.at) < still
}

// process is p with what is known of it from before, or read now.
func (s *Guest) process(ctx context.Context, l *linux.ProcessReader, p *linux.Process, pulse linux.Pulse, now time.Time) Process {
	none, gap := table.Missing(table.None), table.Missing(table.Unreadable)
	out := Process{
		Key: keyOf(p.Task, p.PID, p.SinceBoot), PID: p.PID, PPID: p.PPID, State: p.State, Threads: p.Threads,
		CPU: table.DurationValue(p.CPUTime), RSS: none, VSize: none, Comm: p.Comm, KernelThread: p.KernelThread,
	}
	if p.HasAddressSpace() {
		out.RSS, out.VSize = table.SizeValue(p.RSS), table.SizeValue(p.VSize)
	}
	for _, m := range p.Missing {
		switch m.Part {
		case linux.PartTime:
			out.CPU = gap
		case linux.PartResident:
			out.RSS = gap
		case linux.PartSize:
			out.VSize = gap
		case linux.PartMemory:
			out.RSS, out.VSize = gap, gap
		}
	}
	k := s.known[out.Key]
	if k == nil || k.mm != uint64(p.MM) || k.comm != p.Comm || now.Sub(k.read) >= keep {
		k = &slow{mm: uint64(p.MM), comm: p.Comm, uid: gap, read: now}
		if whole, err := l.Process(ctx, p.Task); err == nil {
			k.fill(whole)
		}
		s.known[out.Key] = k
	}
	k.seen = now
	out.UID, out.Command, out.Swapped = k.uid, k.command, k.swapped
	k.pulse, k.last, k.at = pulse, out, now
	return out
}

func (k *slow) fill(p *linux.Process) {
	k.uid = table.UintValue(uint64(p.Creds.EUID))
	for i, a := range p.Args {
		if i > 0 {
			k.command += " "
		}
		k.command += a[:min(len(a), maxCommand)]
		if len(k.command) > maxCommand {
			k.command = k.command[:maxCommand]
			break
		}
	}
	for _, m := range p.Missing {
		switch m.Part {
		case linux.PartCredentials:
			k.uid = table.Missing(table.Unreadable)
		case linux.PartArguments:
			k.swapped = true
		}
	}
}

// Detail is part of [Source].
func (s *Guest) Detail(ctx context.Context, view string, pid int32, width int) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := table.Lookup(view)
	if !ok {
		return []string{"no view " + text.Visible(view)}
	}
	if s.closed || ctx.Err() != nil {
		return nil
	}
	var b bytes.Buffer
	var report table.Report
	look, err := s.g.Look(ctx)
	if err == nil {
		defer look.Close()
		err = phys.Guard(func() error { return detail(ctx, v, look, pid, width, &b, &report) })
	}
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	for _, d := range report.Diagnostics(v) {
		lines = append(lines, text.Visible(d))
	}
	if err := cmp.Or(err, report.Err); err != nil {
		lines = append(lines, text.Visible(err.Error()))
	}
	return lines
}

func detail(ctx context.Context, v table.View, g *guest.Look, pid int32, width int, b *bytes.Buffer, report *table.Report) error {
	enc, err := table.NewEncoder(b, table.Table, v.Columns(), table.Options{Width: width})
	if err != nil {
		return err
	}
	shown, err := table.Select(v.Columns(), "", table.Table)
	if err != nil {
		return err
	}
	r := table.Request{Columns: shown, Where: []table.Constraint{{Column: "pid", Op: table.Equal, Values: []table.Value{table.IntValue(int64(pid))}}}}
	// What several processes can hold at once has a list of them instead.
	holders := table.ColumnIndex(v.Columns(), "pids")
	if holders >= 0 {
		r = table.Request{Columns: shown.With(holders)}
	}
	number, n := strconv.Itoa(int(pid)), 0
	for row := range table.Rows(ctx, v, g, r, report) {
		if holders >= 0 && !slices.Contains(row[holders].List(), number) {
			continue
		}
		if n++; n > maxDetail {
			break
		}
		if err := enc.Row(row); err != nil {
			return err
		}
	}
	if err := enc.Close(); err != nil {
		return err
	}
	if n == 0 {
		fmt.Fprintf(b, "no %s\n", v.Name())
	}
	if n > maxDetail {
		fmt.Fprintf(b, "more than %d: see outsight %s --pid %d\n", maxDetail, v.Name(), pid)
	}
	return nil
}
