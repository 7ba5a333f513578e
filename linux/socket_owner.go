package linux

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// socketOwners is which processes hold which sockets in their descriptors.
type socketOwners struct {
	pids  map[virt.Addr][]int32   // by struct sock, ascending
	socks map[virt.Addr]virt.Addr // by struct socket
	order []virt.Addr             // the socks, as they were found
}

// heldSocket is what a file leads to. Of MPTCP, several socks have one struct socket: the
// sock that it leads to, and those of the connection's paths.
type heldSocket struct{ socket, sk virt.Addr }

type socketFDLayout struct {
	files, fdt, maxFDs, fd, fop, private, sk kernel.Field
}

// socketOwners walks the descriptors of all processes. fail is told what could not
// be read.
func (s *System) socketOwners(ctx context.Context, fail func(error)) *socketOwners {
	w := &socketOwners{pids: map[virt.Addr][]int32{}, socks: map[virt.Addr]virt.Addr{}}
	o, err := layoutOf(s, "descriptors of sockets", func(r *resolver, o *socketFDLayout) {
		o.files, o.fdt = r.field("task_struct", "files"), r.field("files_struct", "fdt")
		o.maxFDs, o.fd = r.field("fdtable", "max_fds"), r.field("fdtable", "fd")
		o.fop, o.private = r.field("file", "f_op"), r.field("file", "private_data")
		o.sk = r.field("socket", "sk")
	})
	if err != nil {
		fail(err)
		return w
	}
	fops, err := s.symbol("socket_file_ops")
	if err != nil {
		fail(fmt.Errorf("descriptors of sockets: %w: %w", ErrUnsupported, err))
		return w
	}
	c := &socketCollector{s: s, o: o, fops: fops, r: s.reader(), out: w, held: map[virt.Addr][]heldSocket{}, file: map[virt.Addr]heldSocket{}}
	l := s.NewLister()
	for t, err := range s.Processes(ctx) {
		if err != nil {
			fail(err)
			continue
		}
		pid, _, err := t.IDs()
		if err != nil {
			fail(err)
			continue
		}
		// Threads may have descriptors of their own, but rarely do.
		var tables []virt.Addr
		for thread, err := range l.Threads(ctx, t) {
			if err != nil {
				fail(err)
				continue
			}
			files, err := netGuarded(&c.r, func() virt.Addr { return c.r.pointer(thread.Addr, o.files) })
			if err != nil {
				fail(fmt.Errorf("descriptors of task %#x: %w", uint64(thread.Addr), err))
				continue
			}
			if files != 0 && !slices.Contains(tables, files) && len(tables) < 64 {
				tables = append(tables, files)
			}
		}
		for _, files := range tables {
			socks, err := c.table(files)
			if err != nil {
				fail(fmt.Errorf("descriptors of process %d: %w", pid, err))
			}
			for _, k := range socks {
				if _, known := w.pids[k.sk]; !known {
					w.order, w.socks[k.socket] = append(w.order, k.sk), k.sk
				}
				w.pids[k.sk] = append(w.pids[k.sk], pid)
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	for sk, pids := range w.pids {
		slices.Sort(pids)
		w.pids[sk] = slices.Compact(pids)
	}
	return w
}

type socketCollector struct {
	s    *System
	o    *socketFDLayout
	fops virt.Addr
	r    reader
	out  *socketOwners
	held map[virt.Addr][]heldSocket // by files_struct
	file map[virt.Addr]heldSocket   // by file; zero for other files
}

// table is the sockets in the files_struct at files, each once. What could be read
// comes beside the error.
func (c *socketCollector) table(files virt.Addr) ([]heldSocket, error) {
	if known, ok := c.held[files]; ok {
		return known, nil
	}
	var socks []heldSocket
	_, err := netGuarded(&c.r, func() int {
		o, r := c.o, &c.r
		fdt := r.pointer(files, o.fdt)
		n, array := min(r.num(fdt, o.maxFDs), maxFDs), r.pointer(fdt, o.fd)
		var page [phys.PageSize]byte
		for at := uint64(0); at < n && r.err == nil; at += phys.PageSize / 8 {
			count := min(n-at, phys.PageSize/8)
			copy(page[:], r.bytes(array+virt.Addr(8*at), int(8*count)))
			for i := range count {
				if f := virt.Addr(binary.LittleEndian.Uint64(page[8*i:])); f != 0 && r.err == nil {
					if k := c.sock(f); k.sk != 0 && !slices.Contains(socks[max(0, len(socks)-8):], k) {
						socks = append(socks, k)
					}
				}
			}
		}
		return 0
	})
	c.held[files] = socks
	return socks, err
}

// sock is the socket behind the struct file at f; zero if there is none.
func (c *socketCollector) sock(f virt.Addr) heldSocket {
	if known, ok := c.file[f]; ok {
		return known
	}
	o, r := c.o, &c.r
	var k heldSocket
	if r.pointer(f, o.fop) == c.fops {
		if k.socket = r.pointer(f, o.private); k.socket != 0 {
			k.sk = r.pointer(k.socket, o.sk)
		}
	}
	if r.err == nil {
		c.file[f] = k
	}
	return k
}
