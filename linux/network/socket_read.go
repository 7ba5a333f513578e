package network

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// socketReader reads sockets for one listing.
type socketReader struct {
	s     *linux.System
	o     *socketLayout
	ns    *netNSLayout
	r     kobj.Reader
	names *DeviceNames
	kinds map[virt.Addr]string // name of a struct proto
	nets  map[virt.Addr]uint64
}

func newSocketReader(s *linux.System) (*socketReader, error) {
	o, err := socketLayoutOf(s)
	if err != nil {
		return nil, err
	}
	ns, err := netNSLayoutOf(s)
	if err != nil {
		return nil, err
	}
	return &socketReader{s: s, o: o, ns: ns, r: s.Reader(), names: NewDeviceNames(s), kinds: map[virt.Addr]string{}, nets: map[virt.Addr]uint64{}}, nil
}

// socket reads the sock at a, which is plausible. kind is what the table that it was found in holds;
// empty if it was found otherwise.
func (w *socketReader) socket(ctx context.Context, a virt.Addr, kind string) (*Socket, error) {
	k, err := kobj.Read(&w.r, func() *Socket { return w.once(ctx, a, kind) })
	if err != nil {
		return nil, fmt.Errorf("socket at %#x: %w", uint64(a), err)
	}
	if k.whole {
		k.Filter, k.FilterErr = kobj.Read(&w.r, func() *SocketFilter { return w.filter(a) })
	}
	return k, nil
}

func (w *socketReader) once(ctx context.Context, a virt.Addr, kind string) *Socket {
	o, r := w.o, &w.r
	k := &Socket{Addr: a, Protocol: kind, Family: uint16(r.Uint(a, o.family)), State: uint8(r.Uint(a, o.state))}
	k.Net.Addr = netAt(w.s, r, a, o.net)
	inum, known := w.nets[k.Net.Addr]
	if !known {
		inum = r.Uint(k.Net.Addr, w.ns.inum)
		w.nets[k.Net.Addr] = inum
	}
	k.Net.Inode = inum
	if k.whole = k.State != tcpTimeWait && k.State != tcpNewSynRecv; k.whole {
		k.Type = uint16(r.Uint(a, o.typ))
		w.owner(k)
	} else {
		k.Type = 1
	}
	number := uint32(r.Uint(a, o.protocol))
	if k.Protocol == "" {
		k.Protocol = w.protocol(k, number)
	}
	index := int32(r.Uint(a, o.boundDev))
	switch k.Family {
	case FamilyInet, FamilyInet6:
		w.inet(k, number)
	case FamilyUnix:
		w.unix(k)
	case FamilyPacket:
		k.Number, k.HasNumber = uint32(bits.ReverseBytes16(uint16(r.Uint(a, o.packetNum)))), true
		index = int32(r.Uint(a, o.packetIndex))
		w.memory(k)
	case FamilyNetlink:
		k.Number, k.HasNumber = number, true
		k.LocalPort, k.RemotePort = uint32(r.Uint(a, o.portid)), uint32(r.Uint(a, o.dstPortid))
		w.memory(k)
	case FamilyVsock:
		w.vsock(k)
	case FamilyXDP:
		if o.xdpDev.Present() {
			k.Interface = w.names.Name(r.Pointer(a, o.xdpDev))
		}
	}
	if index > 0 {
		k.Interface = w.names.Of(ctx, k.Net, index)
	}
	return k
}

// owner reads who owns the socket. One that no descriptor refers to any more has
// lost its inode.
func (w *socketReader) owner(k *Socket) {
	o, r := w.o, &w.r
	k.socket = r.Pointer(k.Addr, o.socket)
	if o.ino.Present() { // 6.16
		k.Inode, k.UID = r.Uint(k.Addr, o.ino), uint32(r.Uint(k.Addr, o.uid))
		return
	}
	if k.socket != 0 {
		inode := k.socket - virt.Addr(o.allocSocket.Offset) + virt.Addr(o.vfsInode.Offset)
		k.Inode, k.UID = r.Uint(inode, o.inodeNumber), uint32(r.Uint(inode, o.inodeUID))
	}
}

