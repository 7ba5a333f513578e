package kernel

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/kernel/kallsyms"
	"github.com/outsight-vmi/outsight/phys"
)

// The tables of a kernel that are sealed.
const (
	symbolTable = iota
	typeTable
	sealedTables
)

// sealChunks is how many bytes of a table one tag authenticates. The symbol table is read in
// pages, of which each must be checked alone; the types are read at once.
var sealChunks = [sealedTables]int{kallsyms.Page, 64 << 10}

// seal authenticates the tables of one kernel build, chunk by chunk, so that what is read
// of them later can be compared with what was parsed once.
type seal struct {
	aead  cipher.AEAD
	nonce []byte
	tags  [sealedTables][]byte
	base  int // where in the symbol table relative_base is, which KASLR changes; negative if nowhere
}

// errChanged says that tables were changed after they had been checked.
var errChanged = errors.New("the kernel's tables changed while they were read")

// tag appends the tags of b, which begins at off in a table.
func (s *seal) tag(tags, b []byte, table, off int) []byte {
	nonce := slices.Clone(s.nonce)
	nonce[0] ^= byte(table) // never the same nonce for two messages
	counter := nonce[len(nonce)-4:]
	chunk := sealChunks[table]
	for ; len(b) > 0; off += chunk {
		piece := b[:min(len(b), chunk)]
		b = b[len(piece):]
		if table == symbolTable && s.base >= 0 && s.base < off+len(piece) && s.base+8 > off {
			piece = bytes.Clone(piece)
			clear(piece[max(s.base-off, 0):min(s.base+8-off, len(piece))])
		}
		binary.LittleEndian.PutUint32(counter, binary.LittleEndian.Uint32(s.nonce[len(s.nonce)-4:])^uint32(off/chunk))
		tags = s.aead.Seal(tags, nonce, nil, piece)
	}
	return tags
}

// holds reports whether b is what was sealed from off on, which is a multiple of the chunk.
func (s *seal) holds(b []byte, table, off int) bool {
	first := off / sealChunks[table] * s.aead.Overhead()
	tags := s.tag(make([]byte, 0, 64), b, table, off)
	return first+len(tags) <= len(s.tags[table]) && bytes.Equal(tags, s.tags[table][first:first+len(tags)])
}

// sealWindow is how much is read and checked at a time, in bytes: little enough to stay in
// the processor's cache.
const sealWindow = 64 << 10

// holdsAt checks the tables where the image has them in memory.
func (s *seal) holdsAt(im *image) error {
	var errs [sealedTables]error
	var wg sync.WaitGroup
	for table, r := range [sealedTables]region{im.symbols, im.types} {
		wg.Go(func() { errs[table] = s.holdsRegion(im, table, r) })
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

func (s *seal) holdsRegion(im *image, table int, r region) error {
	chunks := int((r.Len + uint64(sealChunks[table]) - 1) / uint64(sealChunks[table]))
	if r.Len > btf.MaxSize || len(s.tags[table]) != chunks*s.aead.Overhead() {
		return fmt.Errorf("region of %d bytes at _text%+#x is not what was sealed", r.Len, r.Rel)
	}
	buf := make([]byte, min(r.Len, sealWindow))
	for off := uint64(0); off < r.Len; off += sealWindow {
		b := buf[:min(r.Len-off, sealWindow)]
		if _, err := im.mem.ReadAt(b, im.text+phys.Addr(r.Rel)+phys.Addr(off)); err != nil {
			return err
		}
		if !s.holds(b, table, int(off)) {
			return errChanged
		}
	}
	return nil
}

// readSealed fills p with what is at off in the symbol table, if that is still what was
// checked.
func (s *seal) readSealed(im *image, p []byte, off int) error {
	if _, err := im.mem.ReadAt(p, im.text+phys.Addr(im.symbols.Rel)+phys.Addr(off)); err != nil {
		return err
	}
	if !s.holds(p, symbolTable, off) {
		return fmt.Errorf("symbol table at _text%+#x: %w", im.symbols.Rel+int64(off), errChanged)
	}
	return nil
}
