package main

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const (
	tcClsact, tcIngress, tcEgress = 0xffff_fff1, 0xffff_fff2, 0xffff_fff3
	tcRoot                        = 0xffff_ffff
)

// tcmsg is the fixed part of a message about queueing disciplines and filters.
func tcmsg(dev string, handle, parent, info uint32) []byte {
	b := make([]byte, 4, 20)
	for _, v := range []uint32{uint32(interfaceIndex(dev)), handle, parent, info} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

func addQdisc(dev, kind string, handle, parent uint32, more func(*rtnl)) error {
	m := request(unix.RTM_NEWQDISC, create, tcmsg(dev, handle, parent, 0)...).str(unix.TCA_KIND, kind)
	if more != nil {
		more(m)
	}
	if err := m.do(); err != nil {
		return fmt.Errorf("qdisc %s on %s: %w", kind, dev, err)
	}
	return nil
}

// addFilter adds a filter for all protocols.
func addFilter(dev, kind string, parent, priority, chain uint32, options func(*rtnl)) error {
	info := priority<<16 | uint32(htons(unix.ETH_P_ALL))
	const tcaChain = 11
	m := request(unix.RTM_NEWTFILTER, create, tcmsg(dev, 0, parent, info)...).str(unix.TCA_KIND, kind).u32(tcaChain, chain)
	if err := m.nest(unix.TCA_OPTIONS, options).do(); err != nil {
		return fmt.Errorf("filter %s on %s: %w", kind, dev, err)
	}
	return nil
}

// bpfTC attaches programs in the ways that are older than tcx, and gives interfaces that
// filters and counters need: a VLAN, a macvlan, a pair with native XDP.
func (s *server) bpfTC() error {
	var errs []error
	do := func(err ...error) { errs = append(errs, err...) }
	programs := map[string]*ebpf.Program{}
	for name, kind := range map[string]ebpf.ProgramType{
		"os_cls_da": ebpf.SchedCLS, "os_cls": ebpf.SchedCLS, "os_cls_chain": ebpf.SchedCLS, "os_cls_prio": ebpf.SchedCLS, "os_act": ebpf.SchedACT,
	} {
		p, err := s.program(name, kind, 0, "", 0)
		if err != nil {
			return err
		}
		programs[name] = p
	}
	fd := func(name string) uint32 { return uint32(programs[name].FD()) }
	const acts, classid, opsLen, ops, bpfFD, bpfName, flags = 1, 3, 4, 5, 6, 7, 8 // TCA_BPF_
	act := func(m *rtnl, kind int) {
		m.nest(kind, func(in *rtnl) {
			in.nest(1, func(in *rtnl) {
				in.str(1, "bpf").nest(2, func(in *rtnl) { // TCA_ACT_KIND, TCA_ACT_OPTIONS
					in.attr(2, make([]byte, 20)).u32(5, fd("os_act")).str(6, "by hand") // TCA_ACT_BPF_PARMS, FD, NAME
				})
			})
		})
	}
	do(addQdisc("dummy0", "clsact", 0xffff_0000, tcClsact, nil),
		addFilter("dummy0", "bpf", tcIngress, 10, 0, func(m *rtnl) { m.u32(bpfFD, fd("os_cls_da")).str(bpfName, "a name").u32(flags, 1) }),
		addFilter("dummy0", "bpf", tcEgress, 20, 0, func(m *rtnl) {
			m.u32(bpfFD, fd("os_cls")).str(bpfName, "another").u32(classid, 0x10001)
			act(m, acts)
		}),
		// Classic code: return -1.
		addFilter("dummy0", "bpf", tcEgress, 30, 0, func(m *rtnl) {
			m.attr(opsLen, []byte{1, 0}).attr(ops, []byte{6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}).u32(classid, 0x10002)
		}),
		addFilter("dummy0", "matchall", tcIngress, 40, 0, func(m *rtnl) { act(m, 2) }),
		addFilter("dummy0", "bpf", tcIngress, 50, 7, func(m *rtnl) { m.u32(bpfFD, fd("os_cls_chain")).str(bpfName, "chain").u32(flags, 1) }),
		addQdisc("veth-a", "ingress", 0xffff_0000, tcClsact, nil),
		addFilter("veth-a", "bpf", 0xffff_0000, 1, 0, func(m *rtnl) { m.u32(bpfFD, fd("os_cls_da")).str(bpfName, "old").u32(flags, 1) }),
		addQdisc("br0", "prio", 0x10_0000, tcRoot, func(m *rtnl) {
			m.attr(unix.TCA_OPTIONS, append([]byte{3, 0, 0, 0}, []byte("\x01\x02\x02\x02\x01\x02\x00\x00\x01\x01\x01\x01\x01\x01\x01\x01")...))
		}),
		addFilter("br0", "bpf", 0x10_0000, 1, 0, func(m *rtnl) { m.u32(bpfFD, fd("os_cls_prio")).str(bpfName, "prio").u32(classid, 0x10_0001) }))
	return errors.Join(errs...)
}

// moreLinks are interfaces of kinds that count in their own ways, with native XDP on one.
func (s *server) moreLinks() error {
	var errs []error
	do := func(err ...error) { errs = append(errs, err...) }
	over := func(name, kind string, data func(*rtnl)) error {
		m := request(unix.RTM_NEWLINK, create, ifinfo(0, 0, 0)...).str(unix.IFLA_IFNAME, name).u32(unix.IFLA_LINK, uint32(interfaceIndex("veth-a")))
		m.nest(unix.IFLA_LINKINFO, func(in *rtnl) { in.str(unix.IFLA_INFO_KIND, kind).nest(unix.IFLA_INFO_DATA, data) })
		if err := m.do(); err != nil {
			return fmt.Errorf("make %s %s: %w", kind, name, err)
		}
		return errors.Join(setLink(name, nil))
	}
	do(over("vlan7", "vlan", func(m *rtnl) { m.attr(unix.IFLA_VLAN_ID, []byte{7, 0}) }),
		over("macvlan0", "macvlan", func(m *rtnl) { m.u32(1, 4) }), // IFLA_MACVLAN_MODE: bridge
		addVeth("veth-x", "veth-y", 0), setLink("veth-x", nil), setLink("veth-y", func(m *rtnl) { m.u32(unix.IFLA_MASTER, uint32(interfaceIndex("br0"))) }),
		addAddress("veth-x", "10.93.0.1/24"))
	p, err := s.program("os_xdp_native", ebpf.XDP, 0, "", xdpPass)
	if err == nil {
		err = s.hold(link.AttachXDP(link.XDPOptions{Program: p, Interface: interfaceIndex("veth-x"), Flags: link.XDPDriverMode}))
	}
	do(err)
	if interfaceIndex("eth0") != 0 {
		do(setLink("eth0", nil), addAddress("eth0", "10.0.2.15/24"))
	}
	return errors.Join(errs...)
}
