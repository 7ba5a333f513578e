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
		ID:        "packet-filter-backdoor",
		Title:     "Packet and raw sockets that wait for a secret",
		Severity:  High,
		Technique: "T1205.002", // Traffic Signaling: Socket Filters
		Source:    "struct sock of packet and raw sockets, and the classic program in sk_filter: what it demands of a packet, followed on all its ways",
		Proves: `A process sees packets below the firewall and lets only those through that hold a certain value where a program has its own data, or where a sender puts what it
likes: in the payload of UDP, TCP or ICMP, or in the sequence number, window or identification. That is how passive backdoors (BPFDoor and its kin) wait for their master without an
open port. What programs of the system wait for is not a finding: addresses, ports, protocols, flags, DHCP, ARP, LLDP, EAPOL, replies to ping.`,
		Blind: `A backdoor that compares in its own code instead of in the filter, that waits for a port or an address, or for a protocol of its own below IP. Filters that are eBPF
programs. Filters that tcpdump, Wireshark and the like were given by hand, as long as their program is the file that a package would install.`,
		Next: `Look at the process (views tree, files, maps) and at its filter: "outsight sockets TARGET -o json". Record traffic for the values that the finding names: who sends them
is the master.`,
		Example: `A process opened a packet socket whose filter lets UDP through that begins with two bytes:

    $ outsight check lab:demo --only packet-filter-backdoor -o json | jq -r '.title, .evidence[1]'
    process 575 (tricks) has a packet socket that waits for 0x4f75 at byte 0 of the payload of UDP
    its filter: (000) ldh      [12], (001) jeq      #0x800           jt 2 jf 10, …`,
		Kept: true,
		Run:  filterBackdoors,
	})
}

func filterBackdoors(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		ks, err := s.Sockets()
		if err != nil {
			yield(nil, err)
			return
		}
		ps, err := s.Programs()
		if err != nil {
			yield(nil, err)
			return
		}
		for _, k := range ks.all {
			if k.Family != network.FamilyPacket && k.Protocol != "raw" || ctx.Err() != nil {
				continue
			}
			if k.FilterErr != nil {
				if !yield(nil, fmt.Errorf("filter of the socket at %#x: %w", uint64(k.Addr), k.FilterErr)) {
					return
				}
				continue
			}
			if k.Filter == nil || k.Filter.Classic == nil || ps.sniffs(k) {
				continue
			}
			f, err := waitsFor(k, ps)
			if (f != nil || err != nil) && !yield(f, err) {
				return
			}
		}
	}
}

// sniffers are programs whose filters their users write.
var sniffers = []string{"tcpdump", "dumpcap", "tshark", "suricata", "snort", "zeek", "nmap", "ngrep", "tcpflow", "netsniff-ng"}

// sniffs reports whether only programs have a socket that take a filter from their user.
func (ps *programs) sniffs(k *network.Socket) bool {
	for _, pid := range k.PIDs {
		p := ps.byPID[pid]
		if p == nil || p.ExeDeleted || !packaged(p.Exe) || !slices.Contains(sniffers, path.Base(p.Exe)) {
			return false
		}
	}
	return len(k.PIDs) > 0
}

const maxSecrets = 8 // of one filter, that a finding names

