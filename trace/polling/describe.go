package polling

import (
	"context"
	"errors"
	"fmt"
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

// maxArgs bounds the arguments of an event, in bytes.
const maxArgs = 4096

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
	e := &trace.Event{Kind: trace.KindExec, Process: is, TID: s.PID, Object: is.Exe, Args: commandLine(p.Args)}
	if p.ExeDeleted {
		e.Object += trace.Deleted
	}
	size := 0
	for i, a := range p.Args {
		if size += len(a); size > maxArgs {
			break
		}
		e.Fields = append(e.Fields, fmt.Sprintf("argv%d=%s", i, a))
	}
	return is, e
}

// commandLine is arguments as one types them into a shell.
func commandLine(args []string) string {
	var b strings.Builder
	for i, a := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		if b.Len()+len(a) > maxArgs {
			b.WriteString("…")
			break
		}
		const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-=+,@%^"
		if a != "" && strings.Trim(a, plain) == "" {
			b.WriteString(a)
			continue
		}
		b.WriteString("'" + strings.ReplaceAll(a, "'", `'\''`) + "'")
	}
	return strings.Clone(b.String())
}

// rights are those of the process of s.
func (d *describer) rights(ctx context.Context, s sched.Sign) rights {
	t := d.l.Linux.TaskAt(s.Task)
	c, err := d.reader.CredOf(t)
	if errors.Is(err, kobj.ErrUnsupported) { // users and groups are read by less
		d.reader.Only(linux.PartCredentials)
		p, err := d.reader.Process(ctx, t)
		if err != nil || p.PID != s.PID {
			return rights{}
		}
		return rights{Credentials: p.Creds, known: true}
	}
	if err != nil || c.PID != s.PID {
		return rights{}
	}
	return rights{Credentials: c.Credentials, caps: c.Caps, known: true}
}

const capSetUID = 1 << 7

// mayBecomeRoot reports whether a process with these may make itself root.
func (c rights) mayBecomeRoot() bool {
	return c.UID == 0 || c.EUID == 0 || c.SUID == 0 || c.FSUID == 0 || (c.caps.Permitted|c.caps.Effective)&capSetUID != 0
}

// rootBy reports whether c are root's, and a process with before could not have become that.
func (c rights) rootBy(before rights) bool {
	return c.known && before.known && c.EUID == 0 && c.UserNS == before.UserNS && !before.mayBecomeRoot()
}

// credsEvent says what changed. ran says that the process ran another program meanwhile, which a
// set-user-ID file lets become root.
func credsEvent(k *process, was, now rights, ran bool) trace.Event {
	e := trace.Event{Kind: trace.KindCreds, Process: k.is, TID: k.PID}
	var parts []string
	id := func(name string, was, now uint32) {
		if was != now {
			parts = append(parts, fmt.Sprintf("%s %d → %d", name, was, now))
			e.Fields = append(e.Fields, fmt.Sprintf("%s=%d", name, now))
		}
	}
	id("uid", was.UID, now.UID)
	id("euid", was.EUID, now.EUID)
	id("suid", was.SUID, now.SUID)
	id("fsuid", was.FSUID, now.FSUID)
	id("gid", was.GID, now.GID)
	id("egid", was.EGID, now.EGID)
	if was.UserNS != now.UserNS {
		parts = append(parts, fmt.Sprintf("user namespace %d → %d", was.UserNS, now.UserNS))
	}
	caps := func(name string, was, now uint64) {
		if more := now &^ was; more != 0 {
			parts = append(parts, name+" +"+capNames(more))
		}
		if less := was &^ now; less != 0 {
			parts = append(parts, name+" -"+capNames(less))
		}
	}
	caps("effective", was.caps.Effective, now.caps.Effective)
	caps("permitted", was.caps.Permitted, now.caps.Permitted)
	if len(parts) == 0 {
		parts = append(parts, "groups or other capabilities")
	}
	e.Args = strings.Join(parts, ", ")
	if now.rootBy(was) {
		e.Note = "became root, by running a program that is set-user-ID or has capabilities"
		if !ran {
			e.Note = "became root, which it had no right to, without running another program"
		}
	}
	return e
}

// capNames is a set of capabilities, in short where it is large.
func capNames(set uint64) string {
	names := linux.CapabilityNames(set)
	const few = 4
	if len(names) > few {
		return fmt.Sprintf("%d capabilities", len(names))
	}
	return strings.Join(names, ",")
}
