package look

import (
	"sync/atomic"

	"github.com/outsight-vmi/outsight/phys"
)

// Digests implements [phys.Digester]. Nothing that is kept stands in for the source's pages, and pages that are
// read for their digest are not kept.
func (m *Memory) Digests(dst []uint64, pa phys.Addr) error { return m.digests(dst, pa, 0) }

// digests computes the digests again if somebody looks afresh: those that are known are of an earlier time.
func (m *Memory) digests(dst []uint64, pa phys.Addr, since uint32) error {
	if since != 0 {
		return phys.Digests(m.src, dst, pa)
	}
	for n := 0; n < len(dst); {
		at := pa + phys.Addr(n)*phys.PageSize
		if at >= m.end || m.closed.Load() {
			return phys.Digests(m.src, dst[n:], at)
		}
		if dst[n] = m.known(at); dst[n] != 0 {
			n++
			continue
		}
		run := n + 1
		for run < min(len(dst), n+phys.DigestRun) && m.known(pa+phys.Addr(run)*phys.PageSize) == 0 {
			run++
		}
		if err := phys.Digests(m.src, dst[n:run], at); err != nil {
			return err
		}
		for ; n < run; n++ {
			if at := pa + phys.Addr(n)*phys.PageSize; at < m.end {
				if s := m.chunk(at).sum(at); !s.CompareAndSwap(0, dst[n]) {
					dst[n] = s.Load() // another was faster
				}
			}
		}
	}
	return nil
}

// sum is where the digest of the page at pa is.
func (c *chunk) sum(pa phys.Addr) *atomic.Uint64 { return &c.sums[c.slot(pa)] }

// known is the digest of the page at pa; 0 if it is not known.
func (m *Memory) known(pa phys.Addr) uint64 {
	if c := m.find(pa); c != nil {
		return c.sum(pa).Load()
	}
	return 0
}
