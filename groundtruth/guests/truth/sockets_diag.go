package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// socketSpace reports the sockets of the namespace that our thread is in.
type socketSpace struct {
	t     *socketTeller
	inode uint64
	names map[uint32]any // of interfaces, by index

	netlinks map[uint32]bool // inodes of netlink's that were told
}

// socketStates are the states of include/net/tcp_states.h by number. What is only bound
// is closed (TCP_BOUND_INACTIVE is a word of the diagnosis's).
var socketStates = [...]string{
	1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 6: "TIME_WAIT", 7: "CLOSE",
	8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING", 12: "SYN_RECV", 13: "CLOSE",
}

func socketState(protocol string, state uint8) string {
	if int(state) >= len(socketStates) {
		return strconv.Itoa(int(state))
	}
	name := socketStates[state]
	if name == "CLOSE" && protocol != "tcp" && protocol != "mptcp" {
		return "UNCONNECTED"
	}
	return name
}

var socketTypes = map[uint8]string{1: "stream", 2: "dgram", 3: "raw", 5: "seqpacket", 10: "packet"}

// diag asks sock_diag for all that it knows.
func (n *socketSpace) diag() error {
	const all = 0xffffffff
	for _, p := range []struct {
		name, kind string
		number     uint8
	}{{"tcp", "stream", 6}, {"udp", "dgram", 17}, {"udplite", "dgram", 136}, {"raw", "raw", 255}, {"mptcp", "stream", 0}} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			req := make([]byte, 56) // struct inet_diag_req_v2
			req[0], req[1] = family, p.number
			binary.LittleEndian.PutUint32(req[4:], all)
			if p.name == "mptcp" {
				req = append(req, 8, 0, 3, 0, 0x06, 0x01, 0, 0) // INET_DIAG_REQ_PROTOCOL: IPPROTO_MPTCP
			}
			found, err := n.dump(req, func(m []byte) error { return n.inet(p.name, p.kind, m) })
			if err != nil {
				return fmt.Errorf("diagnosis of %s: %w", p.name, err)
			}
			if p.name == "mptcp" {
				n.t.mptcp = found
			}
		}
	}
	for _, f := range []struct {
		name   string
		family uint8
		size   int
		show   int // where in the request what to show belongs
		what   uint32
		tell   func(m []byte) error
	}{
		{"unix", unix.AF_UNIX, 24, 12, 1 | 0x10 | 0x40, n.unix}, // UDIAG_SHOW_NAME, RQLEN, UID
		{"packet", unix.AF_PACKET, 20, 8, 1 | 0x10 | 0x20, n.packet},
		{"vsock", unix.AF_VSOCK, 24, 12, 0, n.vsock},
		{"xdp", unix.AF_XDP, 20, 8, 1, n.xdp},
	} {
		req := make([]byte, f.size)
		req[0] = f.family
		if f.show == 12 {
			binary.LittleEndian.PutUint32(req[4:], all) // states
		}
		binary.LittleEndian.PutUint32(req[f.show:], f.what)
		if _, err := n.dump(req, f.tell); err != nil {
			return fmt.Errorf("diagnosis of %s: %w", f.name, err)
		}
	}
	if err := n.netlinkDiag(); err != nil {
		return fmt.Errorf("diagnosis of netlink: %w", err)
	}
	return nil
}

// netlinkDiag asks for netlink's sockets. Where an answer is full, the kernel loses the
// socket that had no place left in it: its walk of the hash has passed that one
// (__netlink_diag_dump). So each protocol is asked for by itself, and on one socket: its
// first answer has a page at most, later ones 32 KiB, for some hundred sockets. The
// last protocol, which nobody has, comes first.
func (n *socketSpace) netlinkDiag() error {
	fd, err := n.diagSocket()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const protocols, most = 32, 300 // MAX_LINKS
	for p := protocols - 1; p >= 0; p-- {
		req := make([]byte, 20) // struct netlink_diag_req
		req[0], req[1] = unix.AF_NETLINK, byte(p)
		binary.LittleEndian.PutUint32(req[8:], 1) // NDIAG_SHOW_MEMINFO
		told := 0
		found, err := diagDump(fd, req, func(m []byte) error { told++; return n.netlink(m) })
		if err != nil || !found {
			return err
		}
		if told > most {
			return fmt.Errorf("protocol %d: %d sockets are more than one answer has", p, told)
		}
	}
	return nil
}

// diagSocket is a socket to ask sock_diag with, which is not told of.
func (n *socketSpace) diagSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	n.t.own[st.Ino] = true
	return fd, nil
}

