package check

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/network"
)

func init() {
	Register(Check{
		ID:        "contradicted",
		Title:     "Processes, modules and ports that the guest's own programs do not list",
		Severity:  High,
		Technique: "T1014", // Rootkit
		Source:    "the output of ps, lsmod, ss or netstat that was taken in the guest (--told), against the task list, the list of modules, and the tables of sockets",
		Proves: `Something was there, by the guest's memory, when a program in the guest listed what is there, and is not in its list. Something between the kernel's
data and the program's output takes it out: a hooked function of the kernel, a preloaded library, a changed program.`,
		Blind: `What the output is not of. What began after it was taken, by the guest's clock, is left out; modules and ports have no time of their own, so that one
that came later is found wrongly.`,
		Next: `Take the lists again and check again. Then find out who filters: code-pointer, ftrace, hidden-code and the checks of libraries.`,
		Example: `In the guest "ps -e > ps.txt; lsmod > lsmod.txt; ss -tuln > ss.txt", and on the host, with these files:

    $ outsight check web --told ps.txt,lsmod.txt,ss.txt
    SEVERITY  CONFIDENCE  CHECK         TITLE
    high      likely      contradicted  process 412 (sleep) is not in what the guest's programs listed`,
		Run: contradicted,
	})
}

// slack is how far the time of a file and the guest's clock may be from each other.
const slack = 2 * time.Second

func contradicted(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		if s.Told == nil {
			return
		}
		_ = s.untoldProcesses(ctx, yield) && s.untoldModules(yield) && s.untoldPorts(ctx, yield)
	}
}

// untold is a finding about something that is in the guest's memory alone.
func (s *Subject) untold(o Object, title, show string) *Finding {
	return &Finding{
		Confidence: Likely, Title: title + " is not in what the guest's programs listed", Object: o,
		Expected: "in " + strings.Join(s.Told.From, ", ") + " and in the guest's memory", Seen: "in the guest's memory alone",
		Evidence: []Evidence{{Text: "the object", Addr: o.Addr}},
		Basis:    "the guest's own words, compared with its memory", Show: show,
	}
}

func (s *Subject) untoldProcesses(ctx context.Context, yield func(*Finding, error) bool) bool {
	if s.Told.PIDs == nil {
		return true
	}
	kernelThreads := s.Told.PIDs[2] // kthreadd: some ps leave them out
	reader := s.Linux.NewProcessReader()
	reader.Only(linux.PartName)
	for t, err := range s.Linux.Processes(ctx) {
		if err == nil {
			var p *linux.Process
			if p, err = reader.Process(ctx, t); err == nil {
				if s.Told.PIDs[p.PID] || p.KernelThread && !kernelThreads || p.Started.After(s.Told.At.Add(-slack)) {
					continue
				}
				title := fmt.Sprintf("process %d (%s)", p.PID, p.Comm)
				f := s.untold(Object{Kind: "process", Name: p.Comm, PID: p.PID, Addr: p.Task.Addr}, title, fmt.Sprintf("outsight ps {} --pid %d", p.PID))
				if !yield(f, nil) {
					return false
				}
				continue
			}
		}
		if !yield(nil, fmt.Errorf("processes: %w", err)) {
			return false
		}
	}
	return true
}

func (s *Subject) untoldModules(yield func(*Finding, error) bool) bool {
	if s.Told.Modules == nil {
		return true
	}
	modules, err := s.Modules()
	if err != nil {
		return yield(nil, fmt.Errorf("modules: %w", err))
	}
	for _, m := range modules {
		if s.Told.Modules[m.Name] || m.State != linux.ModuleLive {
			continue
		}
		if !yield(s.untold(Object{Kind: "module", Name: m.Name, Addr: m.Addr}, "module "+m.Name, "outsight modules {}"), nil) {
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
	if s.Told.Listening == nil {
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
		if !waits || port.Number == 0 || k.Net.Inode != own || s.Told.Listening[port] {
			continue
		}
		f := s.untold(Object{Kind: "socket", Name: port.String(), Addr: k.Addr}, port.String(), fmt.Sprintf("outsight sockets {} --where 'local_port == %d'", port.Number))
		if !yield(f, nil) {
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
