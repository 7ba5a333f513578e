package linux

import (
	"encoding/binary"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// A look keeps each page as it was first read (package phys/look). Two pages of one task
// can be of two times, then, and reading the first again shows no change. So what proves
// that something stayed the same while it was read is read from the guest itself, and what
// did not is read again in full, for all who share the look.

// Fresh is s for another attempt at something that changed while it was read. Where
// nothing is kept it is s.
func (s *System) Fresh() *System {
	w := s.Walker.Fresh()
	if w == s.Walker {
		return s
	}
	c := *s
	c.Walker, c.owners = w, nil
	return &c
}

// guestNow is the guest as it is now, below what a look keeps of it.
type guestNow struct {
	kept  phys.Refresher // nil: nothing is kept
	space *virt.Space
}

func newGuestNow(s *System) guestNow {
	kept, _ := phys.As[phys.Refresher](s.Memory)
	return guestNow{kept, s.Space.Live()}
}

// loads counts what was read from the guest.
func (g *guestNow) loads() uint64 {
	if g.kept == nil {
		return 0
	}
	return g.kept.Loads()
}

// stale reports whether what is kept could be of two times: if nothing was read from the
// guest since loads was taken, it is as it was found then.
func (g *guestNow) stale(loads uint64) bool { return g.kept != nil && g.kept.Loads() != loads }

// use makes l read through s.
func (l *ProcessReader) use(s *System) { l.s, l.r.Space = s, s.Space }

// attempt prepares for one more: all but the first read the guest again.
func (l *ProcessReader) attempt(try int) {
	l.r.Err = nil
	if try > 0 {
		l.use(l.s.Fresh())
	}
}

// ptrAfter is what the pointer at a, which was before, is after what was read since loads
// was taken.
func (l *ProcessReader) ptrAfter(a, before virt.Addr, loads uint64) virt.Addr {
	switch {
	case l.now.kept == nil:
		return l.r.Ptr(a)
	case !l.now.stale(loads) || l.r.Err != nil:
		return before
	}
	v, err := l.now.space.U64(a)
	l.r.Err = err
	return virt.Addr(v)
}

// identityAfter is the identity of the task at a, which was before, after what was read
// since loads was taken.
func (l *ProcessReader) identityAfter(a virt.Addr, before identity, loads uint64) (id identity) {
	switch {
	case l.now.kept == nil:
		id, _ = l.identity(a)
		return id
	case !l.now.stale(loads) || l.r.Err != nil:
		return before
	}
	// In one read: each may cost a system call.
	o := l.s.o
	first := min(o.tgid, o.pid, o.startBoottime, o.mm)
	size := max(o.tgid, o.pid, o.startBoottime, o.mm) + 8 - first
	if size > phys.PageSize {
		id, _ = l.identity(a)
		return id
	}
	if l.again == nil {
		l.again = make([]byte, size)
	}
	b := l.again
	if _, l.r.Err = l.now.space.ReadAt(b, a+virt.Addr(first)); l.r.Err != nil {
		return id
	}
	return identity{
		tgid(b[o.tgid-first:]), tgid(b[o.pid-first:]),
		binary.LittleEndian.Uint64(b[o.startBoottime-first:]), virt.Addr(binary.LittleEndian.Uint64(b[o.mm-first:])),
	}
}

func tgid(b []byte) int32 { return int32(binary.LittleEndian.Uint32(b)) }
