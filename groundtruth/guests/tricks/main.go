// Tricks does one thing that intruders do with programs and sockets, or a thing that looks
// much like one and that healthy systems do, and keeps still, so that what finds intruders
// can be tried. It runs inside a guest as root, and prints "ready" when it is done.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tricks are what it can do, by name.
var tricks = map[string]func(args []string) error{
	"idle":           func([]string) error { return nil },
	"unlinked":       func([]string) error { return os.Remove(must(os.Readlink("/proc/self/exe"))) },
	"replaced":       replaced,
	"memfd":          memfd,
	"memfd-script":   memfdScript,
	"deleted":        deleted,
	"upgraded":       upgraded,
	"shell":          shell,
	"filter-magic":   func([]string) error { return filtered(unix.SOCK_RAW, magicFilter) },
	"filter-window":  func([]string) error { return filtered(unix.SOCK_DGRAM, windowFilter) },
	"filter-dhcp":    func([]string) error { return filtered(unix.SOCK_DGRAM, dhcpFilter) },
	"sniff":          sniff,
	"hollow-file":    hollowFile,
	"hollow-memory":  hollowMemory,
	"shellcode":      shellcode,
	"shellcode-file": shellcodeFile,
	"code":           code,
	"reflective":     reflective,
	"library":        mapLibraries,
	"libraries":      libraries,
	"workers":        workers,
	"heap":           heap,
	"stack":          stack,
	"preload":        preload,
	"bpf-hide":       hideBPF,
	"bpf-list":       listBPF,
	"then":           then,
	"script":         script,
	"as-user":        asUser,
	"capable":        capable,
	"writable":       writable,
	"segment":        segment,
	"confined":       confined,
	"connection":     func([]string) error { _, err := connection(); return err },
}

func init() { runtime.LockOSThread() }

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 || tricks[os.Args[1]] == nil {
		log.Fatal("usage: tricks TRICK [ARGUMENT…]")
	}
	if err := tricks[os.Args[1]](os.Args[2:]); err != nil {
		log.Fatalf("tricks: %s: %v", os.Args[1], err)
	}
	fmt.Println("ready")
	for {
		time.Sleep(time.Hour)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal("tricks: ", err)
	}
	return v
}

// copyTo copies this program.
func copyTo(w io.Writer) error {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// copyAs copies this program to a file.
func copyAs(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if err := copyTo(f); err != nil {
		return err
	}
	return f.Close()
}

// run becomes another program.
func run(name string, args ...string) error {
	return unix.Exec(name, args, os.Environ())
}

// memfd runs this program from memory alone, as a name.
func memfd(args []string) error {
	fd, err := unix.MemfdCreate(args[0], 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), args[0])
	keep = append(keep, f)
	if err := copyTo(f); err != nil {
		return err
	}
	return run(fmt.Sprintf("/proc/self/fd/%d", fd), args[1], "idle")
}

// memfdScript runs a script from memory alone.
func memfdScript([]string) error {
	fd, err := unix.MemfdCreate("script", 0)
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte("#!/bin/sh\necho ready\nread x </dev/null\nwhile :; do sleep 1000; done\n")); err != nil {
		return err
	}
	return run(fmt.Sprintf("/proc/self/fd/%d", fd), "script")
}

// then runs another program, and keeps still.
func then(args []string) error {
	c := exec.Command(args[0], args[1:]...)
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	return c.Run()
}

// script runs a script by a shell whose arguments do not name it: it reads it from an open file.
func script(args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	if err := unix.Dup3(int(f.Fd()), 10, 0); err != nil {
		return err
	}
	return run("/bin/sh", "sh", "-c", ". /proc/self/fd/10")
}

// asUser runs a program as a child of an ordinary user's process: this one, from then on.
func asUser(args []string) error {
	const user = 1000
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(user, user, user), syscall.Setresuid(user, user, user)); err != nil {
		return err
	}
	c := exec.Command(args[0], "idle")
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		return err
	}
	keep = append(keep, out)
	_, err = io.ReadFull(out, make([]byte, len("ready")))
	return err
}

// capable makes a copy of this program that gives CAP_SETUID to whoever runs it.
func capable(args []string) error {
	const revision, effective, setuid = 0x02000000, 1, 1 << unix.CAP_SETUID // VFS_CAP_REVISION_2
	if err := copyAs(args[0]); err != nil {
		return err
	}
	var data []byte
	for _, word := range []uint32{revision | effective, setuid, 0, 0, 0} {
		data = binary.LittleEndian.AppendUint32(data, word)
	}
	if err := unix.Setxattr(args[0], "security.capability", data, 0); err != nil {
		return err
	}
	os.Exit(0)
	return nil
}

