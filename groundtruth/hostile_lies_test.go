package groundtruth

import (
	"context"
	"encoding/binary"
	"math/rand/v2"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/vm"
)

// notes are the words that a view read of a healthy guest: what it can be lied to
// about.
type notes struct {
	direct   uint64 // where the direct map begins
	seen     map[phys.Addr]bool
	small    []phys.Addr // by reads of single members
	bulk     []phys.Addr // by reads of whole structures and pages
	pointers []uint64    // kernel addresses that were read
}

// maxNotes bounds each kind: a view that reads megabytes of text is not lied to
// about each letter.
const maxNotes = 1 << 16

func (n *notes) note(i *hostileImage, p []byte, pa phys.Addr) {
	into := &n.small
	if len(p) > 64 {
		into = &n.bulk
	}
	for at := pa &^ 7; at < pa+phys.Addr(len(p)); at += 8 {
		if len(*into) >= maxNotes {
			return
		}
		if n.seen[at] || i.text.Contains(at, 8) || i.at(at, 8) < 0 {
			continue
		}
		n.seen[at] = true
		*into = append(*into, at)
		if at < pa || at+8 > pa+phys.Addr(len(p)) {
			continue
		}
		if v := binary.LittleEndian.Uint64(p[at-pa:]); v>>47 == 1<<17-1 && len(n.pointers) < maxNotes {
			n.pointers = append(n.pointers, v)
		}
	}
}

// pick chooses a word: heads of lists and counts are read early, so half of the
// choices fall on what was read first.
func (n *notes) pick(r *rand.Rand) phys.Addr {
	words := n.small
	if len(words) == 0 || len(n.bulk) > 0 && r.IntN(4) == 0 {
		words = n.bulk
	}
	end := len(words)
	if r.IntN(2) == 0 {
		end = min(end, 256)
	}
	return words[r.IntN(end)]
}

// lies makes one to eight of them.
func (n *notes) lies(i *hostileImage, r *rand.Rand) (lies []lie) {
	if len(n.small)+len(n.bulk) == 0 {
		return nil
	}
	for range 1 + r.IntN(8) {
		at := n.pick(r)
		lies = append(lies, lie{at, n.nasty(i, r, at)})
	}
	return lies
}

// nasty is a value that a hostile guest would put into the word at.
func (n *notes) nasty(i *hostileImage, r *rand.Rand, at phys.Addr) uint64 {
	address := func(pa phys.Addr) uint64 { return n.direct + uint64(pa) }
	switch r.IntN(16) {
	case 0:
		return r.Uint64()
	case 1: // another object, or the same one again
		return i.word(n.pick(r))
	case 2: // itself
		return address(at)
	case 3:
		return 0
	case 4:
		return r.Uint64N(1 << 12)
	case 5:
		return ^uint64(0)
	case 6: // not canonical
		return 0x8000_0000_0000_0000 | r.Uint64()>>8
	case 7: // the place of another word: a cycle
		return address(n.pick(r))
	case 8, 9:
		if len(n.pointers) > 0 {
			return n.pointers[r.IntN(len(n.pointers))]
		}
		return address(n.pick(r))
	case 10: // a length, as one word and as two halves
		return 1 << r.IntN(64)
	case 11:
		return r.Uint64N(1<<32) * (1<<32 + 1)
	case 12: // of a user's
		return 0x0000_7fff_0000_0000 | r.Uint64N(1<<32)
	case 13: // the last bytes of a page or of all there is
		return address(at|0xfff) - r.Uint64N(8)
	case 14: // a bit
		return i.word(at) ^ 1<<r.IntN(64)
	default: // a byte
		return i.word(at) ^ uint64(1+r.IntN(255))<<(8*r.IntN(8))
	}
}

// hostileRegisters are registers as the guest has set them: those of a still guest, of
// which some are lies.
type hostileRegisters []vm.Registers

// Registers implements [vm.RegisterReader].
func (h hostileRegisters) Registers(context.Context) ([]vm.Registers, error) { return h, nil }

// registers are true in half of the cases.
func (n *notes) registers(i *hostileImage, r *rand.Rand, truth []vm.Registers) hostileRegisters {
	all := append(hostileRegisters(nil), truth...)
	if len(all) == 0 || len(n.small)+len(n.bulk) == 0 || r.IntN(2) == 0 {
		return all
	}
	for range 1 + r.IntN(3) {
		c := &all[r.IntN(len(all))]
		word := []*uint64{&c.RIP, &c.RSP, &c.General[7], &c.CR3, &c.GSBase, &c.KernelGSBase, &c.GDT, &c.IDT, &c.TR, &c.RFLAGS}
		*word[r.IntN(len(word))] = n.nasty(i, r, n.pick(r))
	}
	return all
}
