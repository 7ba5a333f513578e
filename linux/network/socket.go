package network

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Address families (include/linux/socket.h).
const (
	FamilyUnix    = 1
	FamilyInet    = 2
	FamilyInet6   = 10
	FamilyNetlink = 16
	FamilyPacket  = 17
	FamilyVsock   = 40
	FamilyXDP     = 44
)

// SeenIn says which ways lead to a socket.
type SeenIn uint8

// The ways. Some are in no table by nature: one of a program that never bound it,
// or of a family that keeps none.
const (
	SeenInTable      SeenIn = 1 << iota // the protocol's own hash table or list
	SeenInDescriptor                    // a file descriptor of a process
	SeenInRing                          // a file registered with io_uring
	SeenInFlight                        // a descriptor under way to another process (SCM_RIGHTS)
)

// String is hash, fd or both, then io_uring and flight.
func (w SeenIn) String() string {
	ways := [...]string{"", "hash", "fd", "both"}[w&3]
	if w&SeenInRing != 0 {
		ways += ",io_uring"
	}
	if w&SeenInFlight != 0 {
		ways += ",flight"
	}
	return strings.TrimPrefix(ways, ",")
}

// Socket is a socket of the guest's kernel: an open one, or what is left of a
// TCP connection (TIME_WAIT), or becomes one (SYN_RECV).
type Socket struct {
	Addr     virt.Addr // of the struct sock, inet_timewait_sock or request_sock
	Protocol string    // tcp, udp, udplite, icmp, raw, unix, packet, netlink, vsock, xdp; or the kernel's name for it
	Family   uint16    // AF_
	Type     uint16    // SOCK_; 0 where none is left
	State    uint8     // as TCP's states (include/net/tcp_states.h), whatever the family
	Net      Namespace

	// Addresses of inet and inet6; invalid for other families.
	Local, Remote netip.Addr
	// Ports of inet and inet6, netlink and vsock.
	LocalPort, RemotePort uint32
	// CIDs of vsock, good if HasCID.
	LocalCID, RemoteCID uint32
	HasCID              bool
	// Path of a unix socket as it was bound; an abstract one begins with "@".
	Path string
	// Number is the raw socket's IP protocol, the packet socket's EtherType or the
	// netlink socket's family; HasNumber says whether there is one.
	Number    uint32
	HasNumber bool
	// Interface that it is bound to.
	Interface string

	// RecvQueue and SendQueue are as ss shows them: bytes to read and bytes not
	// acknowledged; of a listening socket, connections to accept and their limit.
	RecvQueue, SendQueue uint64
	HasQueues            bool

	UID       uint32
	Inode     uint64 // as the links in /proc/PID/fd show it; 0 where none is left
	PIDs      []int32
	SeenIn    SeenIn
	Filter    *SocketFilter
	FilterErr error // why Filter could not be read

	whole  bool      // a struct sock, not what stands for one
	socket virt.Addr // the struct socket; 0 without
}

// SocketFilter is what was attached to a socket with SO_ATTACH_FILTER or
// SO_ATTACH_BPF.
type SocketFilter struct {
	Classic []byte // instructions of the classic program, 8 bytes each; nil for an eBPF one
	ID      uint32 // of the eBPF program; classic ones have none
	Insns   uint32 // how many instructions it has: classic, or eBPF's
}

var socketStates = [...]string{
	"", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
	"CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "SYN_RECV", "BOUND_INACTIVE",
}

const (
	tcpEstablished = 1
	tcpTimeWait    = 6
	tcpClose       = 7
	tcpListen      = 10
	tcpNewSynRecv  = 12
)

// StateName is the state by name: TCP's own, and for what has no connection
// UNCONNECTED.
func (k *Socket) StateName() string {
	if k.State == tcpClose && k.Protocol != "tcp" && k.Protocol != "mptcp" && k.Protocol != "sctp" {
		return "UNCONNECTED"
	}
	if int(k.State) < len(socketStates) {
		return socketStates[k.State]
	}
	return ""
}

// TypeName is the type of the socket: stream, dgram, raw, seqpacket …; empty if
// there is none.
func (k *Socket) TypeName() string {
	names := [...]string{"", "stream", "dgram", "raw", "rdm", "seqpacket", "dccp"}
	switch {
	case int(k.Type) < len(names):
		return names[k.Type]
	case k.Type == 10:
		return "packet"
	}
	return ""
}

// Endpoints is the protocol, the local end and, of a connection, the other one, as one text; empty
// for no socket. A socket file in a file system is none.
func (k *Socket) Endpoints() string {
	if k == nil {
		return ""
	}
	s := k.Protocol
	here := k.side(k.Local, k.LocalCID, k.LocalPort)
	if k.Family == FamilyUnix {
		here = k.Path
	}
	if here != "" {
		s += " " + here
	}
	if k.RemotePort != 0 || k.Remote.IsValid() && !k.Remote.IsUnspecified() {
		s += "->" + k.side(k.Remote, k.RemoteCID, k.RemotePort)
	}
	return s
}

func (k *Socket) side(address netip.Addr, cid, port uint32) string {
	switch {
	case k.HasCID:
		return fmt.Sprintf("%d:%d", cid, port)
	case address.Is6():
		return fmt.Sprintf("[%s]:%d", address, port)
	case address.IsValid():
		return fmt.Sprintf("%s:%d", address, port)
	case k.Family == FamilyNetlink:
		return fmt.Sprintf(":%d", port)
	}
	return ""
}

