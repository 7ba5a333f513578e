package text

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"sort"
	"sync"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/virt"
)

// What is in order stays so while nothing that it was judged by changes: the bytes of a chunk,
// the state that governs all sites, and the words of the guest's memory that govern the chunk's own
// (keys of jump labels and static calls, pointers of pv_ops). So a chunk is walked from site to site
// once, and a look at it after that reads its bytes and these words. What was judged by more than that
// (owners of code, ftrace's records, probes) is not kept, and neither is what differs.

// verdicts are the chunks of a region that were found to be in order, and by what.
type verdicts struct {
	mu     sync.Mutex
	chunks []verdict
}

type verdict struct {
	state uint64   // [state.digest]; 0: it was not found to be in order
	pages []uint64 // digests of what it lies in
	words []word   // that were read beside it
}

// word is one that was read of the guest to judge a site.
type word struct {
	addr  virt.Addr
	value uint64
	kind  wordKind
}

type wordKind uint8

const (
	wordOf8   wordKind = iota
	wordOf4            // bytes
	isNonzero          // of 4 bytes: value is 1 or 0
)

// seed is of the digests of states.
var seed = maphash.MakeSeed()

// digest sums up what governs all sites, as far as it was read by load.
func (st *state) digest() uint64 {
	b := make([]byte, 0, 8*(len(st.pointers)+8)+4*maxFeatures)
	b = binary.LittleEndian.AppendUint64(b, st.t.offset)
	for _, p := range st.pointers {
		b = binary.LittleEndian.AppendUint64(b, p)
	}
	consts := uint64(len(st.consts))
	for name, value := range st.consts { // in any order
		consts += maphash.Comparable(seed, [2]any{name, value})
	}
	b = binary.LittleEndian.AppendUint64(b, consts)
	for _, f := range st.features {
		b = binary.LittleEndian.AppendUint32(b, f)
	}
	for _, is := range []bool{st.thunks, st.locks, st.noLocks} {
		b = append(b, 0)
		if is {
			b[len(b)-1] = 1
		}
	}
	return max(maphash.Bytes(seed, b), 1)
}

// probed reports whether a kprobe is in the n bytes from base on, as linked.
func (st *state) probed(base uint64, n int) bool {
	from := base + st.t.offset
	i := sort.Search(len(st.probes), func(i int) bool { return st.probes[i].at+5 > from })
	return i < len(st.probes) && st.probes[i].at < from+uint64(n)
}

// u64 reads a word that governs a site, for [worker.keep].
func (w *worker) u64(a virt.Addr) (uint64, error) {
	v, err := w.t.s.Space.U64(a)
	w.judgedBy(word{a, v, wordOf8}, err)
	return v, err
}

// u32 is u64 for four bytes.
func (w *worker) u32(a virt.Addr) (uint32, error) {
	v, err := w.t.s.Space.U32(a)
	w.judgedBy(word{a, uint64(v), wordOf4}, err)
	return v, err
}

// enabled reads whether a static key's count is not 0, and depends on no more than that.
func (w *worker) enabled(key virt.Addr) (bool, error) {
	v, err := w.t.s.Space.U32(key)
	k := word{addr: key, kind: isNonzero}
	if v != 0 {
		k.value = 1
	}
	w.judgedBy(k, err)
	return v != 0, err
}

func (w *worker) judgedBy(k word, err error) {
	if err != nil {
		w.elsewhere = true
		return
	}
	w.words = append(w.words, k)
}

// function is [state.function]; what is not the kernel's is judged by who has code there now.
func (w *worker) function(addr uint64) bool {
	if w.t.state.kernelFunction(addr) {
		return true
	}
	w.elsewhere = true
	return w.t.state.function(addr)
}

// tracerAt is [state.tracer], which is judged by the users of ftrace.
func (w *worker) tracerAt(target uint64) bool {
	w.elsewhere = true
	return w.t.state.tracer(target)
}

// unnamed is [state.unnamed], which is judged by the kernel's list of caches.
func (w *worker) unnamed(c *image.RuntimeConst, value uint64) bool {
	w.elsewhere = true
	return w.t.state.unnamed(c, value)
}

// inOrder reports whether the chunk, of the n bytes from w.base on, in the pages from first on, was in
// order when it was judged last, and nothing of what it was judged by has changed.
func (w *worker) inOrder(n int, first virt.Addr, pages int) bool {
	k := w.r.kept
	k.mu.Lock()
	v := k.at(w.t.chunks[w.n].n)
	known := *v
	k.mu.Unlock()
	if known.state != w.t.digest || len(known.pages) != pages || w.r.code && w.t.state.probed(w.base, n) {
		return false
	}
	w.digests = slices.Grow(w.digests[:0], pages)[:pages]
	if w.t.s.Digests(w.digests, first) != nil || !slices.Equal(w.digests, known.pages) {
		return false
	}
	for _, was := range known.words { // never written to once it is in a verdict
		if was.kind == wordOf8 {
			if now, err := w.t.s.Space.U64(was.addr); err != nil || now != was.value {
				return false
			}
			continue
		}
		now, err := w.t.s.Space.U32(was.addr)
		if err != nil || was.kind == wordOf4 && uint64(now) != was.value || was.kind == isNonzero && (now != 0) != (was.value != 0) {
			return false
		}
	}
	return true
}

// keep notes that the chunk is in order, by the pages that w.digests is of and w.words alone.
func (w *worker) keep() {
	k := w.r.kept
	k.mu.Lock()
	defer k.mu.Unlock()
	*k.at(w.t.chunks[w.n].n) = verdict{w.t.digest, slices.Clone(w.digests), slices.Clone(w.words)}
}

// at is what is known of chunk n. k.mu is held.
func (k *verdicts) at(n int) *verdict {
	for len(k.chunks) <= n {
		k.chunks = append(k.chunks, verdict{})
	}
	return &k.chunks[n]
}
