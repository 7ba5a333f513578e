package main

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func init() { views["sockets"] = tellSockets }

// socketHolders are who has a descriptor of a socket.
type socketHolders struct {
	pids []int
	uid  uint32
	// pid and fd are one of those descriptors.
	pid, fd int
}

// socketTeller reports the sockets of all network namespaces: what sock_diag(7) reports
// each, what only /proc/net reports, and then those that nothing but a descriptor leads to.
type socketTeller struct {
	holders map[uint64]*socketHolders // by inode
	own     map[uint64]bool           // inodes of our own sockets
	told    map[uint64]bool           // inodes of rows that were told
	mptcp   bool                      // the kernel told of MPTCP's
	hidden  map[uint64]string         // how the server hid a socket, by inode
	filters socketPrograms
	emit    func(any) error
}

func tellSockets(emit func(any) error) error {
	// A namespace is a thread's.
	runtime.LockOSThread()
	t := &socketTeller{own: map[uint64]bool{}, told: map[uint64]bool{}, emit: emit}
	var err error
	if t.holders, err = allSocketHolders(); err != nil {
		return err
	}
	if err := t.filters.find(); err != nil {
		return err
	}
	if err := t.findHidden(); err != nil {
		return err
	}
	spaces, err := netNamespaces()
	if err != nil {
		return err
	}
	for _, inode := range slices.Sorted(maps.Keys(spaces)) {
		if err := t.namespace(inode, spaces[inode]); err != nil {
			return fmt.Errorf("network namespace %d: %w", inode, err)
		}
	}
	for _, inode := range slices.Sorted(maps.Keys(t.holders)) {
		if err := t.held(inode); err != nil {
			return fmt.Errorf("socket %d: %w", inode, err)
		}
	}
	return t.rest()
}

// findHidden reads what the server says of sockets that no descriptor leads to.
func (t *socketTeller) findHidden() error {
	text, err := os.ReadFile("/run/outsight-hidden-sockets")
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	t.hidden = map[uint64]string{}
	for line := range strings.Lines(string(text)) {
		way, inode, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(inode, 10, 64)
		if err != nil {
			return err
		}
		t.hidden[n] = way
	}
	return nil
}

// rest reports those hidden sockets that the kernel does not report: unbound ones of UDP
// over IPv6 in the server's namespace, which is the first.
func (t *socketTeller) rest() error {
	if len(t.hidden) == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/1/ns/net", &st); err != nil {
		return err
	}
	for _, inode := range slices.Sorted(maps.Keys(t.hidden)) {
		if t.told[inode] {
			continue
		}
		if err := t.emit(map[string]any{
			"protocol": "udp", "family": "inet6", "type": "dgram", "state": "UNCONNECTED", "local": "::", "local_port": 0,
			"remote": "::", "remote_port": 0, "net_ns": st.Ino, "inode": inode, "pids": nil, "seen_in": t.hidden[inode],
		}); err != nil {
			return err
		}
	}
	return nil
}

// allSocketHolders reads the links in /proc/PID/fd. Our own descriptors are not among them.
func allSocketHolders() (map[uint64]*socketHolders, error) {
	holders := map[uint64]*socketHolders{}
	err := eachProcess(func(pid int) error {
		dir := fmt.Sprintf("/proc/%d/fd/", pid)
		fds, err := numbers(dir)
		if err != nil {
			return nil //nolint:nilerr // it has gone
		}
		for _, fd := range fds {
			link, err := os.Readlink(dir + strconv.Itoa(fd))
			if err != nil || !strings.HasPrefix(link, "socket:[") {
				continue
			}
			inode := inodeOf(link)
			h := holders[inode]
			if h == nil {
				var st unix.Stat_t
				if err := unix.Stat(dir+strconv.Itoa(fd), &st); err != nil {
					continue
				}
				h = &socketHolders{pid: pid, fd: fd, uid: st.Uid}
				holders[inode] = h
			}
			if !slices.Contains(h.pids, pid) {
				h.pids = append(h.pids, pid)
			}
		}
		return nil
	})
	return holders, err
}

