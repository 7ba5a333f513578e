package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// An rtnl is a request to the kernel's network configuration, or a part of one: the guest
// need not have an ip command.
type rtnl struct {
	netlink.Header
	fixed []byte
	attrs []netlink.Attribute
}

// request begins a message with its fixed part.
func request(kind netlink.HeaderType, flags netlink.HeaderFlags, fixed ...byte) *rtnl {
	return &rtnl{Header: netlink.Header{Type: kind, Flags: flags | netlink.Request | netlink.Acknowledge}, fixed: fixed}
}

const create = netlink.Create | netlink.Excl

// attr adds an attribute.
func (m *rtnl) attr(kind int, value []byte) *rtnl {
	m.attrs = append(m.attrs, netlink.Attribute{Type: uint16(kind), Data: value})
	return m
}

func (m *rtnl) str(kind int, value string) *rtnl { return m.attr(kind, append([]byte(value), 0)) }

func (m *rtnl) u32(kind int, value uint32) *rtnl {
	return m.attr(kind, binary.NativeEndian.AppendUint32(nil, value))
}

// nest adds an attribute that holds others.
func (m *rtnl) nest(kind int, fill func(*rtnl)) *rtnl {
	inner := &rtnl{}
	fill(inner)
	return m.attr(kind|unix.NLA_F_NESTED, inner.data())
}

func (m *rtnl) data() []byte {
	b, err := netlink.MarshalAttributes(m.attrs)
	if err != nil {
		panic(err) // an attribute of 64 KiB
	}
	return append(slices.Clip(m.fixed), b...)
}

// do sends the request and waits for the answer.
func (m *rtnl) do() error {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Execute(netlink.Message{Header: m.Header, Data: m.data()})
	return err
}

// interfaceIndex is 0 for an interface that is not there.
func interfaceIndex(name string) int {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0
	}
	return i.Index
}

