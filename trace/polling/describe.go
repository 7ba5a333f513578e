package polling

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/sched"
	"github.com/outsight-vmi/outsight/trace"
)

// describer reads what events say of processes, of those to which something happened.
type describer struct {
	l      *guest.Look
	p      *processes
	reader *linux.ProcessReader
}

func newDescriber(l *guest.Look, p *processes) *describer {
	reader := l.Linux.NewProcessReader()
	return &describer{l: l, p: p, reader: reader}
}

var (
	contextParts = []linux.Part{linux.PartName, linux.PartParent, linux.PartCredentials, linux.PartCgroup, linux.PartExecutable}
	programParts = append(slices.Clone(contextParts), linux.PartArguments)
)

// process is what is known of the process k, with its number alone where nothing else can be read;
// and, if ran, an event that says which program it runs: nil where that is not known.
func (d *describer) process(ctx context.Context, k *process, ran bool) (*trace.Process, *trace.Event) {
	s := k.Sign
	d.reader.Only(contextParts...)
	if ran {
		d.reader.Only(programParts...)
	}
	is := &trace.Process{PID: s.PID, PPID: -1, Started: s.Born}
	p, err := d.reader.Process(ctx, d.l.Linux.TaskAt(s.Task))
	if err != nil || p.PID != s.PID || p.SinceBoot != s.Born {
		return is, nil
	}
	k.kernel = p.KernelThread
	is.PPID, is.Comm, is.Exe, is.UID = p.PPID, strings.Clone(p.Comm), strings.Clone(p.Exe), p.Creds.UID
	is.Container = trace.ShortContainer(p.Container.ID)
	if parent := d.p.byPID(p.PPID); parent != nil {
		is.Parent = parent.Comm
	}
	if !ran || p.Exe == "" {
		return is, nil
	}
	e := &trace.Event{Kind: trace.KindExec, Process: is, TID: s.PID, Object: is.Exe}
	if p.ExeDeleted {
		e.Object += trace.Deleted
	}
	e.Run(p.Args)
	return is, e
}

// rights are those of the process of s.
func (d *describer) rights(ctx context.Context, s sched.Sign) trace.Rights {
	t := d.l.Linux.TaskAt(s.Task)
	c, err := d.reader.CredOf(t)
	if errors.Is(err, kobj.ErrUnsupported) { // users and groups are read by less
		d.reader.Only(linux.PartCredentials)
		p, err := d.reader.Process(ctx, t)
		if err != nil || p.PID != s.PID {
			return trace.Rights{}
		}
		return trace.Rights{Credentials: p.Creds, Known: true}
	}
	if err != nil || c.PID != s.PID {
		return trace.Rights{}
	}
	return trace.Rights{Credentials: c.Credentials, Caps: c.Caps, Known: true}
}

// credsEvent says what changed. ran says whether the process ran another program meanwhile.
func credsEvent(k *process, was, now trace.Rights, ran trace.Ran) trace.Event {
	e := trace.Event{Process: k.is, TID: k.PID}
	e.Change(was, now, ran)
	return e
}
