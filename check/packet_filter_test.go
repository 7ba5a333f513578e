package check

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/linux/network"
)

// insns are instructions of classic BPF, four numbers each: code, jt, jf, k.
func insns(numbers ...uint32) (code []byte) {
	for ; len(numbers) >= 4; numbers = numbers[4:] {
		code = binary.LittleEndian.AppendUint16(code, uint16(numbers[0]))
		code = append(code, byte(numbers[1]), byte(numbers[2]))
		code = binary.LittleEndian.AppendUint32(code, numbers[3])
	}
	return code
}

// TestWaitsFor: filters of programs that systems have wait for nothing secret, and those of
// backdoors do. Raw is what a packet socket is that sees the header of Ethernet.
func TestWaitsFor(t *testing.T) {
	packet := func(kind uint16) *network.Socket {
		return &network.Socket{Family: network.FamilyPacket, Protocol: "packet", Type: kind, Number: etherAll, HasNumber: true}
	}
	const raw, dgram = 3, 2
	for _, c := range []struct {
		name   string
		socket *network.Socket
		code   []byte
		want   string // what it waits for, in part; empty for nothing
	}{
		{"dhclient: UDP to port 68, no fragment", packet(raw), insns(
			0x28, 0, 0, 12, 0x15, 0, 8, 0x800, 0x30, 0, 0, 23, 0x15, 0, 6, 17, 0x28, 0, 0, 20, 0x45, 4, 0, 0x1fff,
			0xb1, 0, 0, 14, 0x48, 0, 0, 16, 0x15, 0, 1, 68, 6, 0, 0, 0xffffffff, 6, 0, 0, 0), ""},
		{"LLDP by its address and EtherType", packet(raw), insns(
			0x20, 0, 0, 0, 0x15, 0, 4, 0x0180c200, 0x28, 0, 0, 12, 0x15, 0, 2, 0x88cc, 0x30, 0, 0, 14, 6, 0, 0, 0xffff, 6, 0, 0, 0), ""},
		{"ARP for an address", packet(raw), insns(
			0x28, 0, 0, 12, 0x15, 0, 4, 0x806, 0x20, 0, 0, 28, 0x15, 0, 2, 0xc0a80001, 6, 0, 0, 0xffff, 6, 0, 0, 0, 6, 0, 0, 0), ""},
		{"EAPOL", packet(dgram), insns(0x28, 0, 0, 0, 0x15, 0, 1, 0x888e, 6, 0, 0, 0xffff, 6, 0, 0, 0), ""},
		{"tcpdump: port 22", packet(raw), insns(
			0x28, 0, 0, 12, 0x15, 0, 8, 0x800, 0x30, 0, 0, 23, 0x15, 0, 6, 6, 0x28, 0, 0, 20, 0x45, 4, 0, 0x1fff,
			0xb1, 0, 0, 14, 0x48, 0, 0, 14, 0x15, 0, 1, 22, 6, 0, 0, 262144, 6, 0, 0, 0), ""},
		{"ping: replies with its identifier", &network.Socket{Family: network.FamilyInet, Protocol: "raw", Type: 3, Number: 1, HasNumber: true}, insns(
			0xb1, 0, 0, 0, 0x48, 0, 0, 4, 0x15, 0, 3, 0x1234, 0x50, 0, 0, 0, 0x15, 0, 1, 0, 6, 0, 0, 0xffff, 6, 0, 0, 0), ""},
		{"IS-IS", packet(dgram), insns(0x28, 0, 0, 0, 0x15, 0, 1, 0xfefe, 6, 0, 0, 0xffff, 6, 0, 0, 0), ""},
		{"bytes in UDP", packet(raw), insns(
			0x28, 0, 0, 12, 0x15, 0, 6, 0x800, 0x30, 0, 0, 23, 0x15, 0, 4, 17, 0xb1, 0, 0, 14, 0x48, 0, 0, 22, 0x15, 0, 1, 0x7255, 6, 0, 0, 0xffff, 6, 0, 0, 0), "0x7255 at byte 0 of the payload of UDP"},
		{"bytes in ICMP", packet(raw), insns(
			0x28, 0, 0, 12, 0x15, 0, 6, 0x800, 0x30, 0, 0, 23, 0x15, 0, 4, 1, 0xb1, 0, 0, 14, 0x48, 0, 0, 22, 0x15, 0, 1, 0x7255, 6, 0, 0, 0xffff, 6, 0, 0, 0), "0x7255 at byte 0 of the payload of ICMP"},
		{"bytes behind the header of TCP", packet(raw), insns(
			0x28, 0, 0, 12, 0x15, 0, 11, 0x800, 0x30, 0, 0, 23, 0x15, 0, 9, 6, 0xb1, 0, 0, 14, 0x50, 0, 0, 26, 0x54, 0, 0, 0xf0, 0x74, 0, 0, 2, 0x0c, 0, 0, 0, 0x07, 0, 0, 0,
			0x48, 0, 0, 14, 0x15, 0, 1, 0x5293, 6, 0, 0, 0xffff, 6, 0, 0, 0), "0x5293 at byte 0 of the payload of TCP"},
		{"a port of DHCP, and bytes that DHCP has elsewhere", packet(dgram), insns(
			0x30, 0, 0, 9, 0x15, 0, 6, 17, 0xb1, 0, 0, 0, 0x48, 0, 0, 2, 0x15, 0, 3, 68, 0x40, 0, 0, 108, 0x15, 0, 1, 0xdeadbeef, 6, 0, 0, 1, 6, 0, 0, 0), "0xdeadbeef at byte 100 of the payload of UDP"},
		{"identification of IPv4", packet(dgram), insns(0x28, 0, 0, 4, 0x15, 0, 1, 0x1337, 6, 0, 0, 1, 6, 0, 0, 0), "0x1337 as the identification"},
		{"sequence number over IPv6", packet(raw), insns(
			0x28, 0, 0, 12, 0x15, 0, 4, 0x86dd, 0x30, 0, 0, 20, 0x15, 0, 2, 6, 0x20, 0, 0, 58, 0x15, 1, 0, 0xcafe1234, 6, 0, 0, 0, 6, 0, 0, 1), "0xcafe1234 as the sequence number"},
	} {
		c.socket.Filter = &network.SocketFilter{Classic: c.code}
		f, err := waitsFor(c.socket, &programs{})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		switch {
		case f == nil && c.want != "":
			t.Errorf("%s: nothing found", c.name)
		case f != nil && (c.want == "" || !strings.Contains(f.Seen, c.want)):
			t.Errorf("%s: %s, want %q", c.name, f.Seen, c.want)
		}
	}
}
