package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/network"
)

func init() {
	Register(Check{
		ID:        "contradicted",
		Title:     "Processes, modules, ports and messages that the guest's own programs do not list",
		Severity:  High,
		Technique: "T1014", // Rootkit
		Source:    "what ps, ls /proc, lsmod, /proc/modules, ss, netstat, /proc/net and dmesg say in the guest (--ask, --told), against the task list, the list of modules, the tables of sockets, and the ring of the kernel's log",
		Proves: `Something was there, by the guest's memory, when a program in the guest listed what is there, and is not in its list. Something between the kernel's
data and the program's output takes it out: a hooked function of the kernel, a preloaded library, a changed program.`,
		Blind: `What nobody was asked. With --told what began after the file was taken, by the guest's clock, is left out, and what began after all that it lists is only "possible"; modules and ports have no time of their
own, so that one that came later is found wrongly. A file that lacks more processes than it lists was taken in a container, or before the guest was booted: it is not compared. With --ask the guest is asked again between looks, and only what both looks have is found.`,
		Next: `See which of the programs has it: where "ls /proc" has what ps has not, ps or a preloaded library filters; where none has it, the kernel does, or something is mounted over it.
Then find out who: covered-process, code-pointer, ftrace-triple, hidden-code and preload.`,
		Example: `With --ask, outsight has the guest's own programs list what they see, through its QEMU guest agent:

    $ outsight check web --ask
    SEVERITY  CONFIDENCE  CHECK         TITLE
    high      likely      contradicted  process 412 (sleep) is not listed in the guest's ps -e, ls -1 /proc

Where a guest has no agent: in the guest "ps -e > ps.txt; lsmod > lsmod.txt; ss -tuln > ss.txt; dmesg > dmesg.txt", and on the host, with these files:

    $ outsight check web --told ps.txt,lsmod.txt,ss.txt
    SEVERITY  CONFIDENCE  CHECK         TITLE
    high      likely      contradicted  process 412 (sleep) is not listed in the guest's ps (ps.txt)

Copy them with their times (scp -p, cp -p): what began after a file was written cannot be in it. Standard error says what was compared: "outsight: compared with ps.txt (97 processes, as of
2026-11-30T00:51:02Z), …".`,
		Told: true,
		Run:  contradicted,
	})
}

// errNotAsked says that there is nothing to compare with.
var errNotAsked = errors.New("the guest's own programs were not asked (--ask, --told)")

// slack is how far the time of a file and the guest's clock may be from each other.
const slack = 2 * time.Second

func contradicted(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		if s.Told == nil {
			yield(nil, cmp.Or(s.mute, errNotAsked))
			return
		}
		_ = s.untoldProcesses(ctx, yield) && s.untoldModules(yield) && s.untoldPorts(ctx, yield) && s.untoldMessages(ctx, yield)
	}
}

// untold is a finding about something that words leave out which should have it; nil if
// there is none. asked reports whether a word should have it, says whether it does.
func (s *Subject) untold(o Object, title, show string, asked, says func(*Word) bool) *Finding {
	var without, with, files []string
	for _, w := range s.Told.Words {
		switch {
		case !asked(w):
		case says(w):
			with = append(with, w.source())
		default:
			without, files = append(without, w.source()), append(files, w.From)
		}
	}
	if len(without) == 0 {
		return nil
	}
	seen := "in the guest's memory alone"
	if len(with) > 0 {
		seen = fmt.Sprintf("in the guest's memory and in %s, not in %s", strings.Join(with, ", "), strings.Join(without, ", "))
	}
	return &Finding{
		Confidence: Likely, Title: fmt.Sprintf("%s is not listed in the guest's %s", title, strings.Join(without, ", ")), Object: o,
		Aspect:   "not in " + strings.Join(files, ", "),
		Expected: "in " + strings.Join(append(without, with...), ", ") + " and in the guest's memory", Seen: seen,
		Evidence: []Evidence{{Text: "the object", Addr: o.Addr}},
		Basis:    "the guest's own words, compared with its memory", Show: show,
	}
}

// yieldUntold yields a finding that there may be.
func yieldUntold(f *Finding, yield func(*Finding, error) bool) bool { return f == nil || yield(f, nil) }

