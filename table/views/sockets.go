package views

import (
	"context"
	"fmt"
	"iter"
	"strconv"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "sockets", Group: table.Network,
		Doc: `Show the sockets of a guest, those of all network namespaces.

They are looked for in the tables of their protocols, where the kernel itself looks for
them, behind the file descriptors of all processes, among the files that rings of io_uring
have registered, and among those in flight between processes (SCM_RIGHTS). "seen_in" shows
which ways led to one. TCP sockets that were never bound or are closed, unbound
UDP and netlink sockets, and all of vsock, SCTP and other protocols that come as
modules are found behind descriptors only. A connection in TIME_WAIT or SYN_RECV, one
whose process is gone, and the kernel's own sockets have no process.

What is not seen: sockets in no table that only a request under way or the kernel itself
holds; netlink sockets in a table that grew while memory was short. The guest runs on while it is read: a connection that moves from one
chain to another meanwhile can be missing.`,
		Source:  "the hash tables of each protocol (tcp_hashinfo, udp_table, unix_socket_table …), descriptors, io_uring's registered files and SCM_RIGHTS in flight: struct sock",
		Key:     []string{"sock"},
		Example: "lab:demo",
	}, socketColumns, sockets))
}

var socketColumns = table.Columns[network.Socket]{
	{
		Name: "protocol", Type: table.Text, Doc: "tcp, udp, udplite, icmp (ping), raw, unix, packet, netlink, vsock, xdp, sctp; else as the kernel calls it.",
		Get: func(k *network.Socket) table.Value { return table.TextValue(k.Protocol) },
	},
	{
		Name: "family", Type: table.Text, Doc: "Address family: inet, inet6, unix, netlink, packet, vsock, xdp; a number if it has no name here.",
		Get: func(k *network.Socket) table.Value {
			if family, ok := familyNames[k.Family]; ok {
				return table.TextValue(family)
			}
			return table.TextValue(strconv.Itoa(int(k.Family)))
		},
	},
	{
		Name: "type", Type: table.Text, Extra: true, Doc: "Type of the socket: stream, dgram, raw, seqpacket.",
		Get: func(k *network.Socket) table.Value { return text(k.TypeName()) },
	},
	{
		Name: "state", Type: table.Text, Doc: "State, in TCP's words; UNCONNECTED for what has no connection.",
		Get: func(k *network.Socket) table.Value { return text(k.StateName()) },
	},
	{
		Name: "local", Type: table.Text, Doc: "Local address: IP address; path of a unix socket as bound, abstract ones with @; CID of vsock.",
		Get: func(k *network.Socket) table.Value {
			switch {
			case k.HasCID:
				return table.TextValue(strconv.FormatUint(uint64(k.LocalCID), 10))
			case k.Family == network.FamilyUnix:
				return text(k.Path)
			}
			return ipCell(k.Local)
		},
	},
	{
		Name: "local_port", Type: table.Uint, Doc: "Local port; of netlink, the port identifier; of raw sockets, their protocol; missing for unix and packet.",
		Get: func(k *network.Socket) table.Value { return when(hasPorts(k), unsigned(k.LocalPort)) },
	},
	{
		Name: "remote", Type: table.Text, Doc: "Remote address, likewise.",
		Get: func(k *network.Socket) table.Value {
			if k.HasCID {
				return table.TextValue(strconv.FormatUint(uint64(k.RemoteCID), 10))
			}
			return ipCell(k.Remote)
		},
	},
	{
		Name: "remote_port", Type: table.Uint, Doc: "Remote port, likewise.",
		Get: func(k *network.Socket) table.Value { return when(hasPorts(k), unsigned(k.RemotePort)) },
	},
	{
		Name: "interface", Type: table.Text, Doc: "Device that it is bound to; missing when to none.",
		Get: func(k *network.Socket) table.Value { return text(k.Interface) },
	},
	{
		Name: "number", Type: table.Uint, Extra: true, Doc: "IP protocol of a raw socket, EtherType of a packet socket, family of a netlink socket (0 is route).",
		Get: func(k *network.Socket) table.Value { return when(k.HasNumber, unsigned(k.Number)) },
	},
	{
		Name: "recv_queue", Type: table.Uint, Doc: "As ss shows it: bytes not yet read, for some protocols with their overhead; connections to accept of a listening one.",
		Get: func(k *network.Socket) table.Value { return when(k.HasQueues, unsigned(k.RecvQueue)) },
	},
	{
		Name: "send_queue", Type: table.Uint, Doc: "As ss shows it: bytes not yet sent or acknowledged; the limit of connections to accept of a listening one.",
		Get: func(k *network.Socket) table.Value { return when(k.HasQueues, unsigned(k.SendQueue)) },
	},
	{
		Name: "pids", Type: table.Numbers, Doc: "Processes that have a descriptor of it; missing without one.",
		Get: func(k *network.Socket) table.Value {
			if len(k.PIDs) == 0 {
				return none
			}
			return table.NumbersValue(k.PIDs)
		},
	},
	{Name: "uid", Type: table.Uint, Doc: "Owner of the socket.", Get: func(k *network.Socket) table.Value { return unsigned(k.UID) }},
	{
		Name: "inode", Type: table.Uint, Doc: "Inode, as in /proc/PID/fd; missing once it is closed.",
		Get: func(k *network.Socket) table.Value { return positive(k.Inode) },
	},
	{
		Name: "net_ns", Type: table.Uint, Extra: true, Doc: "Inode of the network namespace.",
		Get: func(k *network.Socket) table.Value { return positive(k.Net.Inode) },
	},
	{
		Name: "seen_in", Type: table.Text, Doc: "What led to it: hash (a protocol's table), fd (a descriptor) or both; io_uring (a registered file), flight (a descriptor under way).",
		Get: func(k *network.Socket) table.Value { return table.TextValue(k.SeenIn.String()) },
	},
	{
		Name: "filter_length", Type: table.Uint, Doc: "Number of instructions of an attached BPF filter; missing without one.",
		Get: func(k *network.Socket) table.Value {
			return socketFilter(k, func(f *network.SocketFilter) table.Value { return unsigned(f.Insns) })
		},
	},
	{
		Name: "filter_program", Type: table.Uint, Doc: "Identifier of an attached eBPF program; missing for a classic filter.",
		Get: func(k *network.Socket) table.Value {
			return socketFilter(k, func(f *network.SocketFilter) table.Value { return when(f.Classic == nil, unsigned(f.ID)) })
		},
	},
	{
		Name: "filter", Type: table.List, Extra: true, Doc: "An attached classic filter, disassembled as tcpdump -d does.",
		Get: func(k *network.Socket) table.Value {
			return socketFilter(k, func(f *network.SocketFilter) table.Value {
				if f.Classic == nil {
					return none
				}
				return table.ListValue(network.DisassembleClassic(f.Classic))
			})
		},
	},
	{
		Name: "sock", Type: table.Addr, Extra: true, Doc: "Address of the struct sock, or of what stands for it in TIME_WAIT and SYN_RECV.",
		Get: func(k *network.Socket) table.Value { return address(k.Addr) },
	},
}

// hasPorts reports whether the addresses of a socket have ports.
func hasPorts(k *network.Socket) bool {
	return k.Local.IsValid() || k.HasCID || k.Family == network.FamilyNetlink
}

// socketFilter is a cell of the filter that is attached, if there is one.
func socketFilter(k *network.Socket, cell func(*network.SocketFilter) table.Value) table.Value {
	switch {
	case k.FilterErr != nil:
		return unreadable(k.FilterErr)
	case k.Filter == nil:
		return none
	}
	return cell(k.Filter)
}

func sockets(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*network.Socket, error] {
	filter := r.Wants("filter_length", "filter_program", "filter")
	return func(yield func(*network.Socket, error) bool) {
		for k, err := range whole(network.Sockets(ctx, l.Linux)) {
			if k != nil && k.FilterErr != nil && filter {
				err = fmt.Errorf("filter of socket at %#x: %w", uint64(k.Addr), k.FilterErr)
			}
			if !yield(k, err) {
				return
			}
		}
	}
}