// dump sends one request of sock_diag and calls f with each answer. found is false if this
// kernel has no such diagnosis.
func (n *socketSpace) dump(req []byte, f func(m []byte) error) (found bool, err error) {
	fd, err := n.diagSocket()
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	return diagDump(fd, req, f)
}

func diagDump(fd int, req []byte, f func(m []byte) error) (found bool, err error) {
	const byFamily = 20 // SOCK_DIAG_BY_FAMILY
	m := binary.LittleEndian.AppendUint32(nil, uint32(16+len(req)))
	m = binary.LittleEndian.AppendUint16(m, byFamily)
	m = binary.LittleEndian.AppendUint16(m, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	m = append(m, make([]byte, 8)...)
	if err := unix.Sendto(fd, append(m, req...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, err
	}
	buf := make([]byte, 1<<17)
	for {
		got, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return false, err
		}
		for b := buf[:got]; len(b) >= 16; {
			size, kind := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:])
			if size < 16 || int(size) > len(b) {
				return false, fmt.Errorf("a message of %d bytes in %d", size, len(b))
			}
			body := b[16:size]
			switch kind {
			case unix.NLMSG_DONE:
				if len(body) >= 4 && int32(binary.LittleEndian.Uint32(body)) == -int32(unix.ENOENT) {
					return false, nil
				}
				return true, nil
			case unix.NLMSG_ERROR:
				e := unix.Errno(-int32(binary.LittleEndian.Uint32(body)))
				if errors.Is(e, unix.ENOENT) || errors.Is(e, unix.EINVAL) {
					return false, nil
				}
				return false, e
			case byFamily:
				if err := f(body); err != nil {
					return true, err
				}
			}
			b = b[min(len(b), int(size+3)&^3):]
		}
	}
}

// socketAttributes splits the attributes after a message by their number.
func socketAttributes(b []byte) map[uint16][]byte {
	a := map[uint16][]byte{}
	for len(b) >= 4 {
		size := int(binary.LittleEndian.Uint16(b))
		if size < 4 || size > len(b) {
			break
		}
		a[binary.LittleEndian.Uint16(b[2:])] = b[4:size]
		b = b[min(len(b), (size+3)&^3):]
	}
	return a
}

// word is the number at a place of an attribute; 0 where there is none.
func word(b []byte, at int) uint32 {
	if len(b) < 4*at+4 {
		return 0
	}
	return binary.LittleEndian.Uint32(b[4*at:])
}

// interfaceName is null for index 0.
func (n *socketSpace) interfaceName(index uint32) any {
	name, known := n.names[index]
	if !known {
		if i, err := net.InterfaceByIndex(int(index)); err == nil {
			name = i.Name
		}
		n.names[index] = name
	}
	return name
}

// inet reads a struct inet_diag_msg.
func (n *socketSpace) inet(protocol, kind string, m []byte) error {
	if len(m) < 72 {
		return fmt.Errorf("%d bytes", len(m))
	}
	address := func(b []byte) string {
		if m[0] == unix.AF_INET {
			return netip.AddrFrom4([4]byte(b)).String()
		}
		return netip.AddrFrom16([16]byte(b)).String()
	}
	row := map[string]any{
		"protocol": protocol, "family": map[uint8]string{unix.AF_INET: "inet", unix.AF_INET6: "inet6"}[m[0]], "type": kind,
		"state": socketState(protocol, m[1]),
		"local": address(m[8:]), "local_port": binary.BigEndian.Uint16(m[4:]),
		"remote": address(m[24:]), "remote_port": binary.BigEndian.Uint16(m[6:]),
		"interface": n.interfaceName(word(m, 10)), "number": nil,
		"recv_queue": word(m, 14), "send_queue": word(m, 15), "uid": word(m, 16),
	}
	if protocol == "raw" {
		const diagProtocol = 10 // INET_DIAG_PROTOCOL
		if a := socketAttributes(m[72:])[diagProtocol]; len(a) > 0 {
			row["number"] = a[0]
		}
	}
	return n.tell(row, uint64(word(m, 17)))
}

// noPorts are the cells of a family without addresses of IP's.
func noPorts(row map[string]any) map[string]any {
	for _, column := range []string{"local", "local_port", "remote", "remote_port", "interface", "number"} {
		if _, known := row[column]; !known {
			row[column] = nil
		}
	}
	return row
}

