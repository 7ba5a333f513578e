package addrspace

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/outsight-vmi/outsight/phys"
)

var le = binary.LittleEndian

const (
	entryPresent = 1
	// likeRoots is how many entries of the kernel's half two roots share at least, of those that both have. A few
	// differ: a mapping of the process's own (LDT), or one that a root does not have yet.
	likeRoots = 2
	mayDiffer = 2
)

// topOf reads the last entry of a root's user half. known is what it was: then one read says that nothing changed.
func topOf(m phys.Memory, root uint64, known entry) (entry, error) {
	if !known.empty() {
		var b [8]byte
		if _, err := m.ReadAt(b[:], phys.Addr(root+uint64(known.n-1)*8)); err != nil {
			return entry{}, err
		}
		if le.Uint64(b[:])&frameMask == known.frame {
			return known, nil
		}
	}
	var half [userHalf * 8]byte
	if _, err := m.ReadAt(half[:], phys.Addr(root)); err != nil {
		return entry{}, err
	}
	return lastOf(half[:]), nil
}

func lastOf(half []byte) entry {
	for n := userHalf; n > 0; n-- {
		if v := le.Uint64(half[(n-1)*8:]); v != 0 {
			return entry{n, v & frameMask}
		}
	}
	return entry{}
}

// Existing finds the address spaces that there are, by the root that a processor has loaded: all roots of a system map its
// kernel alike, so that their upper halves are the same. CR3 is what the processors have.
func (t *Tracker) Existing(ctx context.Context, m phys.Memory, cr3 []uint64, now time.Time) error {
	var models [][]byte
	for _, value := range cr3 {
		root := value & rootMask
		page := make([]byte, pageSize)
		if _, err := m.ReadAt(page, phys.Addr(root)); err != nil {
			continue
		}
		// Two roots of a space lie side by side on Linux. That of user code maps next to nothing of the kernel.
		other := make([]byte, pageSize)
		if _, err := m.ReadAt(other, phys.Addr(root^pageSize)); err == nil && !lastOf(page).empty() && lastOf(page) == lastOf(other) &&
			used(other[pageSize/2:]) > used(page[pageSize/2:]) {
			page = other
		}
		models = addModel(models, page[pageSize/2:])
	}
	if len(models) == 0 {
		return nil
	}
	const chunk = 256 * pageSize
	buffer := make([]byte, chunk)
	populated, _ := phys.As[phys.Populated](m)
	for _, r := range m.Ranges() {
		for at := r.Start; at < r.End; {
			if err := ctx.Err(); err != nil {
				return err
			}
			if populated != nil {
				next, ok := populated.NextPopulated(at)
				if !ok || next.Start >= r.End {
					break
				}
				at = max(at, next.Start&^(pageSize-1))
			}
			b := buffer[:min(chunk, uint64(r.End-at))]
			if n, err := m.ReadAt(b, at); err != nil {
				b = b[:n&^(pageSize-1)]
				if len(b) == 0 {
					at += chunk
					continue
				}
			}
			t.scan(b, uint64(at), models, now)
			at += phys.Addr(len(b))
		}
	}
	return nil
}

// used counts the entries of a table that are present.
func used(table []byte) (n int) {
	for i := 0; i < len(table); i += 8 {
		if le.Uint64(table[i:])&entryPresent != 0 {
			n++
		}
	}
	return n
}

func addModel(models [][]byte, half []byte) [][]byte {
	for _, m := range models {
		if sameKernel(m, half) {
			return models
		}
	}
	return append(models, half)
}

func (t *Tracker) scan(b []byte, at uint64, models [][]byte, now time.Time) {
	for off := 0; off+pageSize <= len(b); off += pageSize {
		page := b[off : off+pageSize]
		for _, m := range models {
			// The last entry first: it tells nearly all pages apart.
			if le.Uint64(m[pageSize/2-8:])&frameMask != le.Uint64(page[pageSize-8:])&frameMask || !sameKernel(m, page[pageSize/2:]) {
				continue
			}
			if top := lastOf(page[:pageSize/2]); !top.empty() {
				t.exists(at+uint64(off), top, now)
			}
			break
		}
	}
}

// sameKernel says whether two upper halves map the same kernel.
func sameKernel(a, b []byte) bool {
	same, differ := 0, 0
	for i := 0; i < len(a); i += 8 {
		x, y := le.Uint64(a[i:]), le.Uint64(b[i:])
		switch {
		case x&entryPresent == 0 && y&entryPresent == 0:
			if x != y {
				return false // no page table of this kernel has that
			}
		case x&frameMask == y&frameMask && x&y&entryPresent != 0:
			same++
		default:
			differ++
		}
	}
	return same >= likeRoots && differ <= mayDiffer
}