// socketLayout is struct sock and what embeds it.
type socketLayout struct {
	// struct sock_common
	family, state, num, dport, daddr, rcvSaddr, daddr6, rcvSaddr6 kobj.Field
	boundDev, prot, net, node, bindNode                           kobj.Field
	sport                                                         kobj.Field // struct inet_sock
	// struct sock
	protocol, typ, socket, uid, ino, filter             kobj.Field
	rmem, wmem, ackBacklog, maxAckBacklog, recvQ, recvN kobj.Field
	protName                                            kobj.Field
	// tcp_sock, udp_sock, mptcp_sock, inet_timewait_sock
	rcvNxt, copiedSeq, writeSeq, sndUna, deficit, first, substate kobj.Field
	// struct socket_alloc, inode
	vfsInode, allocSocket, inodeUID, inodeNumber kobj.Field
	// other families
	unixAddr, unixLen, unixName, skbLen, skbCB, consumed, skbNext kobj.Field
	packetNum, packetIndex                                        kobj.Field
	portid, dstPortid                                             kobj.Field
	xdpDev                                                        kobj.Field
	sockSize, commonSize                                          uint32
	// filters
	filterProg, origProg, origLen, origCode, progLen, progAux, auxID kobj.Field
}

func socketLayoutOf(s *linux.System) (*socketLayout, error) {
	return kobj.LayoutOf(s.Walker, "sockets", func(r *kobj.Resolver, o *socketLayout) {
		r.Prefetch("net_namespace_list", "tcp_hashinfo", "udp_table", "udplite_table", "raw_v4_hashinfo", "raw_v6_hashinfo",
			"ping_table", "unix_socket_table", "nl_table", "socket_file_ops", "io_uring_fops")
		c := func(path string) kobj.Field { return r.Field("sock_common", path) }
		o.sport = r.Optional("inet_sock", "inet_sport")
		o.family, o.state, o.num, o.dport = c("skc_family"), c("skc_state"), c("skc_num"), c("skc_dport")
		o.daddr, o.rcvSaddr = c("skc_daddr"), c("skc_rcv_saddr")
		o.daddr6, o.rcvSaddr6 = r.Optional("sock_common", "skc_v6_daddr"), r.Optional("sock_common", "skc_v6_rcv_saddr")
		o.boundDev, o.prot, o.net, o.node = c("skc_bound_dev_if"), c("skc_prot"), netField(r, "sock_common", "skc_net"), c("skc_node")
		o.bindNode, o.commonSize = r.Optional("sock_common", "skc_bind_node"), r.Size("sock_common")
		k := func(path string) kobj.Field { return r.Field("sock", path) }
		o.protocol, o.typ, o.socket = k("sk_protocol"), k("sk_type"), k("sk_socket")
		// Until 6.16 the inode behind sk_socket told these.
		o.ino, o.uid = r.Optional("sock", "sk_ino"), k("sk_uid")
		o.filter, o.rmem, o.wmem = k("sk_filter"), k("sk_backlog.rmem_alloc"), k("sk_wmem_alloc")
		o.ackBacklog, o.maxAckBacklog = k("sk_ack_backlog"), k("sk_max_ack_backlog")
		o.recvQ, o.recvN = k("sk_receive_queue"), r.Field("sk_buff_head", "qlen")
		o.protName = r.Field("proto", "name")
		o.rcvNxt, o.copiedSeq = r.Field("tcp_sock", "rcv_nxt"), r.Field("tcp_sock", "copied_seq")
		o.writeSeq, o.sndUna = r.Field("tcp_sock", "write_seq"), r.Field("tcp_sock", "snd_una")
		o.deficit = r.Optional("udp_sock", "forward_deficit") // 4.16
		o.first = r.Optional("mptcp_sock", "first")           // 5.6
		o.substate = r.Field("inet_timewait_sock", "tw_substate")
		o.vfsInode, o.allocSocket = r.Field("socket_alloc", "vfs_inode"), r.Field("socket_alloc", "socket")
		o.inodeUID, o.inodeNumber = r.Field("inode", "i_uid"), r.Field("inode", "i_ino")
		o.unixAddr = r.Optional("unix_sock", "addr")
		o.unixLen, o.unixName = r.Optional("unix_address", "len"), r.Optional("unix_address", "name")
		o.skbLen, o.skbCB, o.skbNext = r.Field("sk_buff", "len"), r.Field("sk_buff", "cb"), r.Field("sk_buff", "next")
		o.consumed = r.Optional("unix_skb_parms", "consumed")
		o.packetNum, o.packetIndex = r.Optional("packet_sock", "num"), r.Optional("packet_sock", "ifindex")
		o.portid, o.dstPortid = r.Field("netlink_sock", "portid"), r.Field("netlink_sock", "dst_portid")
		o.xdpDev = r.Optional("xdp_sock", "dev")
		o.sockSize = r.Size("sock")
		o.filterProg = r.Field("sk_filter", "prog")
		o.origProg, o.progLen, o.progAux = r.Field("bpf_prog", "orig_prog"), r.Field("bpf_prog", "len"), r.Field("bpf_prog", "aux")
		o.origLen, o.origCode = r.Field("sock_fprog_kern", "len"), r.Field("sock_fprog_kern", "filter")
		o.auxID = r.Optional("bpf_prog_aux", "id")
	})
}