// protocol is what kind of socket this is where no table shows it.
func (w *socketReader) protocol(k *Socket, number uint32) string {
	const tcp, udp, icmp, icmp6, sctp, udplite, mptcp = 6, 17, 1, 58, 132, 136, 262
	switch k.Family {
	case FamilyUnix:
		return "unix"
	case FamilyNetlink:
		return "netlink"
	case FamilyPacket:
		return "packet"
	case FamilyVsock:
		return "vsock"
	case FamilyXDP:
		return "xdp"
	case FamilyInet, FamilyInet6:
		switch {
		case k.Type == 3:
			return "raw"
		case number == tcp && k.Type == 1:
			return "tcp"
		case number == udp:
			return "udp"
		case number == udplite:
			return "udplite"
		case number == icmp || number == icmp6:
			return "icmp"
		case number == sctp:
			return "sctp"
		case number == mptcp:
			return "mptcp"
		}
	}
	prot := w.r.Pointer(k.Addr, w.o.prot)
	name, ok := w.kinds[prot]
	if !ok && prot != 0 {
		name = strings.ToLower(w.r.CString(w.o.protName.At(prot), 32))
		w.kinds[prot] = name
	}
	return name
}

func (w *socketReader) inet(k *Socket, number uint32) {
	o, r, a := w.o, &w.r, k.Addr
	if k.Family == FamilyInet6 && o.daddr6.Present() {
		var local, remote [16]byte
		copy(local[:], r.Bytes(o.rcvSaddr6.At(a), 16))
		copy(remote[:], r.Bytes(o.daddr6.At(a), 16))
		k.Local, k.Remote = netip.AddrFrom16(local), netip.AddrFrom16(remote)
	} else {
		k.Local, k.Remote = netIPv4(uint32(r.Uint(a, o.rcvSaddr))), netIPv4(uint32(r.Uint(a, o.daddr)))
	}
	k.LocalPort = uint32(r.Uint(a, o.num))
	k.RemotePort = uint32(bits.ReverseBytes16(uint16(r.Uint(a, o.dport))))
	switch k.Protocol {
	case "tcp":
		if k.LocalPort == 0 && k.whole && k.State == tcpClose {
			// It was connected once: it gave its port back, and remembers which it was,
			// as getsockname(2) reports (inet_getname).
			k.LocalPort = uint32(bits.ReverseBytes16(uint16(r.Uint(a, o.sport))))
		}
		w.tcp(k)
	case "raw":
		k.Number, k.HasNumber = number, true
		w.memory(k)
	case "udp", "udplite":
		w.memory(k)
		if o.deficit.Present() { // what was read but not accounted for yet (udp_rqueue_get)
			k.RecvQueue -= min(k.RecvQueue, r.Uint(a, o.deficit))
		}
	case "mptcp":
		w.memory(k)
		if k.State == tcpListen && o.first.Present() {
			if first := r.Pointer(a, o.first); first != 0 {
				k.RecvQueue, k.SendQueue = r.Uint(first, o.ackBacklog), r.Uint(first, o.maxAckBacklog)
			}
		}
	default:
		w.memory(k)
	}
}

// netIPv4 is an address as the kernel keeps it, big endian in memory.
func netIPv4(v uint32) netip.Addr {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	return netip.AddrFrom4(b)
}

func (w *socketReader) tcp(k *Socket) {
	o, r, a := w.o, &w.r, k.Addr
	switch k.State {
	case tcpTimeWait:
		k.State = uint8(r.Uint(a, o.substate)) // FIN_WAIT2 can be kept as small too
	case tcpNewSynRecv:
	case tcpListen:
		k.RecvQueue, k.SendQueue = r.Uint(a, o.ackBacklog), r.Uint(a, o.maxAckBacklog)
	default:
		k.RecvQueue = uint64(max(0, int32(uint32(r.Uint(a, o.rcvNxt))-uint32(r.Uint(a, o.copiedSeq)))))
		k.SendQueue = uint64(uint32(r.Uint(a, o.writeSeq)) - uint32(r.Uint(a, o.sndUna)))
	}
	k.HasQueues = true
}

