package network

import (
	"fmt"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// hiddenSockets are those that files lead to which no process has a descriptor of.
type hiddenSockets struct {
	ways  map[virt.Addr]SeenIn // by struct sock
	order []virt.Addr          // as they were found
}

func (h *hiddenSockets) add(sk virt.Addr, way SeenIn) {
	if sk == 0 {
		return
	}
	if h.ways[sk] == 0 {
		h.order = append(h.order, sk)
	}
	h.ways[sk] |= way
}

type flightLayout struct{ files, count, list kobj.Field }

const (
	maxFlightFiles  = 253      // SCM_MAX_FD
	maxFlightQueues = 64 << 10 // messages that are looked at
)

// hidden looks for files in flight, in the queues of unix sockets, and among those that
// rings of io_uring have registered. It reports no broken chain: the listing itself does.
func (l *socketLister) hidden(spaces []Namespace) *hiddenSockets {
	h := &hiddenSockets{ways: map[virt.Addr]SeenIn{}}
	if l.owners.files.o == nil {
		return h // which has been told
	}
	var o *flightLayout
	if l.w.o.unixAddr.Present() { // CONFIG_UNIX, and not as a module
		o, _ = kobj.LayoutOf(l.s.Walker, "files in flight", func(r *kobj.Resolver, o *flightLayout) {
			o.files = r.Field("unix_skb_parms", "fp")
			o.count, o.list = r.Field("scm_fp_list", "count"), r.Field("scm_fp_list", "fp")
		})
	}
	if o != nil {
		left := maxFlightQueues
		quiet := *l
		quiet.seen, quiet.tables = map[virt.Addr]struct{}{}, map[virt.Addr]struct{}{}
		quiet.yield = func(*Socket, error) bool { return true }
		quiet.visit = func(a virt.Addr) {
			if _, err := kobj.Read(&l.w.r, func() int { l.flight(o, a, &left, h); return 0 }); err != nil {
				l.fail(fmt.Errorf("files in the queue of the unix socket at %#x: %w", uint64(a), err))
			}
		}
		quiet.unixTables(spaces)
	}
	// Rings in flight are among them by now, and rings may hold rings.
	registered, err := l.s.RegisteredFiles()
	if err != nil {
		return h // a kernel without
	}
	c := l.owners.files
	for i := 0; i < len(c.rings); i++ {
		_, err := kobj.Read(&c.r, func() int {
			bad := 0
			registered(&c.r, c.rings[i], func(file virt.Addr) bool {
				k := c.sock(file)
				if c.r.Err != nil && bad < maxNoSocket { // of this one; the others may be fine
					bad, c.r.Err = bad+1, nil
				}
				h.add(k.sk, SeenInRing)
				return c.r.Err == nil
			})
			return 0
		})
		if err != nil {
			l.fail(fmt.Errorf("files of the ring at %#x: %w", uint64(c.rings[i]), err))
		}
	}
	return h
}

// flight looks at what is sent along with the messages that the unix socket at a has
// not read yet.
func (l *socketLister) flight(o *flightLayout, a virt.Addr, left *int, h *hiddenSockets) {
	k, r := l.w.o, &l.w.r
	queue := k.recvQ.At(a)
	n := r.Uint(queue, k.recvN)
	for skb := r.Pointer(queue, k.skbNext); n > 0 && skb != queue && skb != 0 && r.Err == nil && *left > 0; n-- {
		*left--
		if list := r.Pointer(k.skbCB.At(skb), o.files); list != 0 {
			for i := range min(r.Uint(list, o.count), maxFlightFiles) {
				file := r.Ptr(o.list.At(list) + virt.Addr(8*i))
				if file == 0 || r.Err != nil {
					break
				}
				k, err := kobj.Read(&l.owners.files.r, func() heldSocket { return l.owners.files.sock(file) })
				if err != nil {
					r.Err = err
					return
				}
				h.add(k.sk, SeenInFlight)
			}
		}
		skb = r.Pointer(skb, k.skbNext)
	}
}

// unixTables walks the tables of unix sockets: one of all namespaces until 5.19.
func (l *socketLister) unixTables(spaces []Namespace) {
	if a, ok := l.s.Address("unix_socket_table"); ok {
		l.chains("unix", a, unixBuckets, 8, 0)
	}
	for _, n := range spaces {
		var table virt.Addr
		if l.read(func(r *kobj.Reader) { table = r.Pointer(n.Addr, l.t.unixBuckets) }) {
			l.chains("unix", table, unixBuckets, 8, 0)
		}
	}
}
