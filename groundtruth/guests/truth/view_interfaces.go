package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

func init() { views["interfaces"] = viewInterfaces }

var (
	linkFlags = map[int]string{
		0: "UP", 1: "BROADCAST", 2: "DEBUG", 3: "LOOPBACK", 4: "POINTOPOINT", 5: "NOTRAILERS", 6: "RUNNING", 7: "NOARP", 8: "PROMISC",
		9: "ALLMULTI", 10: "MASTER", 11: "SLAVE", 12: "MULTICAST", 13: "PORTSEL", 14: "AUTOMEDIA", 15: "DYNAMIC", 16: "LOWER_UP",
		17: "DORMANT", 18: "ECHO",
	}
	linkStates = map[uint64]string{0: "unknown", 1: "notpresent", 2: "down", 3: "lowerlayerdown", 4: "testing", 5: "dormant", 6: "up"}
)

// viewInterfaces reports what rtnetlink says of every interface.
func viewInterfaces(emit func(any) error) error {
	programs := map[uint64]string{}
	err := bpfObjects(bpfProg, func(o bpfObject) error {
		programs[uint64(o.u32(4))] = o.text(64)
		return nil
	})
	if err != nil {
		return err
	}
	return eachNetNS(func(net uint64) error {
		links, err := rtLinks()
		if err != nil {
			return err
		}
		addresses, err := linkAddresses(links)
		if err != nil {
			return err
		}
		tc, err := tcPrograms(programs)
		if err != nil {
			return err
		}
		return rtnlDump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg), func(m []byte) error {
			row := linkRow(m, links, programs)
			index := uint64(binary.NativeEndian.Uint32(m[4:]))
			row["net_ns"] = net
			for column, values := range addresses[index] {
				row[column] = values
			}
			if err := attached(tc, index, programs); err != nil {
				return err
			}
			row["tc"] = tc.of(index)
			return emit(row)
		})
	})
}

// linkRow is what a message about an interface (struct ifinfomsg) says.
func linkRow(m []byte, links map[uint64]any, programs map[uint64]string) map[string]any {
	const allMulti = 61 // IFLA_ALLMULTI, 6.0
	a := rtAttributes(m[unix.SizeofIfInfomsg:])
	kind, _ := a.nest(unix.IFLA_LINKINFO).text(unix.IFLA_INFO_KIND).(string)
	name, _ := a.text(unix.IFLA_IFNAME).(string)
	row := map[string]any{
		"name": name, "index": binary.NativeEndian.Uint32(m[4:]), "mac": a.mac(unix.IFLA_ADDRESS), "addresses": nil, "peers": nil, "labels": nil,
		"flags": rtBits(uint64(binary.NativeEndian.Uint32(m[8:])), linkFlags), "promiscuity": a.number(unix.IFLA_PROMISCUITY),
		"mtu": a.number(unix.IFLA_MTU), "state": rtNamed(a.number(unix.IFLA_OPERSTATE), linkStates), "kind": orNil(kind),
		"master": links[a.number(unix.IFLA_MASTER)], "qdisc": a.text(unix.IFLA_QDISC), "alias": a.text(unix.IFLA_IFALIAS),
	}
	if row["flags"] == nil {
		row["flags"] = []string{}
	}
	if a.has(allMulti) {
		row["allmulti"] = a.number(allMulti)
	}
	for i, column := range []string{"rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped"} {
		if row[column] = binary.NativeEndian.Uint64(a[unix.IFLA_STATS64][8*i:]); untold(name, kind) {
			row[column] = nil
		}
	}
	var xdp []string
	in := a.nest(unix.IFLA_XDP)
	single := map[uint64]uint16{2: unix.IFLA_XDP_SKB_PROG_ID, 1: unix.IFLA_XDP_DRV_PROG_ID, 3: unix.IFLA_XDP_HW_PROG_ID}
	for _, mode := range []struct {
		number uint64
		name   string
	}{{2, "generic"}, {1, "native"}, {3, "offload"}} {
		id := in.number(single[mode.number])
		if id == 0 && in.number(unix.IFLA_XDP_ATTACHED) == mode.number {
			id = in.number(unix.IFLA_XDP_PROG_ID)
		}
		if id != 0 {
			xdp = append(xdp, fmt.Sprintf("%s %d %s", mode.name, id, programs[id]))
		}
	}
	row["xdp"] = nilIfNone(xdp)
	return row
}

// untold says of an interface that nobody can know its counters from outside: its
// driver keeps them, and the kernel has no description of modules (before 5.11).
func untold(name, kind string) bool {
	if _, err := os.Stat("/sys/kernel/btf/veth"); err == nil {
		return false
	}
	driver, err := os.Readlink("/sys/class/net/" + name + "/device/driver")
	return kind == "veth" || kind == "tun" || err == nil && strings.HasSuffix(driver, "/virtio_net")
}

func nilIfNone(l []string) any {
	if len(l) == 0 {
		return nil
	}
	return l
}

// linkAddresses are the cells of addresses by the index of their interface.
func linkAddresses(links map[uint64]any) (map[uint64]map[string][]string, error) {
	all := map[uint64]map[string][]string{}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		ask := make([]byte, unix.SizeofIfAddrmsg)
		ask[0] = family
		err := rtnlDump(unix.RTM_GETADDR, ask, func(m []byte) error {
			if m[0] != family {
				return nil // of all families, where the kernel does not know this one
			}
			a, index := rtAttributes(m[unix.SizeofIfAddrmsg:]), uint64(binary.NativeEndian.Uint32(m[4:]))
			if all[index] == nil {
				all[index] = map[string][]string{}
			}
			peer, _ := netip.AddrFromSlice(a[unix.IFA_ADDRESS])
			local, ok := netip.AddrFromSlice(a[unix.IFA_LOCAL])
			if !ok {
				local = peer
			}
			add := func(column, value string) { all[index][column] = append(all[index][column], value) }
			add("addresses", netip.PrefixFrom(local, int(m[1])).String())
			if peer != local {
				add("peers", fmt.Sprintf("%s %s", local, netip.PrefixFrom(peer, int(m[1]))))
			}
			if label := a.text(unix.IFA_LABEL); label != nil && label != links[index] {
				add("labels", fmt.Sprintf("%s %s", local, label))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// attached adds the programs that tcx holds (since 6.6), which run before all others.
func attached(tc tcSides, index uint64, programs map[uint64]string) error {
	for side, attach := range map[string]ebpf.AttachType{"ingress": ebpf.AttachTCXIngress, "egress": ebpf.AttachTCXEgress} {
		found, err := link.QueryPrograms(link.QueryOptions{Target: int(index), Attach: attach})
		if err != nil {
			continue // not of this kernel
		}
		var first []string
		for _, p := range found.Programs {
			first = append(first, fmt.Sprintf("%s %d %s tcx", side, p.ID, programs[uint64(p.ID)]))
		}
		tc[tcSide{index, side}] = append(first, tc[tcSide{index, side}]...)
	}
	return nil
}
