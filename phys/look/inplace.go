package look

import "github.com/outsight-vmi/outsight/phys"

// InPlace is the n bytes from pa on as they are in the source at each moment, without being read or kept: for who goes
// through much of which he wants little. It is false where the source cannot be seen in place, and where a page of it is
// kept: that is to be read. The bytes change while they are looked at, and touching them may fault ([phys.Guard]).
func (m *Memory) InPlace(pa phys.Addr, n int) ([]byte, bool) { return m.inSource(pa, n, 0) }

// InPlace is that of the memory itself: what is kept from before is not what this shows.
func (f *fresh) InPlace(pa phys.Addr, n int) ([]byte, bool) { return f.inSource(pa, n, f.since) }

// InPlace is always false: nobody could note what was seen.
func (n *Noted) InPlace(phys.Addr, int) ([]byte, bool) { return nil, false }

func (m *Memory) inSource(pa phys.Addr, n int, since uint32) ([]byte, bool) {
	mapper, ok := phys.As[phys.Mapper](m.src)
	if !ok || m.closed.Load() {
		return nil, false
	}
	for at := pa &^ (phys.PageSize - 1); at < pa+phys.Addr(n); at += phys.PageSize {
		if m.kept(at, since) != nil {
			return nil, false
		}
	}
	return mapper.Map(pa, n)
}