// waitsFor is the finding about a socket whose filter waits for a secret; nil if it does not.
// The error says that not all ways through the filter were followed.
func waitsFor(k *network.Socket, ps *programs) (*Finding, error) {
	paths, whole := network.ClassicPaths(k.Filter.Classic)
	var unfollowed error
	if !whole {
		unfollowed = fmt.Errorf("filter of the socket at %#x of processes %v: it has more ways than are followed; look at it with \"outsight sockets\"", uint64(k.Addr), k.PIDs)
	}
	var secrets []string
	for _, way := range paths {
		for _, secret := range secretsOf(k, way) {
			if !slices.Contains(secrets, secret) && len(secrets) < maxSecrets {
				secrets = append(secrets, secret)
			}
		}
	}
	if len(secrets) == 0 {
		return nil, unfollowed
	}
	who := "no process"
	object := Object{Kind: "socket", Addr: k.Addr}
	if len(k.PIDs) > 0 {
		who = fmt.Sprintf("process %d", k.PIDs[0])
		if p := ps.byPID[k.PIDs[0]]; p != nil {
			who, object = p.String(), p.object()
		}
	}
	f := &Finding{
		Confidence: Likely, Object: object,
		Title:    fmt.Sprintf("%s has a %s socket that waits for %s", who, k.Protocol, secrets[0]),
		Expected: "filters by address, port and protocol, or by what a known protocol has in its header",
		Seen:     "lets packets through with " + strings.Join(secrets, "; or "),
		Evidence: []Evidence{{Text: "its struct sock", Addr: k.Addr}, {Text: "its filter: " + strings.Join(network.DisassembleClassic(k.Filter.Classic), ", ")}},
		Basis:    "the filter that the process attached, in the guest's kernel",
		Show:     fmt.Sprintf("outsight sockets {} --columns protocol,pids,filter --where 'sock == \"%#x\"'", uint64(k.Addr)),
	}
	return f, unfollowed
}

const (
	protoICMP, protoTCP, protoUDP, protoICMP6 = 1, 6, 17, 58
	etherIPv4, etherIPv6                      = 0x0800, 0x86dd
	etherAll                                  = 3 // ETH_P_ALL
	allBits                                   = ^uint32(0)
)

// secretsOf is what a packet must hold that no protocol asks for, to pass in one way.
func secretsOf(k *network.Socket, way network.ClassicPath) (secrets []string) {
	at, version, ok := networkHeader(k, way)
	if !ok {
		return nil
	}
	equal := func(offset, size uint32) (uint32, bool) {
		return way.Equal(network.ClassicLoad{Offset: offset, Size: size, Mask: allBits})
	}
	proto, known := equal(at+9, 1)
	if version == 6 {
		if proto, known = equal(at+6, 1); !known {
			proto, known = equal(at+40, 1) // behind a fragment's header
		}
	}
	if k.Protocol == "raw" && k.Number != 255 {
		proto, known = k.Number, true // the socket gets no other
	}
	if known && transportName(proto) == "" {
		return nil
	}
	t := transport{way: way, at: at, version: version, proto: proto, raw: k.Protocol == "raw", bare: k.Protocol == "raw" && k.Family == network.FamilyInet6}
	var seen []network.ClassicLoad
	for _, d := range way {
		v, ok := way.Equal(d.ClassicLoad)
		if !ok || v == 0 || slices.Contains(seen, d.ClassicLoad) {
			continue
		}
		seen = append(seen, d.ClassicLoad)
		if what := t.secret(d.ClassicLoad); what != "" {
			secrets = append(secrets, fmt.Sprintf("%#x %s", v, what))
		}
	}
	return secrets
}

// networkHeader is where the header of IP begins in what a socket sees, and its version, if
// packets of IP may pass this way.
func networkHeader(k *network.Socket, way network.ClassicPath) (at uint32, version int, ok bool) {
	const rawType = 3 // SOCK_RAW: with the header of the link
	var ether uint32
	if k.Family == network.FamilyPacket && k.Type == rawType {
		at = 14
		ether, _ = way.Equal(network.ClassicLoad{Offset: 12, Size: 2, Mask: allBits})
	}
	for _, d := range way { // a length of a header that is taken from elsewhere, as behind a VLAN's tag
		if d.Base == network.BehindIP || d.Base == network.BehindTCP {
			at, version = d.IP, 4
		}
	}
	if k.Family == network.FamilyPacket && k.HasNumber && k.Number != etherAll && k.Number != 0 {
		ether = k.Number
	}
	switch {
	case ether == etherIPv6, k.Family == network.FamilyInet6:
		return at, 6, true
	case ether == etherIPv4, ether == 0, version == 4:
		return at, 4, true
	}
	return 0, 0, false
}

