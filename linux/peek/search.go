package peek

import (
	"bytes"
	"context"
	"errors"
	"iter"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Match is a place where bytes were found.
type Match struct {
	Addr    uint64 // in the address space that was searched
	PA      phys.Addr
	Context []byte // what is there, and a little more
}

const (
	searchChunk  = 1 << 20
	matchContext = 64
)

// ErrPattern says that there is nothing to search for.
var ErrPattern = errors.New("nothing to search for: a pattern has 1 byte to 1 MiB")

// Search yields where pattern is in m, at multiples of align: in a process's half of its
// memory, in what the kernel's page tables map, or in all physical memory. The direct
// map of all memory is left out of the kernel's: that is physical memory. A match may
// cross from one page to the next where these follow each other.
func (m *Memory) Search(ctx context.Context, pattern []byte, align uint64) iter.Seq2[Match, error] {
	return func(yield func(Match, error) bool) {
		if len(pattern) == 0 || len(pattern) > searchChunk {
			yield(Match{}, ErrPattern)
			return
		}
		s := &search{m: m, ctx: ctx, pattern: pattern, align: max(align, 1), yield: yield}
		if m.space == nil {
			for _, r := range m.s.Memory.Ranges() {
				if !s.run(uint64(r.Start), r.Start, r.Size()) {
					break
				}
			}
		} else {
			s.space()
		}
		if err := ctx.Err(); err != nil && !s.stopped {
			yield(Match{}, err)
		}
	}
}

type search struct {
	m       *Memory
	ctx     context.Context
	pattern []byte
	align   uint64
	yield   func(Match, error) bool
	stopped bool
	last    []byte // the end of what came before, in case that a match begins there
	next    uint64 // where what follows it would be
}

// space searches what the page tables map.
func (s *search) space() {
	space := s.m.space
	type span struct{ from, to virt.Addr }
	top := virt.Addr(1)<<(12+9*space.Levels()-1) - 1
	spans := []span{{0, top}}
	if space.Root() == s.m.s.Space.Root() { // the kernel's: all but the direct map
		low, high := ^top, virt.Addr(0xffff_ffff_ffff_efff)
		spans = []span{{low, high}}
		if base := space.DirectBase(); base != 0 {
			end := base
			for _, r := range s.m.s.Memory.Ranges() {
				end = max(end, base+virt.Addr(r.End))
			}
			spans = []span{{low, base - 1}, {end, high}}
		}
	}
	for _, r := range spans {
		for e := range space.Mappings(r.from, r.to) {
			start, end := max(e.VA, r.from), e.VA+virt.Addr(e.Size-1)
			if !s.run(uint64(start), e.PA+phys.Addr(start-e.VA), uint64(end-start)+1) {
				return
			}
		}
	}
}

// run searches consecutive memory; it returns false to end the search.
func (s *search) run(at uint64, pa phys.Addr, size uint64) bool {
	buf := make([]byte, min(size, searchChunk))
	for done := uint64(0); done < size; {
		if s.ctx.Err() != nil {
			return false
		}
		b := buf[:min(uint64(len(buf)), size-done)]
		_, err := s.m.s.Memory.ReadAt(b, pa+phys.Addr(done))
		if errors.Is(err, phys.ErrGone) {
			s.stopped = true
			s.yield(Match{}, err)
			return false
		}
		if err == nil && !s.chunk(at+done, pa+phys.Addr(done), b) {
			s.stopped = true
			return false
		}
		done += uint64(len(b))
	}
	return true
}

func (s *search) chunk(at uint64, pa phys.Addr, b []byte) bool {
	held := 0
	if s.next == at && len(s.last) > 0 {
		held = len(s.last)
		b = append(s.last, b...)
	}
	for off := 0; ; off++ {
		i := bytes.Index(b[off:], s.pattern)
		if i < 0 {
			break
		}
		off += i
		if a := at - uint64(held) + uint64(off); a%s.align == 0 {
			end := min(len(b), off+max(len(s.pattern), matchContext))
			if !s.yield(Match{a, pa - phys.Addr(held) + phys.Addr(off), bytes.Clone(b[off:end])}, nil) {
				return false
			}
		}
	}
	s.next = at + uint64(len(b)-held)
	keep := min(len(b), len(s.pattern)-1)
	s.last = bytes.Clone(b[len(b)-keep:])
	return true
}
