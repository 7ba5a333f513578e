package check

import (
	"context"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux/network"
)

func init() {
	Register(Check{
		ID:        "shell-on-socket",
		Title:     "Shells and interpreters that take their input from the network",
		Severity:  High,
		Technique: "T1059", // Command and Scripting Interpreter
		Source:    "descriptors 0 to 2 of interpreters, and the struct sock behind them",
		Proves: `A shell, or an interpreter, reads its standard input from a network socket and writes its output there: whoever is at the other end types commands. That is
what a reverse shell and a bind shell are.`,
		Blind: `A shell behind a pipe or a pseudo-terminal that another program connects with the network (socat, ssh, a C2 agent). Interpreters under another name, and of busybox a shell that
renamed itself. A script that inetd or systemd starts for each connection to a port
that they listen at is a service: a shell without a script, a script where no package puts one, and a connection that was made from here are not.`,
		Next: `Look at who it talks to in the view sockets, at its parent in the view tree, and at what was typed with "outsight history TARGET" and "outsight strings TARGET --pid PID". Where the parent is a network
service, that service was the way in.`,
		Example: `A process connected to another machine and started a shell on the connection:

    $ outsight check lab:demo --only shell-on-socket -o json | jq -r '.title, .seen'
    process 538 (sh) is sh, and takes its input from tcp 10.0.2.15:44386 - 198.51.100.7:443
    standard input is tcp 10.0.2.15:44386 - 198.51.100.7:443, output tcp 10.0.2.15:44386 - 198.51.100.7:443`,
		Kept: true,
		Run:  shellsOnSockets,
	})
}

// ofNetwork reports whether a socket leads to other machines.
func ofNetwork(k *network.Socket) bool {
	return k.Family == network.FamilyInet || k.Family == network.FamilyInet6
}

func shellsOnSockets(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return s.overPrograms(ctx, func(ps *programs, p *program, yield report) {
		if p.interpreter() != "" {
			yield(s.shellOnSocket(ctx, ps, p))
		}
	})
}

// inetds start a program for each connection, with the connection as its standard streams.
var inetds = []string{"inetd", "xinetd", "openbsd-inetd", "tcpserver", "tcpsvd", "udpsvd", "systemd"}

// startsServices reports whether a process starts a program for each connection: systemd does
// so with Accept=yes.
func startsServices(p *program) bool {
	base := path.Base(p.Exe)
	if base == "busybox" {
		base = p.Comm
	}
	return p.PID == 1 || packaged(p.Exe) && !p.ExeDeleted && slices.Contains(inetds, base)
}

// serves reports whether a connection came in at a port that a process listens at, or is a
// socket that the process has open itself: so it is what inetd hands to a service. What was
// connected to from here is not.
func (ks *sockets) serves(p *program, connection *network.Socket) bool {
	const listen = 10 // TCP_LISTEN
	if slices.Contains(connection.PIDs, p.PID) {
		return true
	}
	return slices.ContainsFunc(ks.all, func(k *network.Socket) bool {
		return k.Protocol == connection.Protocol && k.State == listen && k.LocalPort == connection.LocalPort && slices.Contains(k.PIDs, p.PID)
	})
}

func (s *Subject) shellOnSocket(ctx context.Context, ps *programs, p *program) (*Finding, error) {
	var streams [3]*network.Socket
	reader, err := network.NewSocketFiles(s.Linux)
	if err != nil {
		return nil, err
	}
	for file, err := range s.Linux.NewProcessReader().Files(ctx, p.Task) {
		if err != nil {
			return nil, fmt.Errorf("process %d: %w", p.PID, err)
		}
		if file.FD >= len(streams) {
			break
		}
		if file.Class != "socket" {
			continue
		}
		k, err := reader.Of(ctx, file)
		if err != nil {
			return nil, fmt.Errorf("process %d: descriptor %d: %w", p.PID, file.FD, err)
		}
		if k != nil && ofNetwork(k) {
			streams[file.FD] = k
		}
	}
	in, out := streams[0], streams[1]
	if out == nil {
		out = streams[2]
	}
	if in == nil || out == nil {
		return nil, nil
	}
	parent := ps.byPID[p.PPID]
	script := len(p.Args) > 1 && !strings.HasPrefix(p.Args[1], "-")
	if script && !strange(p.Args[1]) && parent != nil && startsServices(parent) {
		ks, err := s.Sockets()
		if err != nil {
			return nil, err
		}
		if ks.serves(parent, in) {
			return nil, nil // a service that is a script
		}
	}
	f := p.finding("is "+p.interpreter()+", and takes its input from "+describeSocket(in), Certain)
	if script {
		f.Confidence = Likely
	}
	f.Expected = "standard streams that are a terminal, a pipe or a file"
	f.Seen = fmt.Sprintf("standard input is %s, output %s", describeSocket(in), describeSocket(out))
	f.Evidence = append(f.Evidence, Evidence{Text: "struct sock of its standard input", Addr: in.Addr})
	if parent != nil {
		f.Evidence = append(f.Evidence, Evidence{Text: "its parent is " + parent.String()})
	}
	f.Show = fmt.Sprintf("outsight files {} --pid %d", p.PID)
	return f, nil
}

// describeSocket names a socket by its protocol and its two ends.
func describeSocket(k *network.Socket) string {
	if !ofNetwork(k) {
		return "a " + k.Protocol + " socket"
	}
	text := fmt.Sprintf("%s %s:%d", k.Protocol, k.Local, k.LocalPort)
	if k.Remote.IsValid() && !k.Remote.IsUnspecified() {
		text += fmt.Sprintf(" - %s:%d", k.Remote, k.RemotePort)
	}
	return text
}
