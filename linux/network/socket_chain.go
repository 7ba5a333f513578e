package network

import (
	"fmt"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// maxStray is how many words of a table may lead to what is not a socket. A size or an
// address that lies makes a table of other memory, where nearly every word does; the
// kernel itself would not live long with so many.
const maxStray = 256

// maxStrayErrs is how many of them are told one by one.
const maxStrayErrs = 8

// socketTable is a table or list while it is walked.
type socketTable struct {
	kind  string
	base  virt.Addr
	stray int
}

// strayed counts what is not a socket; it returns false when the table is none.
func (l *socketLister) strayed(t *socketTable, err error) bool {
	switch t.stray++; {
	case t.stray <= maxStrayErrs:
		l.fail(fmt.Errorf("%s sockets: %w", t.kind, err))
	case t.stray == maxStray:
		l.fail(fmt.Errorf("%s sockets: table at %#x: %w: %d of its elements are not sockets", t.kind, uint64(t.base), kobj.ErrBroken, t.stray))
	}
	return t.stray < maxStray && !l.stopped
}

// chains walks a hash table whose elements hang by their skc_node.
func (l *socketLister) chains(kind string, base virt.Addr, count uint64, stride, off uint32) {
	if _, done := l.tables[base]; done || l.stopped || base == 0 {
		return
	}
	l.tables[base] = struct{}{}
	if count&(count-1) != 0 {
		l.fail(fmt.Errorf("%s sockets: table at %#x: %w: %d buckets, which is not a power of two", kind, uint64(base), kobj.ErrBroken, count))
		return
	}
	t := &socketTable{kind: kind, base: base}
	l.fail(l.s.HashBuckets(&l.w.r, base, count, stride, off, func(head virt.Addr) bool { return l.chain(t, head, l.w.o.node.Offset) }))
}

// chain walks one chain, or a list of that form, whose elements hang by what lies node
// bytes into a sock; it returns false to end the table.
func (l *socketLister) chain(t *socketTable, head virt.Addr, node uint32) bool {
	link := head
	for at, err := range l.s.HList(l.ctx, head, l.most) {
		if err != nil {
			return l.strayed(t, err)
		}
		a := at - virt.Addr(node)
		// The rest of a chain that leads to a known socket is known too.
		if _, twice := l.seen[a]; twice {
			break
		}
		err := l.w.plausible(a, t.kind)
		if err == nil && !l.one(a, t.kind, SeenInTable) {
			return false
		}
		if err != nil {
			if !l.strayed(t, err) {
				return false
			}
			// One that the element before, or the head, does lead to is followed further.
			if back, err := l.s.Word(at + 8); err != nil || virt.Addr(back) != link {
				break
			}
		}
		link = at
	}
	return !l.stopped
}

// plausible looks whether there can be a socket of that kind at a, before all of it is
// read: its family is one of the kind's, and its struct proto lies among the kernel's or
// a module's data, 2 GiB around the text.
func (w *socketReader) plausible(a virt.Addr, kind string) error {
	if !w.s.Space.KernelHalf(a) || a%8 != 0 {
		return fmt.Errorf("socket at %#x: %w: no kernel pointer", uint64(a), kobj.ErrBroken)
	}
	o, r := w.o, &w.r
	var prot virt.Addr
	family, err := kobj.Read(r, func() uint16 {
		prot = r.Pointer(a, o.prot)
		return uint16(r.Uint(a, o.family))
	})
	if err != nil {
		return fmt.Errorf("socket at %#x: %w", uint64(a), err)
	}
	known := family == FamilyInet || family == FamilyInet6
	if only, ok := socketFamilies[kind]; ok {
		known = family == only
	} else if kind == "" {
		known = true
	}
	if d := int64(prot - w.s.Text); !known || d >= 1<<31 || d < -1<<31 {
		return fmt.Errorf("socket at %#x: %w: it is none", uint64(a), kobj.ErrBroken)
	}
	return nil
}

// socketFamilies are the families of the kinds that are not IP's.
var socketFamilies = map[string]uint16{
	"unix": FamilyUnix, "packet": FamilyPacket, "netlink": FamilyNetlink, "xdp": FamilyXDP,
}
