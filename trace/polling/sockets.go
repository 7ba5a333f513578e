package polling

import (
	"context"
	"time"

	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/virt"
)

// everySocket is from one look at all sockets to the next while the kernel's counters do not change:
// a socket without a connection can take the place of another without their changing.
const everySocket = 10 * time.Second

// States of sockets (include/net/tcp_states.h).
const (
	stateEstablished = 1
	stateSynSent     = 2
	stateSynRecv     = 3
	stateTimeWait    = 6
	stateClose       = 7
	stateListen      = 10
	stateNewSynRecv  = 12
)

// socket is what is known of one that is open.
type socket struct {
	kind      trace.Kind // what it was reported as
	port      port
	endpoints string
	protocol  string
	pid       int32
	is        *trace.Process
}

// maxSockets bounds what is kept of sockets that may still be there, of a guest whose lists cannot be followed.
const maxSockets = 1 << 16

type socketKey struct {
	addr      virt.Addr
	endpoints string
}

// sockets is the part that sees who listens, and who is connected to whom.
type sockets struct {
	known    map[socketKey]socket // nil before the first look
	held     map[socketKey]socket // new, and nobody's yet: see hold
	turnover network.Turnover     // at the last look at all that was whole
	opened   int64                // connections that were seen to begin since
	seen     network.Turnover     // at the last look at all
	counted  bool
	whole    time.Time // when all were looked at
	torn     bool      // as of then, not all could be
	balance  int64     // connections that were counted and not seen, less what was reported
	missed   unseen
}

func (p *sockets) forget() { *p = sockets{} }

