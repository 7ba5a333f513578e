package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// sysctls have values here that no kernel starts with.
func (s *server) sysctls() error {
	var errs []error
	for _, v := range [][2]string{
		{"net/ipv4/ping_group_range", "0 2147483647"},
		{"net/ipv4/ip_forward", "1"},
		{"net/ipv6/conf/all/forwarding", "1"},
		{"net/ipv4/conf/all/rp_filter", "2"},
		{"net/ipv4/conf/all/accept_redirects", "0"},
		{"kernel/kptr_restrict", "1"},
		{"kernel/dmesg_restrict", "1"},
		{"kernel/perf_event_paranoid", "2"},
		{"kernel/core_pattern", "|/bin/false %P %u outsight"},
		{"kernel/modprobe", "/usr/sbin/modprobe"},
		{"kernel/sysrq", "438"},
		{"kernel/domainname", "lab.example"},
		{"kernel/panic_on_oops", "0"},
		{"fs/suid_dumpable", "2"},
		{"fs/protected_hardlinks", "1"},
		{"vm/swappiness", "100"},
		{"vm/overcommit_memory", "1"},
	} {
		if v[0] == "kernel/modprobe" {
			if _, err := os.Stat("/lib/systemd"); err == nil {
				continue // a Debian needs its modprobe
			}
		}
		if err := os.WriteFile("/proc/sys/"+v[0], []byte(v[1]), 0); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *server) interfaces() error {
	var errs []error
	do := func(err ...error) { errs = append(errs, err...) }
	if interfaceIndex("dummy0") == 0 {
		do(addLink("dummy0", "dummy", nil))
	}
	do(setLink("dummy0", func(m *rtnl) { m.u32(unix.IFLA_MTU, 1400).str(unix.IFLA_IFALIAS, "an alias") }),
		addAddress("dummy0", "10.99.0.1/24"), addAddress("dummy0", "10.99.1.1/32"), addAddress("dummy0", "fd99::1/64"),
		addVeth("veth-a", "veth-b", 0),
		setLink("veth-a", func(m *rtnl) { m.attr(unix.IFLA_ADDRESS, []byte{2, 0x99, 0, 0, 0, 0xa}) }),
		setLink("veth-b", nil),
		addAddress("veth-a", "10.98.0.1/30"), addAddress("veth-a", "fd98::1/64"),
		addLink("br0", "bridge", nil), setLink("br0", nil), addAddress("br0", "10.97.0.1/24"),
		// Down, with a name of full length.
		addLink("fifteen-letters", "dummy", nil))
	for _, r := range []route{
		{to: "192.0.2.0/24", via: "10.99.0.254"},
		{to: "198.51.100.0/25", dev: "dummy0", metric: 77},
		{to: "203.0.113.9/32", kind: unix.RTN_BLACKHOLE},
		{to: "203.0.113.10/32", kind: unix.RTN_UNREACHABLE},
		{to: "203.0.113.11/32", kind: unix.RTN_PROHIBIT},
		{to: "198.18.0.0/15", via: "10.99.0.253", table: 100},
		{to: "2001:db8::/32", via: "fd99::fe"},
		{to: "2001:db8:1::/48", dev: "dummy0", metric: 33},
		{to: "2001:db8:dead::/48", dev: "lo", kind: unix.RTN_UNREACHABLE},
	} {
		do(r.add())
	}
	do(addRule(0x42, 100),
		addNeighbour("veth-a", "10.98.0.2", "02:98:00:00:00:02", unix.NUD_PERMANENT, 0),
		addNeighbour("veth-a", "fd98::2", "02:98:00:00:00:06", unix.NUD_PERMANENT, 0),
		addNeighbour("veth-a", "10.98.0.3", "02:98:00:00:00:03", unix.NUD_NOARP, 0),
		addNeighbour("veth-a", "10.98.0.9", "", unix.NUD_PERMANENT, unix.NTF_PROXY))
	return errors.Join(errs...)
}

// netNamespace is a process with a network of its own: the other end of a veth pair, an
// interface named as one of ours is, and sockets with the numbers of ours.
func (s *server) netNamespace() error {
	p, err := s.again("net namespace", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
	if p == nil {
		return err
	}
	// A name for it, as ip-netns has: the bind mount holds the namespace.
	err1 := os.MkdirAll("/run/netns", 0o755)
	if err1 == nil {
		err1 = os.WriteFile("/run/netns/outsight", nil, 0o444)
	}
	if err1 == nil {
		err1 = unix.Mount(fmt.Sprintf("/proc/%d/ns/net", p.Pid), "/run/netns/outsight", "", unix.MS_BIND, "")
	}
	err2 := addVeth("veth-out", "veth-in", p.Pid)
	if err2 == nil {
		err2 = errors.Join(setLink("veth-out", nil), addAddress("veth-out", "10.96.0.1/24"))
	}
	return errors.Join(err, err1, err2)
}

func (s *server) playNetNamespace([]string) error {
	errs := []error{setLink("lo", nil)}
	errs = append(errs, addLink("dummy0", "dummy", nil), setLink("dummy0", nil),
		addAddress("dummy0", "10.95.0.1/24"), addAddress("dummy0", "fd95::1/64"),
		route{to: "0.0.0.0/0", via: "10.95.0.254"}.add(), route{to: "::/0", via: "fd95::fe"}.add(),
		addNeighbour("dummy0", "10.95.0.254", "02:95:00:00:00:fe", unix.NUD_PERMANENT, 0))
	l, err := listen4(8091, 3, nil)
	if err == nil {
		_, _, err = pair4(l, 40910, 8091)
	}
	errs = append(errs, err)
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet6{Port: 53})
	}
	errs = append(errs, err, unixServer(unix.SOCK_STREAM, "@outsight-stream")) // the abstract names are a namespace's own
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP), Ifindex: interfaceIndex("dummy0")})
	}
	return errors.Join(append(errs, err, xtable(unix.AF_INET, "raw"))...)
}
