package look

import "github.com/outsight-vmi/outsight/phys"

// Fresh is m for somebody who found that what is kept contradicts itself, because the
// guest changed it between two reads: each page that is read through it is read again from
// the source, once, and takes the place of the one that is kept. It implements
// [phys.Refresher]. Make a new one for every attempt.
func (m *Memory) Fresh() phys.Memory { return &fresh{m, m.now.Add(1)} }

type fresh struct {
	*Memory
	since uint32
}

func (f *fresh) ReadAt(p []byte, pa phys.Addr) (int, error) { return f.readAt(p, pa, f.since) }

func (f *fresh) Word(pa phys.Addr) (uint64, error) { return f.word(pa, f.since) }

func (f *fresh) Map(pa phys.Addr, n int) ([]byte, bool) { return f.view(pa, n, f.since) }

func (f *fresh) Digests(dst []uint64, pa phys.Addr) error { return f.digests(dst, pa, f.since) }
