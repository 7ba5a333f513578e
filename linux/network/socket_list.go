package network

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// maxSockets bounds the sockets of one guest.
const maxSockets = 4 << 20

// socketLimit is how many sockets the guest can have: no more than fit in its memory.
func socketLimit(s *linux.System, size uint32) int {
	var ram uint64
	for _, r := range s.Memory.Ranges() {
		ram += r.Size()
	}
	return int(min(maxSockets, ram/uint64(max(size, 64))+1))
}

// socketTables is where the protocols keep their sockets.
type socketTables struct {
	tcpInfo, ehash, ehashMask, lhash2, lhash2Mask, listening kobj.Field
	ehashChain, listenHead                                   kobj.Field
	ehashSize, listenSize                                    uint32
	udpTable, udpHash, udpMask, udpHead                      kobj.Field
	udpSize                                                  uint32
	rawHash, pingHash                                        kobj.Field
	unixBuckets, packets, xdps                               kobj.Field
	nlSize                                                   uint32
	nlHash, nlNode, nlGroups                                 kobj.Field
}

func newSocketTables(s *linux.System) (*socketTables, error) {
	return kobj.LayoutOf(s.Walker, "tables of sockets", func(r *kobj.Resolver, o *socketTables) {
		o.tcpInfo = r.Optional("net", "ipv4.tcp_death_row.hashinfo")
		o.ehash, o.ehashMask = r.Field("inet_hashinfo", "ehash"), r.Field("inet_hashinfo", "ehash_mask")
		o.lhash2, o.lhash2Mask = r.Field("inet_hashinfo", "lhash2"), r.Field("inet_hashinfo", "lhash2_mask")
		o.listening = r.Optional("inet_hashinfo", "listening_hash") // until 5.18
		o.ehashChain, o.ehashSize = r.Field("inet_ehash_bucket", "chain"), r.Size("inet_ehash_bucket")
		o.listenHead, o.listenSize = r.Field("inet_listen_hashbucket", "nulls_head"), r.Size("inet_listen_hashbucket")
		o.udpTable = r.Optional("net", "ipv4.udp_table") // 6.2
		o.udpHash, o.udpMask = r.Field("udp_table", "hash"), r.Field("udp_table", "mask")
		o.udpHead, o.udpSize = r.Field("udp_hslot", "head"), r.Size("udp_hslot")
		o.rawHash, o.pingHash = r.Field("raw_hashinfo", "ht"), r.Optional("ping_table", "hash")
		o.unixBuckets = r.Optional("net", "unx.table.buckets") // 6.0; else unix_socket_table
		o.packets, o.xdps = r.Optional("net", "packet.sklist"), r.Optional("net", "xdp.list")
		o.nlHash, o.nlSize = r.Field("netlink_table", "hash"), r.Size("netlink_table")
		o.nlNode, o.nlGroups = r.Field("netlink_sock", "node"), r.Optional("netlink_table", "mc_list")
	})
}

// Sockets yields every socket that a protocol's table, a process's descriptor, a message
// in the queue of a unix socket or a ring of io_uring leads to, each once: first table by
// table, then those that are in none. An error stands for a socket, or a part of a table,
// that could not be read.
func Sockets(ctx context.Context, s *linux.System) iter.Seq2[*Socket, error] {
	return func(yield func(*Socket, error) bool) {
		w, err := newSocketReader(s)
		if err != nil {
			yield(nil, err)
			return
		}
		t, err := newSocketTables(s)
		if err != nil {
			yield(nil, err)
			return
		}
		l := &socketLister{s: s, ctx: ctx, w: w, t: t, yield: yield, most: socketLimit(s, w.o.commonSize), seen: map[virt.Addr]struct{}{}, tables: map[virt.Addr]struct{}{}}
		l.owners = newSocketOwners(ctx, s, func(err error) { l.fail(err) })
		var spaces []Namespace
		for n, err := range Namespaces(ctx, s) {
			if err != nil {
				l.fail(err)
				continue
			}
			spaces = append(spaces, n)
		}
		l.aside = l.hidden(spaces)
		l.global()
		l.unixTables(spaces)
		for _, n := range spaces {
			l.namespace(n)
		}
		l.rest(l.owners.order, SeenInDescriptor)
		l.rest(l.aside.order, 0)
	}
}

type socketLister struct {
	s       *linux.System
	ctx     context.Context
	w       *socketReader
	t       *socketTables
	owners  *socketOwners
	aside   *hiddenSockets
	most    int // sockets
	seen    map[virt.Addr]struct{}
	tables  map[virt.Addr]struct{} // those that were walked: namespaces may share them
	yield   func(*Socket, error) bool
	visit   func(virt.Addr) // does so instead of yielding, if not nil
	stopped bool
}

func (l *socketLister) fail(err error) {
	if !l.stopped && err != nil {
		l.stopped = !l.yield(nil, err)
	}
}

// one yields the socket at a; it returns false to end the walk.
func (l *socketLister) one(a virt.Addr, kind string, way SeenIn) bool {
	if l.stopped {
		return false
	}
	if _, twice := l.seen[a]; twice {
		return true
	}
	if len(l.seen) >= l.most {
		l.fail(fmt.Errorf("sockets: %w: more than %d", kobj.ErrBroken, l.most))
		l.stopped = true
		return false
	}
	l.seen[a] = struct{}{}
	if l.visit != nil {
		l.visit(a)
		return l.ctx.Err() == nil
	}
	k, err := l.w.socket(l.ctx, a, kind)
	if err != nil {
		l.fail(err)
		return !l.stopped
	}
	k.SeenIn = way | l.aside.ways[a]
	if pids, ok := l.owners.pids[a]; ok {
		k.PIDs, k.SeenIn = pids, k.SeenIn|SeenInDescriptor
	} else if k.socket != 0 {
		k.PIDs = l.owners.pids[l.owners.socks[k.socket]] // of MPTCP: a path of the connection
	}
	if l.stopped = !l.yield(k, nil); l.stopped {
		return false
	}
	if l.ctx.Err() != nil {
		l.fail(l.ctx.Err())
		l.stopped = true
	}
	return !l.stopped
}

