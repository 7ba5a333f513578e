package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// initialNetNS is the inode of the only network namespace of a kernel without CONFIG_NET_NS,
// whose /proc shows none: the first number of all (PROC_DYNAMIC_FIRST), as everywhere.
const initialNetNS = 0xf0000000

// eachNetNS calls f in every network namespace: those of processes and those that a
// mount holds. net is the inode. The thread is the caller's alone and ends in the last.
func eachNetNS(f func(net uint64) error) error {
	runtime.LockOSThread()
	paths := map[uint64]string{}
	add := func(path string) {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && paths[st.Ino] == "" {
			paths[st.Ino] = path
		}
	}
	if err := eachProcess(func(pid int) error { add(fmt.Sprintf("/proc/%d/ns/net", pid)); return nil }); err != nil {
		return err
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer mounts.Close()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		if w := strings.Fields(lines.Text()); len(w) > 4 && strings.HasPrefix(w[3], "net:[") {
			add(unescape(w[4]))
		}
	}
	if len(paths) == 0 {
		return f(initialNetNS)
	}
	for _, inode := range slices.Sorted(maps.Keys(paths)) {
		file, err := os.Open(paths[inode])
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			return err
		}
		err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
		file.Close()
		if err == nil {
			err = f(inode)
		}
		if err != nil {
			return fmt.Errorf("network namespace %d: %w", inode, err)
		}
	}
	return nil
}

// rtnlDump asks rtnetlink of the thread's namespace for all objects of a kind and calls
// f with each answer, without its header.
func rtnlDump(kind uint16, fixed []byte, f func(m []byte) error) error {
	return netlinkDump(unix.NETLINK_ROUTE, kind, fixed, f)
}

// netlinkDump does so with any protocol of netlink's.
func netlinkDump(protocol int, kind uint16, fixed []byte, f func(m []byte) error) error {
	c, err := netlink.Dial(protocol, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	ask := netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Dump}, Data: fixed}
	answers, err := c.Execute(ask)
	if err != nil {
		return err
	}
	for _, m := range answers {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return errors.New("netlink: it changed meanwhile")
		}
		if err := f(m.Data); err != nil {
			return err
		}
	}
	return nil
}

// rtAttrs are the attributes of a message or of an attribute, by type without flags.
type rtAttrs map[uint16][]byte

func rtAttributes(b []byte) rtAttrs {
	a := rtAttrs{}
	all, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return a
	}
	for _, x := range all {
		a[x.Type&^(netlink.Nested|netlink.NetByteOrder)] = x.Data
	}
	return a
}

func (a rtAttrs) has(kind uint16) bool { _, ok := a[kind]; return ok }

func (a rtAttrs) nest(kind uint16) rtAttrs { return rtAttributes(a[kind]) }

// number is 0 where there is none.
func (a rtAttrs) number(kind uint16) (v uint64) {
	b := a[kind]
	for i := range min(len(b), 8) {
		v |= uint64(b[i]) << (8 * i)
	}
	return v
}

// big is a number in the network's order; 0 where there is none.
func (a rtAttrs) big(kind uint16) uint32 {
	if b := a[kind]; len(b) >= 4 {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// numberOrNil is null where there is none.
func (a rtAttrs) numberOrNil(kind uint16) any {
	if !a.has(kind) {
		return nil
	}
	return a.number(kind)
}

// text is null where there is none.
func (a rtAttrs) text(kind uint16) any {
	return orNil(string(slices.DeleteFunc(slices.Clone(a[kind]), func(b byte) bool { return b == 0 })))
}

// ip is null where there is none.
func (a rtAttrs) ip(kind uint16) any {
	if ip, ok := netip.AddrFromSlice(a[kind]); ok {
		return ip.String()
	}
	return nil
}

// prefix is the attribute's address, or the unspecified one of the family, with a length.
func (a rtAttrs) prefix(kind uint16, family uint8, bits int) string {
	ip, ok := netip.AddrFromSlice(a[kind])
	if !ok {
		ip = netip.IPv4Unspecified()
		if family == unix.AF_INET6 {
			ip = netip.IPv6Unspecified()
		}
	}
	return netip.PrefixFrom(ip, bits).String()
}

func (a rtAttrs) mac(kind uint16) any { return orNil(net.HardwareAddr(a[kind]).String()) }

// rtLinks are the names of a namespace's interfaces by index; null is none.
func rtLinks() (map[uint64]any, error) {
	names := map[uint64]any{}
	err := rtnlDump(unix.RTM_GETLINK, make([]byte, 16), func(m []byte) error {
		names[uint64(binary.NativeEndian.Uint32(m[4:]))] = rtAttributes(m[16:]).text(unix.IFLA_IFNAME)
		return nil
	})
	return names, err
}

// rtBits are the names of the bits that are set, in their order; null without any.
func rtBits(v uint64, names map[int]string) any {
	var set []string
	for i := range 64 {
		if v>>i&1 != 0 {
			name, ok := names[i]
			if !ok {
				name = fmt.Sprintf("%#x", uint64(1)<<i)
			}
			set = append(set, name)
		}
	}
	if set == nil {
		return nil
	}
	return set
}

// rtNamed is the name of a number, or the number.
func rtNamed(v uint64, names map[uint64]string) string {
	if name, ok := names[v]; ok {
		return name
	}
	return fmt.Sprint(v)
}