// memory fills the queues of sockets for which the kernel counts only memory
// (sk_rmem_alloc_get, sk_wmem_alloc_get).
func (w *socketReader) memory(k *Socket) {
	o, r := w.o, &w.r
	k.RecvQueue = uint64(max(0, r.Int(k.Addr, o.rmem)))
	k.SendQueue = uint64(max(0, int64(int32(r.Uint(k.Addr, o.wmem)))-1))
	k.HasQueues = true
}

func (w *socketReader) unix(k *Socket) {
	o, r := w.o, &w.r
	if !o.unixAddr.Present() || !o.unixLen.Present() || !o.unixName.Present() {
		return
	}
	if addr := r.Pointer(k.Addr, o.unixAddr); addr != 0 {
		const family, longest = 2, 110 // sizeof(struct sockaddr_un)
		n := min(max(int(r.Uint(addr, o.unixLen))-family, 0), longest)
		path := string(r.Bytes(o.unixName.At(addr)+family, n))
		if strings.HasPrefix(path, "\x00") {
			// As /proc/net/unix: any byte but the last may be zero.
			k.Path = strings.ReplaceAll(path, "\x00", "@")
		} else {
			k.Path = kobj.CString([]byte(path))
		}
	}
	queue := o.recvQ.At(k.Addr)
	if k.State == tcpListen {
		k.RecvQueue, k.SendQueue = r.Uint(queue, o.recvN), r.Uint(k.Addr, o.maxAckBacklog)
	} else {
		w.memory(k)
		k.RecvQueue = w.unread(k, queue)
	}
	k.HasQueues = true
}

// unread is what a read would find (unix_inq_len): all of a stream's bytes, or the
// first message.
func (w *socketReader) unread(k *Socket, queue virt.Addr) (n uint64) {
	const dgram, most = 2, 4096
	o, r := w.o, &w.r
	skb := r.Pointer(queue, o.skbNext)
	for range min(most, r.Uint(queue, o.recvN)) {
		if skb == queue || skb == 0 || r.Err != nil {
			break
		}
		n += r.Uint(skb, o.skbLen)
		if k.Type == dgram {
			break
		}
		if o.consumed.Present() {
			n -= min(n, r.Uint(o.skbCB.At(skb), o.consumed))
		}
		skb = r.Pointer(skb, o.skbNext)
	}
	return n
}

// vsock reads the addresses of a struct vsock_sock, which is a module's: its types
// are not among the kernel's own. Since 3.9 two sockaddr_vm follow the sock, with
// at most a pointer before them; they are believed if both say that they are such.
func (w *socketReader) vsock(k *Socket) {
	r := &w.r
	b := r.Bytes(k.Addr+virt.Addr(w.o.sockSize), 64)
	for off := 0; off+32 <= len(b); off += 4 {
		local, remote := b[off:off+16], b[off+16:off+32]
		if binary.LittleEndian.Uint32(local) == FamilyVsock && binary.LittleEndian.Uint32(remote) == FamilyVsock {
			k.LocalPort, k.LocalCID = binary.LittleEndian.Uint32(local[4:]), binary.LittleEndian.Uint32(local[8:])
			k.RemotePort, k.RemoteCID = binary.LittleEndian.Uint32(remote[4:]), binary.LittleEndian.Uint32(remote[8:])
			k.HasCID = true
			return
		}
	}
}

// filter reads the socket's filter; nil if it has none.
func (w *socketReader) filter(a virt.Addr) *SocketFilter {
	o, r := w.o, &w.r
	filter := r.Pointer(a, o.filter)
	if filter == 0 {
		return nil
	}
	prog := r.Pointer(filter, o.filterProg)
	orig := r.Pointer(prog, o.origProg)
	if orig == 0 {
		f := &SocketFilter{Insns: uint32(r.Uint(prog, o.progLen))}
		if o.auxID.Present() {
			f.ID = uint32(r.Uint(r.Pointer(prog, o.progAux), o.auxID))
		}
		return f
	}
	f := &SocketFilter{Insns: uint32(r.Uint(orig, o.origLen))}
	n := min(f.Insns, cbpfMax)
	f.Classic = append(make([]byte, 0, 8*n), r.Bytes(r.Pointer(orig, o.origCode), int(8*n))...)
	return f
}