// deleted runs a copy of this program that deletes itself.
func deleted(args []string) error {
	if err := copyAs(args[0]); err != nil {
		return err
	}
	return run(args[0], args[0], "unlinked")
}

// upgraded runs a copy of this program, which then another takes the place of, as package
// managers do it.
func upgraded(args []string) error {
	if err := copyAs(args[0]); err != nil {
		return err
	}
	return run(args[0], args[0], "replaced", args[0])
}

func replaced(args []string) error {
	if err := copyAs(args[0] + ".new"); err != nil {
		return err
	}
	return os.Rename(args[0]+".new", args[0])
}

// shell gives a shell to who is at the other end of a connection: this program.
func shell([]string) error {
	fds, err := connection()
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fds[0]), "connection")
	c := exec.Command("/bin/sh")
	c.Stdin, c.Stdout, c.Stderr = f, f, f
	if err := c.Start(); err != nil {
		return err
	}
	keep = append(keep, fds)
	return f.Close()
}

// connection is both ends of a TCP connection of blocking sockets.
func connection() (ends [2]int, err error) {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ends, err
	}
	defer unix.Close(l)
	if err := unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return ends, err
	}
	if err := unix.Listen(l, 1); err != nil {
		return ends, err
	}
	name, err := unix.Getsockname(l)
	if err != nil {
		return ends, err
	}
	if ends[0], err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return ends, err
	}
	if err := unix.Connect(ends[0], name); err != nil {
		return ends, err
	}
	ends[1], _, err = unix.Accept4(l, unix.SOCK_CLOEXEC)
	return ends, err
}

// Filters of packet sockets, in classic BPF.
var (
	// magicFilter lets UDP through whose payload begins with two bytes.
	magicFilter = []unix.SockFilter{
		{Code: 0x28, K: 12}, {Code: 0x15, Jf: 8, K: 0x800}, // ldh [12]; jeq #0x800
		{Code: 0x30, K: 23}, {Code: 0x15, Jf: 6, K: 17}, // ldb [23]; jeq #17
		{Code: 0x28, K: 20}, {Code: 0x45, Jt: 4, K: 0x1fff}, // ldh [20]; jset #0x1fff
		{Code: 0xb1, K: 14}, {Code: 0x48, K: 22}, {Code: 0x15, Jf: 1, K: 0x4f75}, // ldxb 4*([14]&0xf); ldh [x + 22]; jeq
		{Code: 0x06, K: 0xffff}, {Code: 0x06},
	}
	// windowFilter lets TCP through that has a certain window.
	windowFilter = []unix.SockFilter{
		{Code: 0x30, K: 9}, {Code: 0x15, Jf: 4, K: 6}, // ldb [9]; jeq #6
		{Code: 0xb1, K: 0}, {Code: 0x48, K: 14}, {Code: 0x15, Jf: 1, K: 0x3a3b}, // ldxb 4*([0]&0xf); ldh [x + 14]; jeq
		{Code: 0x06, K: 0xffff}, {Code: 0x06},
	}
	// dhcpFilter is what a client of DHCP waits for: its port, its transaction, its cookie.
	dhcpFilter = []unix.SockFilter{
		{Code: 0x30, K: 9}, {Code: 0x15, Jf: 9, K: 17}, // ldb [9]; jeq #17
		{Code: 0xb1, K: 0}, {Code: 0x48, K: 2}, {Code: 0x15, Jf: 6, K: 68}, // ldh [x + 2]; jeq #68
		{Code: 0x40, K: 12}, {Code: 0x15, Jf: 4, K: 0x12345678}, // ld [x + 12]; jeq xid
		{Code: 0x40, K: 244}, {Code: 0x15, Jf: 2, K: 0x63825363}, // ld [x + 244]; jeq cookie
		{Code: 0x06, K: 0xffff}, {Code: 0x06}, {Code: 0x06},
	}
)

// filtered opens a packet socket with a filter.
func filtered(kind int, filter []unix.SockFilter) error {
	fd, err := packetSocket(kind)
	if err != nil {
		return err
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

func packetSocket(kind int) (int, error) {
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	return syscall.Socket(unix.AF_PACKET, kind, all)
}

// sniff has a packet socket that asks for promiscuous mode, as tcpdump has.
func sniff(args []string) error {
	fd, err := packetSocket(unix.SOCK_RAW)
	if err != nil {
		return err
	}
	ifr, err := unix.NewIfreq(args[0])
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return err
	}
	return unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(ifr.Uint32()), Type: unix.PACKET_MR_PROMISC})
}
