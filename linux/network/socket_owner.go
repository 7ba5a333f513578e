package network

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// socketOwners is which processes hold which sockets in their descriptors.
type socketOwners struct {
	pids  map[virt.Addr][]int32   // by struct sock, ascending
	socks map[virt.Addr]virt.Addr // by struct socket
	order []virt.Addr             // the socks, as they were found
	files *socketCollector
}

// heldSocket is what a file leads to. Of MPTCP, several socks have one struct socket: the
// sock that it leads to, and those of the connection's paths.
type heldSocket struct{ socket, sk virt.Addr }

type socketFDLayout struct {
	files, fdt, maxFDs, fd, open, cloexec, fop, private, sk kobj.Field
	pid, leader                                             kobj.Field // of a task
}

// newSocketCollector prepares to find the sockets behind files. With an error it finds none.
func newSocketCollector(s *linux.System) (c *socketCollector, err error) {
	c = &socketCollector{s: s, r: s.Reader(), left: maxOwned, held: map[virt.Addr][]heldSocket{}, file: map[virt.Addr]heldSocket{}}
	o, err := kobj.LayoutOf(s.Walker, "descriptors of sockets", func(r *kobj.Resolver, o *socketFDLayout) {
		o.files, o.fdt = r.Field("task_struct", "files"), r.Field("files_struct", "fdt")
		o.maxFDs, o.fd = r.Field("fdtable", "max_fds"), r.Field("fdtable", "fd")
		o.open, o.cloexec = r.Field("fdtable", "open_fds"), r.Field("fdtable", "close_on_exec")
		o.fop, o.private = r.Field("file", "f_op"), r.Field("file", "private_data")
		o.sk = r.Field("socket", "sk")
		o.pid, o.leader = r.Field("task_struct", "pid"), r.Field("task_struct", "group_leader")
	})
	if err != nil {
		return c, err
	}
	fops, err := s.SymbolAddr("socket_file_ops")
	if err != nil {
		return c, fmt.Errorf("descriptors of sockets: %w: %w", kobj.ErrUnsupported, err)
	}
	c.o, c.fops = o, fops
	c.ringOps, _ = s.Address("io_uring_fops")
	return c, nil
}

