package peek

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// FoundString is a printable string in memory.
type FoundString struct {
	Addr uint64 // of its first byte: virtual of a process, else guest-physical
	Text string // as ASCII, whatever its encoding
	Wide bool   // UTF-16LE; else ASCII
}

const (
	stringWindow = 64 << 10 // bytes read at once
	// maxFound is where a longer string is cut into several.
	maxFound = 4 << 10
)

// StringsOf yields the printable strings of at least least bytes (characters, of
// wide ones) in what is mapped and present of the process that t leads, by
// address. Its pages are found by its page tables, so that nothing that it maps is
// left out; what is swapped out is.
func StringsOf(ctx context.Context, s *linux.System, t linux.Task, least int) iter.Seq2[FoundString, error] {
	return func(yield func(FoundString, error) bool) {
		mm, err := t.MM()
		if err != nil {
			err = fmt.Errorf("memory of task %#x: %w", uint64(t.Addr), err)
		}
		if mm == 0 && err == nil {
			return // it has none
		}
		var space *virt.Space
		if err == nil {
			space, err = s.UserSpace(mm)
		}
		if err != nil {
			yield(FoundString{}, err)
			return
		}
		scan := &stringScan{least: max(least, 1), yield: yield}
		for m := range space.Mappings(0, space.UserEnd()) {
			if !scan.region(ctx, uint64(m.VA), m.Size, func(p []byte, a uint64) (int, error) { return s.Memory.ReadAt(p, m.PA+phys.Addr(a-uint64(m.VA))) }) {
				return
			}
		}
		scan.flush()
	}
}

// Strings yields the printable strings in all of the guest's memory, by
// guest-physical address. A string in two pages that lie apart there comes in two.
// The firmware's ROM, which some dumps have, is not looked at: it says nothing of the
// guest, and the same guest has the same strings from wherever it is read.
func Strings(ctx context.Context, s *linux.System, least int) iter.Seq2[FoundString, error] {
	return func(yield func(FoundString, error) bool) {
		scan := &stringScan{least: max(least, 1), yield: yield}
		for _, r := range s.Memory.Ranges() {
			if phys.Firmware.Contains(r.Start, r.Size()) {
				continue
			}
			if !scan.region(ctx, uint64(r.Start), r.Size(), func(p []byte, a uint64) (int, error) { return s.Memory.ReadAt(p, phys.Addr(a)) }) {
				return
			}
		}
		scan.flush()
	}
}

// stringScan finds strings in pieces of memory that come by ascending address. It
// allocates once a window, not for each string: strings are parts of the window.
type stringScan struct {
	least int
	yield func(FoundString, error) bool
	buf   []byte
	held  int    // bytes at the start of buf that were not decided on
	at    uint64 // address of buf[0]
}

// region adds size bytes from address a; it returns false to end the scan.
func (c *stringScan) region(ctx context.Context, a, size uint64, read func([]byte, uint64) (int, error)) bool {
	if c.buf == nil {
		c.buf = make([]byte, 2*maxFound+stringWindow)
	}
	if c.held > 0 && a != c.at+uint64(c.held) && !c.flush() {
		return false
	}
	for off := uint64(0); off < size; {
		if err := ctx.Err(); err != nil {
			c.yield(FoundString{}, err)
			return false
		}
		n := int(min(stringWindow, size-off))
		got, err := read(c.buf[c.held:c.held+n], a+off)
		if c.held == 0 {
			c.at = a + off
		}
		if err != nil {
			// Holes are nothing new; what went away is.
			if errors.Is(err, phys.ErrGone) {
				c.yield(FoundString{}, err)
				return false
			}
			c.held += got
			if !c.flush() {
				return false
			}
			off = (off + uint64(got) + phys.PageSize) &^ (phys.PageSize - 1)
			continue
		}
		c.held += n
		off += uint64(n)
		if !c.window(false) {
			return false
		}
	}
	return true
}

// flush decides on all that is held.
func (c *stringScan) flush() bool { return c.held == 0 || c.window(true) }

// window yields the strings in what is held. One that reaches the end of it waits
// for what follows, unless it is the last.
func (c *stringScan) window(last bool) bool {
	text := string(c.buf[:c.held])
	i := 0
	for i < len(text) {
		if !printable(text[i]) {
			i++
			continue
		}
		end, wide := i+1, false
		if i+1 < len(text) && text[i+1] == 0 && i+3 < len(text) && printable(text[i+2]) && text[i+3] == 0 {
			wide = true
			for end = i; end+1 < len(text) && printable(text[end]) && text[end+1] == 0 && end-i < 2*maxFound; end += 2 {
			}
		} else {
			for end < len(text) && printable(text[end]) && end-i < maxFound {
				end++
			}
		}
		if !last && len(text)-end < 4 && end-i < maxFound {
			break
		}
		chars := end - i
		if wide {
			chars /= 2
		}
		if chars >= c.least {
			found := FoundString{Addr: c.at + uint64(i), Text: text[i:end], Wide: wide}
			if wide {
				found.Text = narrow(found.Text)
			}
			if !c.yield(found, nil) {
				return false
			}
		}
		i = end
	}
	if last {
		i = len(text)
	}
	copy(c.buf, c.buf[i:c.held])
	c.held -= i
	c.at += uint64(i)
	return true
}

func printable(b byte) bool { return b >= ' ' && b <= '~' || b == '\t' }

// narrow is every second byte: what UTF-16LE makes of ASCII, undone.
func narrow(wide string) string {
	b := make([]byte, len(wide)/2)
	for i := range b {
		b[i] = wide[2*i]
	}
	return string(b)
}