// netNamespaces are files by which to enter each network namespace, by its inode: of
// processes, and mounted ones.
func netNamespaces() (map[uint64]string, error) {
	spaces := map[uint64]string{}
	add := func(path string) {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && spaces[st.Ino] == "" {
			spaces[st.Ino] = path
		}
	}
	if err := eachProcess(func(pid int) error { add(fmt.Sprintf("/proc/%d/ns/net", pid)); return nil }); err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if w := strings.Fields(lines.Text()); len(w) > 4 && strings.HasPrefix(w[3], "net:[") {
			add(w[4])
		}
	}
	if len(spaces) == 0 {
		spaces[initialNetNS] = ""
	}
	return spaces, nil
}

// namespace reports the sockets of one namespace, from within. There is no path to the
// only one of a kernel without CONFIG_NET_NS.
func (t *socketTeller) namespace(inode uint64, path string) error {
	if path != "" {
		f, err := os.Open(path)
		if os.IsNotExist(err) {
			return nil // gone meanwhile
		}
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter it: %w", err)
		}
	}
	n := socketSpace{t: t, inode: inode, names: map[uint32]any{0: nil}, netlinks: map[uint32]bool{}}
	if err := n.diag(); err != nil {
		return err
	}
	for _, file := range []string{"icmp", "icmp6"} {
		if err := n.ping(file); err != nil {
			return err
		}
	}
	return n.queued()
}

// tell completes a row with what holds for every socket and prints it.
func (n *socketSpace) tell(row map[string]any, inode uint64) error {
	t := n.t
	if t.own[inode] {
		return nil
	}
	row["net_ns"], row["inode"], row["pids"] = n.inode, orNil(inode), nil
	if h := t.holders[inode]; h != nil && inode != 0 {
		t.told[inode] = true
		row["pids"], row["uid"] = h.pids, h.uid
		if err := t.filters.tell(row, h); err != nil {
			return fmt.Errorf("filter of socket %d: %w", inode, err)
		}
	}
	if way := t.hidden[inode]; way != "" {
		t.told[inode] = true
		row["seen_in"] = "hash," + way
	}
	return t.emit(row)
}

// ping reports ICMP's datagram sockets, which have no diagnosis: a line of
// /proc/net/icmp each.
func (n *socketSpace) ping(file string) error {
	text, err := os.ReadFile("/proc/thread-self/net/" + file)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	family := map[string]string{"icmp": "inet", "icmp6": "inet6"}[file]
	for line := range strings.Lines(string(text)) {
		w := strings.Fields(line)
		if len(w) < 10 || !strings.HasSuffix(w[0], ":") {
			continue // the heading
		}
		row := map[string]any{"protocol": "icmp", "family": family, "type": "dgram", "number": nil}
		state, err := strconv.ParseUint(w[3], 16, 8)
		if err != nil {
			return err
		}
		row["state"] = socketState("icmp", uint8(state))
		if row["local"], row["local_port"], err = procAddress(w[1]); err != nil {
			return err
		}
		if row["remote"], row["remote_port"], err = procAddress(w[2]); err != nil {
			return err
		}
		tx, rx, _ := strings.Cut(w[4], ":")
		row["send_queue"], err = strconv.ParseUint(tx, 16, 64)
		if err == nil {
			row["recv_queue"], err = strconv.ParseUint(rx, 16, 64)
		}
		if err != nil {
			return err
		}
		uid, err := strconv.ParseUint(w[7], 10, 32)
		if err != nil {
			return err
		}
		row["uid"] = uid
		inode, err := strconv.ParseUint(w[9], 10, 64)
		if err != nil {
			return err
		}
		if err := n.tell(row, inode); err != nil {
			return err
		}
	}
	return nil
}

// queued reports the unix sockets that wait to be accepted: they have no inode yet, and the
// diagnosis leaves them out.
func (n *socketSpace) queued() error {
	text, err := os.ReadFile("/proc/thread-self/net/unix")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		// Num RefCount Protocol Flags Type St Inode Path
		w := strings.Fields(line)
		if len(w) < 7 || !strings.HasSuffix(w[0], ":") || w[6] != "0" {
			continue
		}
		kind, err := strconv.ParseUint(w[4], 16, 8)
		if err != nil {
			return err
		}
		row := map[string]any{"protocol": "unix", "family": "unix", "type": socketTypes[uint8(kind)], "state": "UNCONNECTED"}
		if w[5] == "02" { // SS_CONNECTING: without a struct socket that means connected
			row["state"] = "ESTABLISHED"
		}
		if len(w) > 7 {
			row["local"] = w[7]
		}
		if err := n.tell(noPorts(row), 0); err != nil {
			return err
		}
	}
	return nil
}