// read reads words of the kernel's and reports what fails.
func (l *socketLister) read(f func(r *kobj.Reader)) bool {
	_, err := kobj.Read(&l.w.r, func() int { f(&l.w.r); return 0 })
	l.fail(err)
	return err == nil && !l.stopped
}

// global walks the tables that all namespaces share.
func (l *socketLister) global() {
	t := l.t
	if a, ok := l.s.Address("tcp_hashinfo"); ok {
		l.tcp(a)
	}
	if a, ok := l.s.Address("udp_table"); ok {
		l.udp("udp", a)
	}
	if a, ok := l.s.Address("udplite_table"); ok { // until 6.19
		l.udp("udplite", a)
	}
	for _, name := range []string{"raw_v4_hashinfo", "raw_v6_hashinfo"} {
		if a, ok := l.s.Address(name); ok {
			l.chains("raw", t.rawHash.At(a), uint64(t.rawHash.Size/8), 8, 0)
		}
	}
	if a, ok := l.s.Address("ping_table"); ok && t.pingHash.Present() {
		l.chains("icmp", t.pingHash.At(a), uint64(t.pingHash.Size/8), 8, 0)
	}
	l.netlink()
}

// unixBuckets is the number of chains in a table of unix sockets (UNIX_HASH_SIZE):
// bound and unbound ones until 5.18, then mixed, but as many.
const unixBuckets = 512

func (l *socketLister) namespace(n Namespace) {
	t := l.t
	var info, udp virt.Addr
	if !l.read(func(r *kobj.Reader) { info, udp = r.Pointer(n.Addr, t.tcpInfo), r.Pointer(n.Addr, t.udpTable) }) {
		return
	}
	l.tcp(info)
	l.udp("udp", udp)
	if t.packets.Present() && !l.stopped {
		l.chain(&socketTable{kind: "packet", base: n.Addr}, t.packets.At(n.Addr), l.w.o.node.Offset)
	}
	if t.xdps.Present() && !l.stopped {
		l.chain(&socketTable{kind: "xdp", base: n.Addr}, t.xdps.At(n.Addr), l.w.o.node.Offset)
	}
}

func (l *socketLister) tcp(info virt.Addr) {
	t := l.t
	if _, done := l.tables[info]; done || l.stopped || info == 0 {
		return
	}
	l.tables[info] = struct{}{}
	var ehash, lhash2 virt.Addr
	var emask, lmask uint64
	if !l.read(func(r *kobj.Reader) {
		ehash, emask = r.Pointer(info, t.ehash), r.Uint(info, t.ehashMask)
		lhash2, lmask = r.Pointer(info, t.lhash2), r.Uint(info, t.lhash2Mask)
	}) {
		return
	}
	if t.listening.Present() {
		l.chains("tcp", t.listening.At(info), uint64(t.listening.Size/t.listenSize), t.listenSize, t.listenHead.Offset)
	} else {
		l.chains("tcp", lhash2, lmask+1, t.listenSize, t.listenHead.Offset)
	}
	l.chains("tcp", ehash, emask+1, t.ehashSize, t.ehashChain.Offset)
}

func (l *socketLister) udp(kind string, table virt.Addr) {
	if l.stopped || table == 0 {
		return
	}
	var hash virt.Addr
	var mask uint64
	if l.read(func(r *kobj.Reader) { hash, mask = r.Pointer(table, l.t.udpHash), r.Uint(table, l.t.udpMask) }) {
		l.chains(kind, hash, mask+1, l.t.udpSize, l.t.udpHead.Offset)
	}
}

// netlink walks the tables of bound netlink sockets, one for each of MAX_LINKS
// protocols, and the lists of those that listen to a group, bound or not.
func (l *socketLister) netlink() {
	const maxLinks = 32
	p, err := l.s.Pointer("nl_table")
	if err != nil || p == 0 {
		return
	}
	for i := range maxLinks {
		table := p + virt.Addr(uint32(i)*l.t.nlSize)
		t := &socketTable{kind: "netlink", base: table}
		for node, err := range l.s.RHashTable(l.ctx, l.t.nlHash.At(table), l.most) {
			a := node - virt.Addr(l.t.nlNode.Offset)
			if err == nil {
				err = l.w.plausible(a, t.kind)
			}
			if err != nil {
				if !l.strayed(t, err) {
					break
				}
				continue
			}
			if !l.one(a, t.kind, SeenInTable) {
				return
			}
		}
		if l.stopped {
			return
		}
		if l.t.nlGroups.Present() && l.w.o.bindNode.Present() {
			l.chain(t, l.t.nlGroups.At(table), l.w.o.bindNode.Offset)
		}
	}
}

// rest yields what is in no table.
func (l *socketLister) rest(socks []virt.Addr, way SeenIn) {
	for _, a := range socks {
		if _, twice := l.seen[a]; twice {
			continue
		}
		if err := l.w.plausible(a, ""); err != nil {
			l.fail(err)
			continue
		}
		if !l.one(a, "", way) {
			return
		}
	}
}
