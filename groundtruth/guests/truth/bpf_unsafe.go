package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Commands of bpf(2), and the kinds of objects they are about.
const (
	bpfObjGet       = 7
	bpfInfoByFD     = 15
	bpfFSMagic      = 0xcafe4a11
	bpfProg, bpfMap = "prog", "map"
	bpfLink         = "link"
	bpfInfoSize     = 256
	bpfAttrSize     = 120
)

var bpfCommands = map[string]struct{ next, open uint32 }{bpfProg: {11, 13}, bpfMap: {12, 14}, bpfLink: {31, 30}}

func bpfCall(cmd uint32, attr []byte) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// bpfObject is one object: its information, as the kernel gives it to bpf(2).
type bpfObject struct {
	info []byte
	fd   int
}

func (o bpfObject) u32(at int) uint32 { return binary.LittleEndian.Uint32(o.info[at:]) }
func (o bpfObject) u64(at int) uint64 { return binary.LittleEndian.Uint64(o.info[at:]) }
func (o bpfObject) text(at int) string {
	b, _, _ := bytes.Cut(o.info[at:at+16], []byte{0})
	return string(b)
}

// put sets an address to which the next call of look shall write.
func (o bpfObject) put(at int, p unsafe.Pointer) {
	binary.LittleEndian.PutUint64(o.info[at:], uint64(uintptr(p)))
}

// look asks for the information of o. What info holds says what to fill besides.
func (o bpfObject) look() error {
	attr := make([]byte, bpfAttrSize)
	binary.LittleEndian.PutUint32(attr, uint32(o.fd))
	binary.LittleEndian.PutUint32(attr[4:], uint32(len(o.info)))
	binary.LittleEndian.PutUint64(attr[8:], uint64(uintptr(unsafe.Pointer(&o.info[0]))))
	_, err := bpfCall(bpfInfoByFD, attr)
	return err
}

// bpfObjects calls f for each object of a kind. One that ends meanwhile is left out.
func bpfObjects(kind string, f func(bpfObject) error) error {
	c := bpfCommands[kind]
	id := uint32(0)
	for {
		attr := make([]byte, bpfAttrSize)
		binary.LittleEndian.PutUint32(attr, id)
		if _, err := bpfCall(c.next, attr); err != nil {
			return nil //nolint:nilerr // the end: ENOENT, or EINVAL where the kernel has no such objects
		}
		id = binary.LittleEndian.Uint32(attr[4:])
		attr = make([]byte, bpfAttrSize)
		binary.LittleEndian.PutUint32(attr, id)
		fd, err := bpfCall(c.open, attr)
		if err != nil {
			continue
		}
		o := bpfObject{make([]byte, bpfInfoSize), fd}
		if err = o.look(); err == nil {
			err = f(o)
		}
		_ = unix.Close(fd)
		if err != nil {
			return fmt.Errorf("%s %d: %w", kind, id, err)
		}
	}
}

// bpfNames are the enumerators of an enum by value, lower case, without a prefix: from
// the kernel's own type information.
func bpfNames(enum, prefix string) (map[uint32]string, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, err
	}
	var e *btf.Enum
	if err := spec.TypeByName(enum, &e); err != nil {
		return nil, err
	}
	names := map[uint32]string{}
	for _, v := range e.Values {
		name, ours := strings.CutPrefix(v.Name, prefix)
		if _, known := names[uint32(v.Value)]; ours && !known {
			names[uint32(v.Value)] = strings.TrimSuffix(strings.ToLower(name), "_deprecated")
		}
	}
	return names, nil
}

// bpfHeld says who holds the objects of a kind, by identifier: descriptors, from
// /proc/PID/fdinfo, and pins. Our own descriptors are not among them.
func bpfHeld(kind string) (holders, pins map[uint32][]string, err error) {
	holders, pins = map[uint32][]string{}, map[uint32][]string{}
	pids, err := numbers("/proc")
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(pids)
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid)
		fds, err := numbers(dir + "/fd")
		if err != nil || pid == os.Getpid() {
			continue
		}
		slices.Sort(fds)
		for _, fd := range fds {
			to, _ := os.Readlink(dir + "/fd/" + strconv.Itoa(fd))
			if to != "anon_inode:bpf-"+kind && to != "anon_inode:bpf_"+kind {
				continue
			}
			text, _ := os.ReadFile(dir + "/fdinfo/" + strconv.Itoa(fd))
			if id, ok := bpfLine(text, kind+"_id"); ok {
				holders[id] = append(holders[id], fmt.Sprintf("%d/%d", pid, fd))
			}
		}
	}
	var root unix.Statfs_t
	if unix.Statfs("/sys/fs/bpf", &root) != nil || root.Type != bpfFSMagic {
		return holders, pins, nil //nolint:nilerr // it has gone
	}
	err = filepath.WalkDir("/sys/fs/bpf", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		attr, name := make([]byte, bpfAttrSize), append([]byte(path), 0)
		binary.LittleEndian.PutUint64(attr, uint64(uintptr(unsafe.Pointer(&name[0]))))
		fd, err := bpfCall(bpfObjGet, attr)
		if err != nil {
			return nil // an iterator's file
		}
		defer unix.Close(fd)
		to, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		text, _ := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
		if id, ok := bpfLine(text, kind+"_id"); ok && (to == "anon_inode:bpf-"+kind || to == "anon_inode:bpf_"+kind) {
			pins[id] = append(pins[id], path)
		}
		return nil
	})
	return holders, pins, err
}

// bpfLine finds "name: number" in a fdinfo.
func bpfLine(fdinfo []byte, name string) (uint32, bool) {
	for line := range strings.Lines(string(fdinfo)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(rest), 0, 32)
			return uint32(n), err == nil
		}
	}
	return 0, false
}

// orNil is null in place of a zero value.
func orNil[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// listed is a list that is never null.
func listed[T any](l []T) []T { return append([]T{}, l...) }
