package addrspace

import (
	"context"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/virt"
)

var kinds = map[int]trace.Kind{Created: trace.KindSpaceCreate, Switched: trace.KindSpaceSwitch, Ended: trace.KindSpaceExit}

// fill makes an event of a change.
func (s *Stream) fill(ctx context.Context, e *trace.Event, c *Change) {
	p := c.Space
	*e = trace.Event{
		Time: c.At, Source: trace.FromPlugin, Kind: kinds[c.What], VCPU: c.VCPU, TID: p.Owner.TID,
		Process: s.process(ctx, p), Object: fmt.Sprintf("%#x", p.Root), Lost: s.Lost(), Fields: e.Fields[:0],
	}
	if c.What == Ended {
		e.Duration = c.At.Sub(p.Seen)
		e.Args = fmt.Sprintf("cpu=%v turns=%d", p.CPU.Round(time.Microsecond), p.Turns)
		if p.Existed {
			e.Duration = 0 // it is older than the trace
		}
		delete(s.procs, p)
	}
	if c.Late {
		e.Note = "its end was not seen: its page tables are gone, or another's"
	}
	if s.o.Fields {
		e.Fields = append(e.Fields, "root="+e.Object)
		if c.What == Ended {
			e.Fields = append(e.Fields, fmt.Sprintf("cpu=%.6f", p.CPU.Seconds()), fmt.Sprintf("turns=%d", p.Turns))
		}
	}
}

// process is what is known of the owner of a space: what the record said, and what can be read if it is still there.
func (s *Stream) process(ctx context.Context, p *Space) *trace.Process {
	o := p.Owner
	if !o.Known() {
		return nil
	}
	if known := s.procs[p]; known != nil && known.PID == o.PID && known.Comm == o.Comm {
		return known
	}
	known := &trace.Process{PID: o.PID, PPID: o.PPID, UID: o.UID, Comm: o.Comm, Started: time.Duration(o.Started)}
	if s.people != nil {
		if read := s.people.Born(ctx, virt.Addr(o.Task), o.Started, o.PID); read != nil && read.PID == o.PID {
			more := *read
			more.Comm = o.Comm
			known = &more
		}
	}
	if len(s.procs) < maxSpaces {
		s.procs[p] = known
	}
	return known
}
