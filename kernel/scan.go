package kernel

import (
	"bytes"
	"context"
	"iter"
	"runtime"
	"slices"
	"sync"

	"github.com/outsight-vmi/outsight/kernel/kallsyms"
	"github.com/outsight-vmi/outsight/phys"
)

const (
	// align is the least alignment of an amd64 kernel in physical memory
	// (CONFIG_PHYSICAL_ALIGN), and of its read-only data (ALIGN(HPAGE_SIZE) in
	// vmlinux.lds.S): one large page.
	align = 2 << 20
	// chunk is how much a full scan reads at a time, in bytes.
	chunk = 4 << 20
)

var bannerPrefix = []byte("Linux version ")

// populated yields the runs of memory worth reading, ascending.
func populated(mem phys.Memory) iter.Seq[phys.Range] {
	sparse, ok := phys.As[phys.Populated](mem)
	return func(yield func(phys.Range) bool) {
		if !ok {
			for _, r := range mem.Ranges() {
				if !yield(r) {
					return
				}
			}
			return
		}
		var run phys.Range // joined from those that touch
		for {
			r, more := sparse.NextPopulated(run.End)
			if !more || r.End <= run.End {
				break
			}
			if r.Start == run.End {
				run.End = r.End
				continue
			}
			if run.Size() > 0 && !yield(run) {
				return
			}
			run = r
		}
		if run.Size() > 0 {
			yield(run)
		}
	}
}

// rodataStarts yields the places that look like the start of a kernel's
// read-only data: on a large page's boundary, with the kernel's banner in the
// first page. It reads one page in 512.
func rodataStarts(ctx context.Context, mem phys.Memory) iter.Seq2[phys.Addr, string] {
	prober, _ := phys.As[phys.Prober](mem)
	return func(yield func(phys.Addr, string) bool) {
		buf := make([]byte, phys.PageSize)
		for _, r := range mem.Ranges() {
			for at := (r.Start + align - 1) &^ (align - 1); at < r.End && ctx.Err() == nil; at += align {
				if prober != nil && !prober.Backed(at) {
					continue
				}
				if _, err := mem.ReadAt(buf, at); err != nil {
					continue
				}
				if banner, ok := findBanner(buf); ok && !yield(at, banner) {
					return
				}
			}
		}
	}
}

// findBanner finds linux_banner ("Linux version 6.1.0 (…) #1 SMP …\n") in b.
func findBanner(b []byte) (string, bool) {
	for i := 0; ; {
		j := bytes.Index(b[i:], bannerPrefix)
		if j < 0 {
			return "", false
		}
		i += j
		line := b[i:]
		if end := bytes.IndexByte(line, '\n'); end > 0 && bytes.Contains(line[:end], []byte(") #")) {
			return string(line[:end]), true
		}
		i += len(bannerPrefix)
	}
}

// fullScan reads all of memory, on all cores, and returns where kallsyms tables
// may be, ascending, and whether anything but zeros was seen. It is for kernels
// whose read-only data does not begin with the banner.
func fullScan(ctx context.Context, mem phys.Memory) (hits []phys.Addr, zero bool) {
	type piece struct{ start, end phys.Addr }
	pieces := make(chan piece)
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	zero = true
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			buf := make([]byte, chunk+overlap)
			for p := range pieces {
				w := buf[:p.end-p.start]
				if n, _ := mem.ReadAt(w, p.start); n < len(w) {
					w = w[:n]
				}
				found, blank := indexesIn(w)
				mu.Lock()
				zero = zero && blank
				for _, off := range found {
					hits = append(hits, p.start+phys.Addr(off))
				}
				mu.Unlock()
			}
		})
	}
	for r := range populated(mem) {
		for at := r.Start; at < r.End && ctx.Err() == nil; at += chunk {
			// Each piece begins early enough to hold a token table whose index
			// begins in it.
			pieces <- piece{max(r.Start, at-min(at, overlap)), min(r.End, at+chunk)}
		}
	}
	close(pieces)
	wg.Wait()
	slices.Sort(hits)
	return slices.Compact(hits), zero
}

// overlap covers a token table and its index.
const overlap = 32 << 10

func indexesIn(w []byte) (offs []int, blank bool) {
	blank = true
	for at := 0; at < len(w); at += phys.PageSize {
		if page := w[at:min(at+phys.PageSize, len(w))]; !bytes.Equal(page, zeros[:len(page)]) {
			blank = false
			break
		}
	}
	for p := kallsyms.NextIndex(w, 0); p >= 0; p = kallsyms.NextIndex(w, p+4) {
		offs = append(offs, p)
	}
	return offs, blank
}

var zeros [phys.PageSize]byte
