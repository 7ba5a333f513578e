package text

import (
	"bytes"
	"fmt"
	"sort"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// worker compares chunks of the text. It keeps its room from one to the next.
type worker struct {
	t         *Text
	r         *region
	want, got []byte // of the chunk, with what is around it
	room      []byte // for whole pages, of which got is a part
	repl      [256]byte
	found     []finding
	noted     int      // differences, of which found has as many as are kept
	digests   []uint64 // of the pages that it lies in
	words     []word   // that the chunk was judged by
	elsewhere bool     // it was judged by more than its bytes and these
	inHand    bool     // the site that was judged last is being changed
	n         int      // of the chunk
	base      uint64
}

// slack is by how much a site may reach beyond a chunk, around what is looked at on both
// sides of it.
const (
	slack  = 256
	around = 16
)

func (t *Text) newWorker() *worker {
	const n = chunkSize + slack + 2*around
	return &worker{t: t, want: make([]byte, n), room: make([]byte, n+2*phys.PageSize)}
}

// chunk compares chunk number c. A site belongs to the chunk in which it begins.
func (w *worker) chunk(c int) {
	r := w.t.chunks[c].region
	w.r = r
	from := r.start + uint64(w.t.chunks[c].n)*chunkSize
	to := min(from+chunkSize, r.end)
	i := sort.Search(len(r.tops), func(i int) bool { return r.tops[i].Addr >= from })
	j := i + sort.Search(len(r.tops)-i, func(k int) bool { return r.tops[i+k].Addr >= to })
	if i > 0 && r.tops[i-1].End() > from { // the chunk before has it
		from = min(r.tops[i-1].End(), to)
	}
	if j > i {
		to = min(max(to, r.tops[j-1].End()), r.end)
	}
	// What a difference means may show in what is around it.
	w.n, w.base = c, max(from-around, r.start)
	n := int(min(to+around, r.end) - w.base)
	// Whole pages, since a look keeps what is read of parts.
	first, last := w.base&^(phys.PageSize-1), (w.base+uint64(n)+phys.PageSize-1)&^(phys.PageSize-1)
	if w.inOrder(n, virt.Addr(first+w.t.offset), int((last-first)/phys.PageSize)) {
		return
	}
	if _, err := w.t.s.Space.ReadAt(w.room[:last-first], virt.Addr(first+w.t.offset)); err != nil {
		w.fail(fmt.Errorf("%s at %#x: %w", r, first+w.t.offset, err))
		return
	}
	w.got = w.room[w.base-first:][:n]
	w.digests = w.digests[:0]
	for b := w.room[:last-first]; len(b) > 0; b = b[phys.PageSize:] {
		w.digests = append(w.digests, phys.Digest(b[:phys.PageSize]))
	}
	w.want = w.want[:n]
	if err := r.read(w.want, w.base, w.t.offset); err != nil {
		w.fail(fmt.Errorf("%s at %#x in its file: %w", r, w.base, err))
		return
	}
	w.words, w.elsewhere = w.words[:0], r.code && w.t.state.probed(w.base, n)
	noted := w.noted
	want, got := w.want, w.got
	if r.forget != nil {
		r.forget(want, got, w.base)
	}
	if r.code {
		w.t.state.withoutProbes(w.base, got)
	}
	pos, end := int(from-w.base), int(to-w.base)
	for _, s := range r.tops[i:j] {
		at := int(s.Addr - w.base)
		if !bytes.Equal(want[pos:at], got[pos:at]) {
			w.gap(pos, at)
		}
		pos = at + int(s.Len)
		if reason := w.site(s, want[at:pos], got[at:pos]); reason != "" {
			w.note(at, pos, s.Kind, reason)
		}
	}
	if !bytes.Equal(want[pos:end], got[pos:end]) {
		w.gap(pos, end)
	}
	if w.noted == noted && !w.elsewhere {
		w.keep()
	}
}

func (w *worker) fail(err error) {
	w.found = append(w.found, finding{chunk: w.n, err: err})
}

// nearby is how many equal bytes may lie between two differing ones of one piece.
const nearby = 8

// gap notes the pieces of [from, to) that differ, where nothing may.
func (w *worker) gap(from, to int) {
	for i := from; i < to; {
		if w.want[i] == w.got[i] {
			i++
			continue
		}
		if !w.r.code {
			i = w.word(i, from, to)
			continue
		}
		if n := w.counted(i); n > 0 {
			i += n
			continue
		}
		end := i + 1
		for k := end; k < to && k-end < nearby; k++ {
			if w.want[k] != w.got[k] {
				end = k + 1
			}
		}
		w.note(i, end, 0, "the kernel patches nothing here")
		i = end
	}
}

// word notes the word of data that position i is in, within [from, to), and returns its end.
func (w *worker) word(i, from, to int) (end int) {
	if w.split(i) {
		return i + 1
	}
	pad := int(w.base) & 7
	start := max((i+pad)&^7-pad, from)
	end = min((i+pad)&^7-pad+8, to)
	w.note(start, end, 0, "nothing changes this once it is sealed")
	return end
}

func (w *worker) note(from, to int, k image.Kind, reason string) {
	if w.noted++; len(w.found) >= maxDifferences {
		return
	}
	f := finding{addr: w.base + uint64(from), n: to - from, kind: k, reason: reason, chunk: w.n, inHand: k != 0 && w.inHand}
	copy(f.want[:], w.want[from:to])
	copy(f.got[:], w.got[from:to])
	w.found = append(w.found, f)
}