// transport is what is known of the packets that pass one way.
type transport struct {
	way     network.ClassicPath
	at      uint32 // where IP begins
	version int
	proto   uint32 // 0: any
	raw     bool   // of a raw socket of IP
	bare    bool   // the socket sees no header of IP: raw sockets of IPv6
}

func transportName(proto uint32) string {
	return map[uint32]string{protoICMP: "ICMP", protoTCP: "TCP", protoUDP: "UDP", protoICMP6: "ICMPv6"}[proto]
}

// offset is where a load lies behind the beginning of the transport's header; payload says
// that it is behind that header, however long it is.
func (t *transport) offset(l network.ClassicLoad) (offset uint32, payload, ok bool) {
	start := t.at + 20
	if t.version == 6 {
		start = t.at + 40
	}
	if t.bare {
		start = t.at
	}
	switch l.Base {
	case network.BehindIP:
		start = t.at
	case network.BehindTCP:
		return l.Offset - t.at, true, l.Offset >= t.at
	case network.FromStart:
	default:
		return 0, false, false
	}
	if l.Offset < start {
		return 0, false, false
	}
	return l.Offset - start, false, true
}

// secret says of a load whose value is demanded where that is, if it is where no protocol of
// the system demands one; else it is empty.
func (t *transport) secret(l network.ClassicLoad) string {
	name := transportName(t.proto)
	if name == "" {
		name = "IP"
	}
	if l.Base == network.FromStart && t.version == 4 && !t.bare && l.Offset == t.at+4 && l.Size == 2 {
		return "as the identification of an IPv4 packet"
	}
	offset, payload, ok := t.offset(l)
	if !ok {
		return ""
	}
	header := uint32(8)
	if t.proto == protoTCP {
		header = 20
	}
	switch {
	case payload:
		return fmt.Sprintf("at byte %d of the payload of %s", offset, name)
	case offset >= header:
		if t.ordinaryPayload(l, offset-header) {
			return ""
		}
		return fmt.Sprintf("at byte %d of the payload of %s", offset-header, name)
	case t.proto == protoTCP:
		return map[uint32]string{4: "as the sequence number of TCP", 8: "as the acknowledgement of TCP", 14: "as the window of TCP", 18: "as the urgent pointer of TCP"}[offset]
	case (t.proto == protoICMP || t.proto == protoICMP6) && !t.raw && (offset == 4 || offset == 6):
		return fmt.Sprintf("at byte %d of %s", offset, name) // ping itself has a raw socket
	}
	return ""
}

// ordinaryPayload reports whether programs of the system demand values there.
func (t *transport) ordinaryPayload(l network.ClassicLoad, offset uint32) bool {
	switch t.proto {
	case protoICMP6:
		return true // options of neighbour discovery
	case protoICMP:
		// An error holds the header of the packet that was meant, by which traceroute and the
		// like know theirs.
		const embedded = 28
		kind, ok := t.header(0, 1)
		return ok && (kind == 3 || kind == 11 || kind == 12) && offset < embedded
	case protoUDP:
		for _, at := range []uint32{0, 2} {
			if port, ok := t.header(at, 2); ok && (port == 67 || port == 68 || port == 546 || port == 547) {
				// What a client of DHCP waits for: kind, transaction, its own address, the cookie.
				const fixed, cookie, cookieAt = 44, 0x63825363, 236
				v, _ := t.way.Equal(l)
				return offset < fixed || offset == cookieAt && v == cookie
			}
		}
	}
	return false
}

// header is the value that is demanded in the header of the transport.
func (t *transport) header(at, size uint32) (uint32, bool) {
	for _, d := range t.way {
		if offset, payload, ok := t.offset(d.ClassicLoad); ok && !payload && offset == at && d.Size == size && d.Mask == allBits {
			if v, ok := t.way.Equal(d.ClassicLoad); ok {
				return v, true
			}
		}
	}
	return 0, false
}
