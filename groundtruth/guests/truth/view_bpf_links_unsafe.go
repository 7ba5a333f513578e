package main

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"
)

func init() { views["bpf_links"] = viewBPFLinks }

// viewBPFLinks asks bpf(2) for the links; offsets are of struct bpf_link_info.
func viewBPFLinks(emit func(any) error) error {
	types, err := bpfNames("bpf_link_type", "BPF_LINK_TYPE_")
	if err != nil {
		return err
	}
	attach, err := bpfNames("bpf_attach_type", "BPF_")
	if err != nil {
		return err
	}
	holders, pins, err := bpfHeld(bpfLink)
	if err != nil {
		return err
	}
	return bpfObjects(bpfLink, func(o bpfObject) error {
		row := map[string]any{
			"id": o.u32(4), "type": types[o.u32(0)], "prog_id": orNil(o.u32(8)),
			"holders": listed(holders[o.u32(4)]), "pinned": listed(pins[o.u32(4)]),
		}
		switch row["type"] {
		case "raw_tracepoint", "iter":
			name := make([]byte, 64)
			again := bpfObject{make([]byte, bpfInfoSize), o.fd}
			again.put(16, unsafe.Pointer(&name[0]))
			binary.LittleEndian.PutUint32(again.info[24:], uint32(len(name)))
			if err := again.look(); err != nil {
				return err
			}
			text, _, _ := strings.Cut(string(name), "\x00")
			row["target"] = orNil(text)
		case "tracing":
			row["attach_type"] = attach[o.u32(16)]
		case "cgroup":
			row["attach_type"], row["target"] = attach[o.u32(24)], cgroupByID(o.u64(16))
		case "netns":
			row["attach_type"], row["target"] = attach[o.u32(20)], fmt.Sprintf("net:[%d]", o.u32(16))
		case "xdp":
			row["target"] = interfaceName(o.u32(16))
		case "tcx":
			row["attach_type"], row["target"] = attach[o.u32(20)], interfaceName(o.u32(16))
		}
		return emit(row)
	})
}

func interfaceName(index uint32) any {
	if i, err := net.InterfaceByIndex(int(index)); err == nil {
		return i.Name
	}
	return nil
}

// cgroupByID is the path of a control group, whose identifier is its folder's inode.
func cgroupByID(id uint64) (path any) {
	const root = "/sys/fs/cgroup"
	_ = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil && d.IsDir() && syscall.Stat(p, &st) == nil && st.Ino == id {
			path = "/" + strings.TrimPrefix(strings.TrimPrefix(p, root), "/")
			return fs.SkipAll
		}
		return nil
	})
	return path
}