// unix reads a struct unix_diag_msg.
func (n *socketSpace) unix(m []byte) error {
	if len(m) < 16 {
		return fmt.Errorf("%d bytes", len(m))
	}
	const name, queues, uid = 0, 4, 7 // UNIX_DIAG_NAME, RQLEN, UID
	a := socketAttributes(m[16:])
	row := map[string]any{
		"protocol": "unix", "family": "unix", "type": socketTypes[m[1]], "state": socketState("unix", m[2]),
		"recv_queue": word(a[queues], 0), "send_queue": word(a[queues], 1),
	}
	if b, known := a[uid]; known { // 5.3
		row["uid"] = word(b, 0)
	}
	if b := a[name]; len(b) > 0 && b[0] == 0 {
		row["local"] = strings.ReplaceAll(string(b), "\x00", "@") // as /proc/net/unix
	} else if len(b) > 0 {
		row["local"], _, _ = strings.Cut(string(b), "\x00")
	}
	return n.tell(noPorts(row), uint64(word(m, 1)))
}

// memoryQueues are the two queues out of an attribute of SK_MEMINFO_ values.
func memoryQueues(row map[string]any, meminfo []byte) {
	if len(meminfo) >= 12 {
		row["recv_queue"], row["send_queue"] = word(meminfo, 0), word(meminfo, 2)
	}
}

// packet reads a struct packet_diag_msg.
func (n *socketSpace) packet(m []byte) error {
	if len(m) < 16 {
		return fmt.Errorf("%d bytes", len(m))
	}
	const info, uid, meminfo, filter = 0, 5, 6, 7 // PACKET_DIAG_INFO, UID, MEMINFO, FILTER
	a := socketAttributes(m[16:])
	row := map[string]any{
		"protocol": "packet", "family": "packet", "type": socketTypes[m[1]], "number": binary.LittleEndian.Uint16(m[2:]),
		"interface": n.interfaceName(word(a[info], 0)), "uid": word(a[uid], 0),
	}
	memoryQueues(row, a[meminfo])
	tellClassic(row, a[filter]) // holders can be asked besides
	return n.tell(noPorts(row), uint64(word(m, 1)))
}

// netlink reads a struct netlink_diag_msg.
func (n *socketSpace) netlink(m []byte) error {
	if len(m) < 28 {
		return fmt.Errorf("%d bytes", len(m))
	}
	row := map[string]any{
		"protocol": "netlink", "family": "netlink", "type": socketTypes[m[1]], "state": socketState("netlink", m[3]), "number": m[2],
		"local": nil, "local_port": word(m, 1), "remote": nil, "remote_port": word(m, 2),
	}
	memoryQueues(row, socketAttributes(m[28:])[0]) // NETLINK_DIAG_MEMINFO
	inode := word(m, 4)
	if n.netlinks[inode] {
		return nil // a member of a group comes a second time
	}
	n.netlinks[inode] = true
	if m[2] == unix.NETLINK_SOCK_DIAG && inode != 0 && n.t.holders[uint64(inode)] == nil {
		delete(row, "recv_queue") // the kernel's own, with our request in it
	}
	return n.tell(row, uint64(inode))
}

// vsock reads a struct vsock_diag_msg.
func (n *socketSpace) vsock(m []byte) error {
	if len(m) < 24 {
		return fmt.Errorf("%d bytes", len(m))
	}
	cid := func(at int) string { return strconv.FormatUint(uint64(word(m, at)), 10) }
	return n.tell(map[string]any{
		"protocol": "vsock", "family": "vsock", "type": socketTypes[m[1]], "state": socketState("vsock", m[2]), "number": nil,
		"local": cid(1), "local_port": word(m, 2), "remote": cid(3), "remote_port": word(m, 4),
	}, uint64(word(m, 5)))
}

// xdp reads a struct xdp_diag_msg.
func (n *socketSpace) xdp(m []byte) error {
	if len(m) < 16 {
		return fmt.Errorf("%d bytes", len(m))
	}
	const info, uid = 1, 2 // XDP_DIAG_INFO, UID
	a := socketAttributes(m[16:])
	return n.tell(noPorts(map[string]any{
		"protocol": "xdp", "family": "xdp", "type": socketTypes[m[1]],
		"interface": n.interfaceName(word(a[info], 0)), "uid": word(a[uid], 0),
	}), uint64(word(m, 1)))
}

// procAddress reads "0100007F:1092" of /proc/net: the words of an address as the processor
// has them.
func procAddress(text string) (address, port any, err error) {
	a, p, _ := strings.Cut(text, ":")
	var b []byte
	for ; len(a) >= 8; a = a[8:] {
		v, err := strconv.ParseUint(a[:8], 16, 32)
		if err != nil {
			return nil, nil, err
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	ip, ok := netip.AddrFromSlice(b)
	if !ok {
		return nil, nil, fmt.Errorf("no address: %q", text)
	}
	number, err := strconv.ParseUint(p, 16, 16)
	return ip.String(), number, err
}