func (p *sockets) look(ctx context.Context, r *round) error {
	p.missed.tell(r)
	live := r.s.processes.live
	if live == nil {
		return nil // another kernel is looked for
	}
	// Counted before they are looked at: what is counted can be seen by then.
	turnover, err := network.ReadTurnover(ctx, live)
	if counted := err == nil; counted && p.counted && turnover == p.seen && len(p.held) == 0 && r.at.Sub(p.whole) < everySocket {
		return nil
	} else if !counted && r.at.Sub(p.whole) < everySecond {
		return nil
	}
	l, lookErr := r.look(ctx)
	if lookErr != nil {
		return lookErr
	}
	now := make(map[socketKey]socket, len(p.known))
	ports := map[port]bool{}
	for _, was := range p.known {
		if was.kind == trace.KindListen { // who waits for one connection only has stopped by now
			ports[was.port] = true
		}
	}
	var connections []*network.Socket
	var gap error
	add := func(k *network.Socket, kind trace.Kind) {
		s := socket{kind: kind, port: portOf(k), endpoints: k.Endpoints(), protocol: k.Protocol, pid: holder(k.PIDs)}
		now[socketKey{k.Addr, s.endpoints}] = s
	}
	for k, err := range network.Sockets(ctx, l.Linux) {
		if err != nil {
			gap = err
			continue
		}
		switch what(k) {
		case trace.KindListen:
			ports[portOf(k)] = true
			add(k, trace.KindListen)
		case trace.KindConnect:
			connections = append(connections, k)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, k := range connections {
		if kind := trace.KindConnect; ports[portOf(k)] && k.State != stateSynSent {
			add(k, trace.KindAccept)
		} else {
			add(k, kind)
		}
	}
	p.compare(r, now, turnover, err == nil, gap != nil)
	p.seen, p.counted, p.whole = turnover, err == nil, r.at
	if gap != nil && !p.torn {
		p.whole = time.Time{} // soon again
	}
	p.torn = gap != nil
	return gap
}

// compare makes events of what differs. incomplete says that what is not among now may still be there.
func (p *sockets) compare(r *round, now map[socketKey]socket, turnover network.Turnover, counted, incomplete bool) {
	first := p.known == nil
	for key, was := range p.known {
		if _, still := now[key]; still {
			continue
		}
		if incomplete {
			if len(now) < maxSockets {
				now[key] = was
			}
			continue
		}
		r.emit(was.event(trace.KindClose))
	}
	held := p.held
	p.held = nil
	for key, was := range held {
		if _, still := now[key]; still {
			continue
		}
		if incomplete {
			p.hold(key, was)
			continue
		}
		r.emit(was.event(was.kind))
		r.emit(was.event(trace.KindClose))
	}
	for key, s := range now {
		was, known := p.known[key]
		s.is, s.pid = was.is, max(s.pid, 0)
		if known && was.pid == s.pid && was.is != nil {
			s.kind = was.kind
			now[key] = s
			continue
		}
		old, waited := held[key]
		switch {
		case known:
			s.kind = was.kind
		case waited:
			s.kind = old.kind // who waited for one connection only is no listener any more
		}
		if s.is = r.s.processes.settled(s.pid); s.is == nil && (first || known || waited) {
			s.is = r.s.processes.byPID(s.pid)
		}
		now[key] = s
		if known {
			continue
		}
		if s.protocol == "tcp" && s.kind != trace.KindListen && !waited {
			p.opened++
		}
		switch {
		case first:
		case s.is == nil && !waited:
			delete(now, key)
			p.hold(key, s)
		default:
			r.emit(s.event(s.kind))
		}
	}
	p.known = now
	if incomplete {
		return // what is counted may be seen at the next look
	}
	opened := p.opened
	before := p.turnover
	p.turnover, p.opened = turnover, 0
	if counted && p.counted && !first {
		// A look may see what was counted after it had read the counts: then it is negative for now.
		// Of a kernel that boots the counters are no counts yet.
		const plausible = 1 << 30
		n := turnover.Opens - before.Opens
		if n > plausible {
			n, p.balance = uint64(opened), 0
		}
		if p.balance += int64(n) - opened; p.balance > 0 {
			p.missed.add(uint64(p.balance), "TCP connection", "TCP connections")
			p.balance = 0
		}
	}
}

// hold keeps back what is new and nobody's, for one look: the owner of a connection has it a moment after the
// kernel, and what began or ran another program since the last look at the processes is known after the next.
func (p *sockets) hold(key socketKey, s socket) {
	if p.held == nil {
		p.held = map[socketKey]socket{}
	}
	if len(p.held) < maxSockets {
		p.held[key] = s
	}
}

func (s *socket) event(kind trace.Kind) trace.Event {
	return trace.Event{Kind: kind, Process: s.is, TID: s.pid, Name: s.protocol, Object: s.endpoints}
}

// holder is the process that a socket is said to be of. The first process of a guest opens sockets for
// services, and keeps them.
func holder(pids []int32) int32 {
	switch {
	case len(pids) == 0:
		return 0
	case pids[0] == 1 && len(pids) > 1:
		return pids[1]
	}
	return pids[0]
}

// what says what a socket is for: KindListen for those that wait for others, KindConnect for
// connections, empty for the rest.
func what(k *network.Socket) trace.Kind {
	switch k.Protocol {
	case "tcp", "mptcp", "sctp", "vsock":
		switch k.State {
		case stateListen:
			return trace.KindListen
		case stateSynRecv, stateNewSynRecv, stateTimeWait, stateClose: // not yet, or no longer
			return ""
		}
		if k.RemotePort == 0 || len(k.PIDs) == 0 && k.State != stateEstablished {
			return "" // nobody's any more
		}
		return trace.KindConnect
	case "udp", "udplite":
		switch {
		case k.State == stateEstablished:
			return trace.KindConnect
		case k.LocalPort != 0:
			return trace.KindListen
		}
	case "raw", "packet":
		return trace.KindListen
	}
	return ""
}

// port is where connections arrive.
type port struct {
	protocol string
	net      virt.Addr
	number   uint32
}

func portOf(k *network.Socket) port { return port{k.Protocol, k.Net.Addr, k.LocalPort} }