// ifinfo is the fixed part of a message about an interface (struct ifinfomsg).
func ifinfo(index int, flags, change uint32) []byte {
	b := make([]byte, 4, 16)
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

// addLink makes an interface of some kind.
func addLink(name, kind string, more func(*rtnl)) error {
	m := request(unix.RTM_NEWLINK, create, ifinfo(0, 0, 0)...).str(unix.IFLA_IFNAME, name)
	if more != nil {
		more(m)
	}
	if kind != "" {
		m.nest(unix.IFLA_LINKINFO, func(in *rtnl) { in.str(unix.IFLA_INFO_KIND, kind) })
	}
	if err := m.do(); err != nil {
		return fmt.Errorf("make %s %s: %w", kind, name, err)
	}
	return nil
}

// addVeth makes a pair; the second may be in another network namespace (a process's; 0: ours).
func addVeth(name, peer string, pid int) error {
	m := request(unix.RTM_NEWLINK, create, ifinfo(0, 0, 0)...).str(unix.IFLA_IFNAME, name)
	m.nest(unix.IFLA_LINKINFO, func(in *rtnl) {
		in.str(unix.IFLA_INFO_KIND, "veth").nest(unix.IFLA_INFO_DATA, func(in *rtnl) {
			p := &rtnl{fixed: ifinfo(0, 0, 0)}
			p.str(unix.IFLA_IFNAME, peer)
			if pid != 0 {
				p.u32(unix.IFLA_NET_NS_PID, uint32(pid))
			}
			in.attr(1|unix.NLA_F_NESTED, p.data()) // VETH_INFO_PEER
		})
	})
	if err := m.do(); err != nil {
		return fmt.Errorf("make veth %s: %w", name, err)
	}
	return nil
}

// setLink changes an interface: up, and whatever more asks for.
func setLink(name string, more func(*rtnl)) error {
	m := request(unix.RTM_NEWLINK, 0, ifinfo(interfaceIndex(name), unix.IFF_UP, unix.IFF_UP)...)
	if more != nil {
		more(m)
	}
	if err := m.do(); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// addAddress gives an interface an address in CIDR notation.
func addAddress(name, cidr string) error {
	ip, network, err := net.ParseCIDR(cidr)
	if err != nil {
		return err
	}
	family, bytes := byte(unix.AF_INET6), []byte(ip.To16())
	if four := ip.To4(); four != nil {
		family, bytes = unix.AF_INET, four
	}
	ones, _ := network.Mask.Size()
	fixed := binary.NativeEndian.AppendUint32([]byte{family, byte(ones), unix.IFA_F_NODAD, 0}, uint32(interfaceIndex(name)))
	m := request(unix.RTM_NEWADDR, create, fixed...).attr(unix.IFA_LOCAL, bytes).attr(unix.IFA_ADDRESS, bytes)
	if err := m.do(); err != nil {
		return fmt.Errorf("address %s on %s: %w", cidr, name, err)
	}
	return nil
}

// A route in words; what is empty is left out.
type route struct {
	to, via, dev string
	table        byte // 0: main
	kind         byte // 0: unicast
	metric       uint32
}

func (r route) add() error {
	ip, network, err := net.ParseCIDR(r.to)
	if err != nil {
		return err
	}
	family, dst := byte(unix.AF_INET6), []byte(network.IP.To16())
	if ip.To4() != nil {
		family, dst = unix.AF_INET, network.IP.To4()
	}
	ones, _ := network.Mask.Size()
	if r.table == 0 {
		r.table = unix.RT_TABLE_MAIN
	}
	if r.kind == 0 {
		r.kind = unix.RTN_UNICAST
	}
	scope := byte(unix.RT_SCOPE_UNIVERSE)
	if r.via == "" && r.dev != "" && family == unix.AF_INET {
		scope = unix.RT_SCOPE_LINK
	}
	m := request(unix.RTM_NEWROUTE, create, family, byte(ones), 0, 0, r.table, unix.RTPROT_STATIC, scope, r.kind, 0, 0, 0, 0)
	m.attr(unix.RTA_DST, dst)
	if r.via != "" {
		gateway := net.ParseIP(r.via)
		if four := gateway.To4(); four != nil {
			gateway = four
		}
		m.attr(unix.RTA_GATEWAY, gateway)
	}
	if r.dev != "" {
		m.u32(unix.RTA_OIF, uint32(interfaceIndex(r.dev)))
	}
	if r.metric != 0 {
		m.u32(unix.RTA_PRIORITY, r.metric)
	}
	if err := m.do(); err != nil {
		return fmt.Errorf("route to %s: %w", r.to, err)
	}
	return nil
}

// addNeighbour sets an entry of the neighbour table.
func addNeighbour(dev, address, mac string, state uint16, flags byte) error {
	ip, family := net.ParseIP(address), byte(unix.AF_INET6)
	if four := ip.To4(); four != nil {
		ip, family = four, unix.AF_INET
	}
	fixed := []byte{family, 0, 0, 0}
	fixed = binary.NativeEndian.AppendUint32(fixed, uint32(interfaceIndex(dev)))
	fixed = binary.NativeEndian.AppendUint16(fixed, state)
	m := request(unix.RTM_NEWNEIGH, create, append(fixed, flags, 0)...).attr(unix.NDA_DST, ip)
	if mac != "" {
		hardware, err := net.ParseMAC(mac)
		if err != nil {
			return err
		}
		m.attr(unix.NDA_LLADDR, hardware)
	}
	if err := m.do(); err != nil {
		return fmt.Errorf("neighbour %s on %s: %w", address, dev, err)
	}
	return nil
}

// addRule sends packets with a mark to a routing table.
func addRule(mark uint32, table byte) error {
	m := request(unix.RTM_NEWRULE, create, unix.AF_INET, 0, 0, 0, table, 0, 0, unix.RTN_UNICAST, 0, 0, 0, 0)
	return m.u32(unix.FRA_FWMARK, mark).do()
}