// newSocketOwners walks the descriptors of all processes. fail is told what could not
// be read.
func newSocketOwners(ctx context.Context, s *linux.System, fail func(error)) *socketOwners {
	c, err := newSocketCollector(s)
	w := &socketOwners{pids: map[virt.Addr][]int32{}, socks: map[virt.Addr]virt.Addr{}, files: c}
	if err != nil {
		fail(err)
		return w
	}
	l := s.NewProcessReader()
	for t, err := range s.Processes(ctx) {
		if err != nil {
			fail(err)
			continue
		}
		pid, err := c.leader(t)
		if err != nil {
			if fail(err); !c.stray() {
				break
			}
			continue
		}
		// Threads may have descriptors of their own, but rarely do.
		var tables []heldTable
		for thread, err := range l.Threads(ctx, t) {
			if err != nil {
				fail(err)
				continue
			}
			files, err := c.files(thread, t)
			if err != nil {
				if fail(err); !c.stray() {
					break
				}
				continue
			}
			if files != 0 && len(tables) < 64 && !slices.ContainsFunc(tables, func(h heldTable) bool { return h.files == files }) {
				tables = append(tables, heldTable{files, thread.Addr})
			}
		}
		for _, h := range tables {
			socks, err := c.table(h.files)
			if err != nil && !c.closed(h) {
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

// heldTable is a files_struct, and the thread that has it.
type heldTable struct{ files, thread virt.Addr }

// closed reports whether the thread has given its files_struct away meanwhile, as one that ends does: then its memory may be
// something else's.
func (c *socketCollector) closed(h heldTable) bool {
	r := c.s.Over(c.s.Space.Live().Memory()).Reader()
	now := r.Pointer(h.thread, c.o.files)
	return r.Err == nil && now != h.files
}

type socketCollector struct {
	s       *linux.System
	o       *socketFDLayout
	fops    virt.Addr   // of sockets
	ringOps virt.Addr   // of rings of io_uring; 0 without
	rings   []virt.Addr // each once
	r       kobj.Reader
	left    int                        // descriptors that may still be looked at
	strays  int                        // elements of the lists of tasks that were none
	held    map[virt.Addr][]heldSocket // by files_struct
	file    map[virt.Addr]heldSocket   // by file; zero for other files
}

const (
	maxSocketFDs = 4 << 20 // descriptors of one process: fs.nr_open is 1048576 by default
	maxNoSocket  = 64      // descriptors of one process that lead to no file
)

// maxStrayTasks is how many elements of the lists of tasks may be none: a list that was
// broken can lead through all kinds of memory.
const maxStrayTasks = 64

func (c *socketCollector) stray() bool {
	c.strays++
	return c.strays < maxStrayTasks
}

// leader is the number of a process, whose first thread t is.
func (c *socketCollector) leader(t linux.Task) (pid int32, err error) {
	var leader virt.Addr
	pid, err = kobj.Read(&c.r, func() int32 {
		leader = c.r.Pointer(t.Addr, c.o.leader)
		return int32(c.r.Int(t.Addr, c.o.pid))
	})
	if err == nil && leader != t.Addr {
		err = fmt.Errorf("%w: it leads no process", kobj.ErrBroken)
	}
	if err != nil {
		err = fmt.Errorf("descriptors of task %#x: %w", uint64(t.Addr), err)
	}
	return pid, err
}

// files is the files_struct of a thread of the process that leader leads.
func (c *socketCollector) files(thread, leader linux.Task) (files virt.Addr, err error) {
	var its virt.Addr
	files, err = kobj.Read(&c.r, func() virt.Addr {
		its = c.r.Pointer(thread.Addr, c.o.leader)
		return c.r.Pointer(thread.Addr, c.o.files)
	})
	if err == nil && its != leader.Addr {
		err = fmt.Errorf("%w: it is not a thread of %#x", kobj.ErrBroken, uint64(leader.Addr))
	}
	if err != nil {
		err = fmt.Errorf("descriptors of task %#x: %w", uint64(thread.Addr), err)
	}
	return files, err
}

// maxRings bounds the rings whose files are looked at.
const maxRings = 1024

// maxOwned bounds the descriptors of all processes that are looked at.
const maxOwned = 16 << 20

// table is the sockets in the files_struct at files, each once. What could be read
// comes beside the error.
func (c *socketCollector) table(files virt.Addr) ([]heldSocket, error) {
	if known, ok := c.held[files]; ok {
		return known, nil
	}
	var socks []heldSocket
	_, err := kobj.Read(&c.r, func() int {
		r := &c.r
		n, array, wrong := c.size(files)
		bad := 0
		var page [phys.PageSize]byte
		for at := uint64(0); at < n && r.Err == nil && c.left > 0; at += phys.PageSize / 8 {
			count := min(n-at, phys.PageSize/8)
			c.left -= int(count)
			copy(page[:], r.Bytes(array+virt.Addr(8*at), int(8*count)))
			for i := range count {
				f := virt.Addr(binary.LittleEndian.Uint64(page[8*i:]))
				if f == 0 || r.Err != nil {
					continue
				}
				k := c.sock(f)
				if r.Err != nil {
					// The others may be fine, unless none of them is a file.
					if wrong = r.Err; bad < maxNoSocket {
						bad, r.Err = bad+1, nil
					}
				} else if k.sk != 0 && !slices.Contains(socks[max(0, len(socks)-8):], k) {
					socks = append(socks, k)
				}
			}
		}
		if r.Err == nil {
			r.Err = wrong
		}
		return 0
	})
	if err == nil && c.left <= 0 {
		err = kobj.ErrBudget
	}
	c.held[files] = socks
	return socks, err
}

// size is how many descriptors there are, and where. The two bitmaps beside them lie as far
// apart as one is long, which shows a number that lies.
func (c *socketCollector) size(files virt.Addr) (n uint64, array virt.Addr, wrong error) {
	o, r := c.o, &c.r
	fdt := r.Pointer(files, o.fdt)
	n, array = r.Uint(fdt, o.maxFDs), r.Pointer(fdt, o.fd)
	apart := int64(r.Pointer(fdt, o.open) - r.Pointer(fdt, o.cloexec))
	if room := 8 * uint64(max(apart, -apart)); n != room && r.Err == nil {
		wrong = fmt.Errorf("%w: %d descriptors, with bitmaps of %d", kobj.ErrBroken, n, room)
		n = min(n, room)
	}
	return min(n, maxSocketFDs), array, wrong
}

// sock is the socket behind the struct file at f; zero if there is none.
func (c *socketCollector) sock(f virt.Addr) heldSocket {
	if known, ok := c.file[f]; ok {
		return known
	}
	o, r := c.o, &c.r
	var k heldSocket
	switch r.Pointer(f, o.fop) {
	case c.fops:
		if k.socket = r.Pointer(f, o.private); k.socket != 0 {
			k.sk = r.Pointer(k.socket, o.sk)
		}
	case c.ringOps:
		if ring := r.Pointer(f, o.private); ring != 0 && !slices.Contains(c.rings, ring) && len(c.rings) < maxRings {
			c.rings = append(c.rings, ring)
		}
	}
	if r.Err == nil {
		c.file[f] = k
	}
	return k
}
