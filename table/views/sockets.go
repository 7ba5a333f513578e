package views

import (
	"context"
	"fmt"
	"iter"
	"strconv"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "sockets", Group: table.Network,
		Doc: `Show the sockets of a guest, those of all network namespaces.

They are looked for in the tables of their protocols, where the kernel itself looks for
them, behind the file descriptors of all processes, among the files that rings of io_uring
have registered, and among those in flight between processes (SCM_RIGHTS). "seen_in" tells
which ways led to one. TCP sockets that were never bound or are closed, unbound
UDP and netlink sockets, and all of vsock, SCTP and other protocols that come as
modules are found behind descriptors only. A connection in TIME_WAIT or SYN_RECV, one
whose process is gone, and the kernel's own sockets have no process.

What is not seen: sockets in no table that only a request under way or the kernel itself
holds; netlink sockets in a table that grew while memory was short. The guest runs on while it is read: a connection that moves from one
chain to another meanwhile can be missing.`,
		Columns: socketColumns,
		Rows:    socketRows,
		Example: "lab:demo",
	}))
}

var socketColumns = []table.Column{
	{Name: "protocol", Type: table.Text, Doc: "tcp, udp, udplite, icmp (ping), raw, unix, packet, netlink, vsock, xdp, sctp; else as the kernel calls it."},
	{Name: "family", Type: table.Text, Doc: "Address family: inet, inet6, unix, netlink, packet, vsock, xdp; a number if it has no name here."},
	{Name: "type", Type: table.Text, Extra: true, Doc: "Type of the socket: stream, dgram, raw, seqpacket."},
	{Name: "state", Type: table.Text, Doc: "State, in TCP's words; UNCONNECTED for what has no connection."},
	{Name: "local", Type: table.Text, Doc: "Local address: IP address; path of a unix socket as bound, abstract ones with @; CID of vsock."},
	{Name: "local_port", Type: table.Uint, Doc: "Local port; of netlink, the port identifier; of raw sockets, their protocol; missing for unix and packet."},
	{Name: "remote", Type: table.Text, Doc: "Remote address, likewise."},
	{Name: "remote_port", Type: table.Uint, Doc: "Remote port, likewise."},
	{Name: "interface", Type: table.Text, Doc: "Device that it is bound to; missing when to none."},
	{Name: "number", Type: table.Uint, Extra: true, Doc: "IP protocol of a raw socket, EtherType of a packet socket, family of a netlink socket (0 is route)."},
	{Name: "recv_queue", Type: table.Uint, Doc: "As ss shows it: bytes not yet read, for some protocols with their overhead; connections to accept of a listening one."},
	{Name: "send_queue", Type: table.Uint, Doc: "As ss shows it: bytes not yet sent or acknowledged; the limit of connections to accept of a listening one."},
	{Name: "pids", Type: table.Numbers, Doc: "Processes that have a descriptor of it; missing without one."},
	{Name: "uid", Type: table.Uint, Doc: "Owner of the socket."},
	{Name: "inode", Type: table.Uint, Doc: "Inode, as in /proc/PID/fd; missing once it is closed."},
	{Name: "net_ns", Type: table.Uint, Extra: true, Doc: "Inode of the network namespace."},
	{Name: "seen_in", Type: table.Text, Doc: "What led to it: hash (a protocol's table), fd (a descriptor) or both; io_uring (a registered file), flight (a descriptor under way)."},
	{Name: "filter_length", Type: table.Uint, Doc: "Number of instructions of an attached BPF filter; missing without one."},
	{Name: "filter_program", Type: table.Uint, Doc: "Identifier of an attached eBPF program; missing for a classic filter."},
	{Name: "filter", Type: table.List, Extra: true, Doc: "An attached classic filter, disassembled as tcpdump -d does."},
	{Name: "sock", Type: table.Addr, Extra: true, Doc: "Address of the struct sock, or of what stands for it in TIME_WAIT and SYN_RECV."},
}

func socketRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for k, err := range g.Linux.Sockets(ctx) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !yield(socketRow(k)) {
				return
			}
		}
	}
}

func socketRow(k *linux.Socket) (row table.Row, partly error) {
	family, ok := familyNames[k.Family]
	if !ok {
		family = strconv.Itoa(int(k.Family))
	}
	local, remote := ipCell(k.Local), ipCell(k.Remote)
	if k.Family == linux.FamilyUnix {
		local = text(k.Path)
	}
	if k.HasCID {
		local, remote = table.TextValue(strconv.FormatUint(uint64(k.LocalCID), 10)), table.TextValue(strconv.FormatUint(uint64(k.RemoteCID), 10))
	}
	ports := k.Local.IsValid() || k.HasCID || k.Family == linux.FamilyNetlink
	pids := table.Missing(table.None)
	if len(k.PIDs) > 0 {
		pids = table.NumbersValue(k.PIDs)
	}
	length, program, filter := table.Missing(table.None), table.Missing(table.None), table.Missing(table.None)
	if f := k.Filter; f != nil {
		length = table.UintValue(uint64(f.Insns))
		program = numberIf(f.Classic == nil, uint64(f.ID))
		if f.Classic != nil {
			filter = table.ListValue(linux.DisassembleClassic(f.Classic))
		}
	}
	if k.FilterErr != nil {
		length, program, filter = unreadable(k.FilterErr), unreadable(k.FilterErr), unreadable(k.FilterErr)
		partly = fmt.Errorf("filter of socket at %#x: %w", uint64(k.Addr), k.FilterErr)
	}
	return table.Row{
		table.TextValue(k.Protocol), table.TextValue(family), text(k.TypeName()), text(k.StateName()),
		local, numberIf(ports, uint64(k.LocalPort)), remote, numberIf(ports, uint64(k.RemotePort)),
		text(k.Interface), numberIf(k.HasNumber, uint64(k.Number)),
		numberIf(k.HasQueues, k.RecvQueue), numberIf(k.HasQueues, k.SendQueue),
		pids, table.UintValue(uint64(k.UID)), numberIf(k.Inode != 0, k.Inode), numberIf(k.Net.Inode != 0, k.Net.Inode),
		table.TextValue(k.SeenIn.String()), length, program, filter, address(k.Addr),
	}, partly
}