func (s *Subject) untoldProcesses(ctx context.Context, yield func(*Finding, error) bool) bool {
	if !slices.ContainsFunc(s.Told.Words, func(w *Word) bool { return w.PIDs != nil }) {
		return true
	}
	var all []*linux.Process
	reader := s.Linux.NewProcessReader()
	reader.Only(linux.PartName)
	for t, err := range s.Linux.Processes(ctx) {
		var p *linux.Process
		if err == nil {
			p, err = reader.Process(ctx, t)
		}
		if err != nil {
			if !yield(nil, fmt.Errorf("processes: %w", err)) {
				return false
			}
			continue
		}
		all = append(all, p)
	}
	lists := map[*Word]*processList{}
	for _, w := range s.Told.Words {
		if w.PIDs == nil {
			continue
		}
		l := w.processList(all)
		if lists[w] = l; l.ofOthers() {
			if !yield(nil, fmt.Errorf("%s lacks %d of the %d processes that ran then: take it in this guest as root, since its last boot, and not in a container", w.From, l.lacks, l.has+l.lacks)) {
				return false
			}
			delete(lists, w)
		}
	}
	for _, p := range all {
		f := s.untold(Object{Kind: "process", Name: p.Comm, PID: p.PID, Addr: p.Task.Addr},
			fmt.Sprintf("process %d (%s)", p.PID, p.Comm), fmt.Sprintf("outsight ps {} --pid %d", p.PID),
			func(w *Word) bool { return lists[w] != nil && w.shouldHave(p) }, func(w *Word) bool { return w.PIDs[p.PID] })
		if f == nil {
			continue
		}
		for _, w := range s.Told.Words { // in their order, so that the text is the same at each look
			if l := lists[w]; l != nil && !w.At.IsZero() && w.shouldHave(p) && !w.PIDs[p.PID] && p.Started.After(l.newest) {
				f.Confidence = Possible
				f.Seen += fmt.Sprintf("; it began after all processes that %s lists, which may be older than the time of the file", w.source())
				break
			}
		}
		if !yield(f, nil) {
			return false
		}
	}
	return true
}

// shouldHave reports whether a process ran when a word was said, and is one that its program lists.
func (w *Word) shouldHave(p *linux.Process) bool {
	const kthreadd = 2 // some ps leave kernel threads out
	return w.PIDs != nil && (!p.KernelThread || w.PIDs[kthreadd]) && (w.At.IsZero() || p.Started.Before(w.At.Add(-slack)))
}

// processList is what a word says of the processes that are in memory.
type processList struct {
	has, lacks int
	newest     time.Time // when the last of those that it has began
}

func (w *Word) processList(all []*linux.Process) *processList {
	l := &processList{}
	for _, p := range all {
		switch {
		case w.PIDs[p.PID]:
			l.has++
			if p.Started.After(l.newest) {
				l.newest = p.Started
			}
		case w.shouldHave(p):
			l.lacks++
		}
	}
	return l
}

// ofOthers reports whether a list has so little of what ran that it is of another machine, another boot, or a container.
func (l *processList) ofOthers() bool {
	const few = 10
	return l.lacks > few && l.lacks > l.has
}

func (s *Subject) untoldModules(yield func(*Finding, error) bool) bool {
	if !slices.ContainsFunc(s.Told.Words, func(w *Word) bool { return w.Modules != nil }) {
		return true
	}
	modules, err := s.Modules()
	if err != nil {
		return yield(nil, fmt.Errorf("modules: %w", err))
	}
	for _, m := range modules {
		if m.State != linux.ModuleLive {
			continue
		}
		f := s.untold(Object{Kind: "module", Name: m.Name, Addr: m.Addr}, "module "+m.Name, "outsight modules {}",
			func(w *Word) bool { return w.Modules != nil }, func(w *Word) bool { return w.Modules[m.Name] })
		if !yieldUntold(f, yield) {
			return false
		}
	}
	return true
}

// The states of sockets that wait for peers (include/net/tcp_states.h).
const (
	tcpClose  = 7
	tcpListen = 10
)

func (s *Subject) untoldPorts(ctx context.Context, yield func(*Finding, error) bool) bool {
	if !slices.ContainsFunc(s.Told.Words, func(w *Word) bool { return w.Listening != nil }) {
		return true
	}
	own, err := s.initialNet(ctx)
	if err != nil {
		return yield(nil, err)
	}
	for k, err := range network.Sockets(ctx, s.Linux) {
		if err != nil {
			if !yield(nil, fmt.Errorf("sockets: %w", err)) {
				return false
			}
			continue
		}
		waits := k.Protocol == "tcp" && k.State == tcpListen || k.Protocol == "udp" && k.State == tcpClose
		port := Port{k.Protocol, uint16(k.LocalPort)}
		if !waits || port.Number == 0 || k.Net.Inode != own {
			continue
		}
		table := k.Protocol
		if k.Family == network.FamilyInet6 {
			table += "6"
		}
		name := Port{table, port.Number}.String()
		f := s.untold(Object{Kind: "socket", Name: name, Addr: k.Addr}, name,
			fmt.Sprintf("outsight sockets {} --where 'local_port == %d'", port.Number),
			func(w *Word) bool { return w.Covers[table] }, func(w *Word) bool { return w.Listening[port] })
		if !yieldUntold(f, yield) {
			return false
		}
	}
	return true
}

// initialNet is the inode of the network namespace that the guest began with, which its
// programs see unless they are in another.
func (s *Subject) initialNet(ctx context.Context) (uint64, error) {
	for n, err := range network.Namespaces(ctx, s.Linux) {
		if err != nil {
			return 0, fmt.Errorf("network namespaces: %w", err)
		}
		if a, ok := s.Linux.Address("init_net"); !ok || n.Addr == a {
			return n.Inode, nil
		}
	}
	return 0, errors.New("network namespaces: the first one is missing")
}
