package qemustate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
)

// Kinds of what a stream has one after the other (migration/savevm.h). Numbers in
// it are big-endian.
const (
	version = 3

	sectionEnd    = 0x03
	sectionStart  = 0x01
	sectionPart   = 0x02
	sectionFull   = 0x04
	subsection    = 0x05
	configuration = 0x07
	command       = 0x08
	footer        = 0x7e
)

// Flags in the low bits of a page's address (migration/ram.c).
const (
	flagZero     = 0x02
	flagSizes    = 0x04
	flagPage     = 0x08
	flagEnd      = 0x10
	flagContinue = 0x20
	flagXBZRLE   = 0x40
	flagHook     = 0x80
	flagCompress = 0x100
	flagFlush    = 0x200
	flagMask     = phys.PageSize - 1
)

const (
	maxBlocks = 4096
	maxSize   = 16 << 40  // of all blocks, in bytes
	leafSize  = 512 << 12 // of what a leaf of the index covers, in bytes
)

// stream is the index of a saved stream.
type stream struct {
	src     file.Source
	at      uint64
	machine string
	mapped  bool // pages have their fixed places in the file
	ramID   uint32
	hasRAM  bool
	blocks  []*block
	last    *block // that a page belongs to which names none
	sizes   uint64
	cut     bool // the stream ends before its memory does
}

// block is a block of RAM, with the offset in the file of each of its pages; 0: it
// is zeros.
type block struct {
	name   string
	size   uint64
	leaves []*[leafSize / phys.PageSize]uint64
	seen   []*[seenPages / 64]uint64 // a bit for each page that the stream has; nil: none
}

// seenPages is how many pages a part of block.seen covers. Sizes are the file's claims: what
// it has nothing of takes a pointer.
const seenPages = 4096

func (b *block) see(page uint64) {
	s := &b.seen[page/seenPages]
	if *s == nil {
		*s = new([seenPages / 64]uint64)
	}
	(*s)[page%seenPages/64] |= 1 << (page % 64)
}

// has reports whether the stream has the page: of one that was cut off it may not.
func (b *block) has(page uint64) bool {
	s := b.seen[page/seenPages]
	return s != nil && s[page%seenPages/64]>>(page%64)&1 != 0
}

// missing is how many pages the stream does not have.
func (b *block) missing() (n uint64) {
	n = b.size / phys.PageSize
	for _, s := range b.seen {
		if s == nil {
			continue
		}
		for _, w := range s {
			n -= uint64(bits.OnesCount64(w))
		}
	}
	return n
}

func (b *block) offset(page uint64) uint64 {
	const n = leafSize / phys.PageSize
	if l := b.leaves[page/n]; l != nil {
		return l[page%n]
	}
	return 0
}

func (b *block) set(page, off uint64) {
	const n = leafSize / phys.PageSize
	l := &b.leaves[page/n]
	if *l == nil {
		if off == 0 {
			return
		}
		*l = new([n]uint64)
	}
	(*l)[page%n] = off
}

// bytes reads the next n bytes, at most 255.
func (s *stream) bytes(n int) ([]byte, error) {
	b := make([]byte, n)
	if err := file.ReadFull(s.src, b, s.at); err != nil {
		return nil, err
	}
	s.at += uint64(n)
	return b, nil
}

func (s *stream) number(size int) (uint64, error) {
	var b [8]byte
	if err := file.ReadFull(s.src, b[8-size:], s.at); err != nil {
		return 0, err
	}
	s.at += uint64(size)
	return binary.BigEndian.Uint64(b[:]), nil
}

// text reads a name behind its length in one byte.
func (s *stream) text() (string, error) {
	n, err := s.number(1)
	if err != nil {
		return "", err
	}
	b, err := s.bytes(int(n))
	return string(b), err
}

var errNoEnd = errors.New("its memory has no end: it was cut off, or saving it failed")

// read indexes the stream up to the end of its memory.
func (s *stream) read() error {
	head, err := s.bytes(8)
	if err != nil {
		return err
	}
	if v := binary.BigEndian.Uint32(head[4:]); string(head[:4]) != Magic || v != version {
		return fmt.Errorf("version %d of the stream, which is not %d", v, version)
	}
	for {
		kind, err := s.number(1)
		if errors.Is(err, phys.ErrGone) {
			return s.ends(errNoEnd)
		}
		if err != nil {
			return err
		}
		switch kind {
		case configuration:
			err = s.configuration()
		case command:
			var n uint64
			if n, err = s.number(4); err == nil { // the command, and the length of what follows
				s.at += n & 0xffff
			}
		case sectionStart, sectionPart, sectionEnd, sectionFull:
			err = s.section(kind)
			if kind == sectionEnd && err == nil {
				return nil
			}
		default:
			err = fmt.Errorf("a section of kind %#x before the end of memory", kind)
		}
		if errors.Is(err, phys.ErrGone) {
			return s.ends(err)
		}
		if err != nil {
			return err
		}
	}
}

// ends makes the best of a stream that was cut off: memory that it has is read.
func (s *stream) ends(err error) error {
	if len(s.blocks) == 0 {
		return err
	}
	s.cut = true
	return nil
}

// configuration reads the machine type and the capabilities.
func (s *stream) configuration() error {
	n, err := s.number(4)
	if err != nil {
		return err
	}
	if n > 255 {
		return fmt.Errorf("a machine type of %d bytes", n)
	}
	name, err := s.bytes(int(n))
	if err != nil {
		return err
	}
	s.machine = string(name)
	for {
		kind, err := s.number(1)
		if err != nil {
			return err
		}
		if kind != subsection {
			s.at--
			return nil
		}
		name, err := s.text()
		if err != nil {
			return err
		}
		if _, err := s.number(4); err != nil { // its version
			return err
		}
		switch name {
		case "configuration/target-page-bits":
			s.at += 4
		case "configuration/uuid":
			s.at += 16
		case "configuration/capabilities":
			if err := s.capabilities(); err != nil {
				return err
			}
		default:
			return fmt.Errorf("subsection %q, which is not known", name)
		}
	}
}

func (s *stream) capabilities() error {
	count, err := s.number(4)
	if err != nil {
		return err
	}
	for range min(count, 256) {
		name, err := s.text()
		if err != nil {
			return err
		}
		switch name {
		case "mapped-ram":
			s.mapped = true
		case "x-ignore-shared":
			return errors.New("the machine's memory is not in it: it was saved with x-ignore-shared")
		}
	}
	return nil
}

// section reads a section of memory. Others cannot be passed over, for only the
// device that wrote one knows its length.
func (s *stream) section(kind uint64) error {
	id, err := s.number(4)
	if err != nil {
		return err
	}
	name := "ram"
	if kind == sectionStart || kind == sectionFull {
		if name, err = s.text(); err != nil {
			return err
		}
		s.at += 8 // instance and version
	}
	switch {
	case kind == sectionStart && name == "ram" && !s.hasRAM:
		s.ramID, s.hasRAM = uint32(id), true
	case kind == sectionStart || kind == sectionFull || !s.hasRAM || uint32(id) != s.ramID:
		return fmt.Errorf("a section of %q (number %d) before the end of memory", name, id)
	}
	if err := s.pages(); err != nil {
		return err
	}
	end, err := s.number(1)
	if errors.Is(err, phys.ErrGone) || err == nil && end != footer {
		if err == nil {
			s.at--
		}
		return nil // machines before 2.4 wrote no footer
	}
	if err != nil {
		return err
	}
	if foot, err := s.number(4); err != nil || foot != id {
		return fmt.Errorf("section %d ends as %d: %w", id, foot, errors.Join(err, errNoEnd))
	}
	return nil
}

// pages reads what a section of memory has: pages, and the list of blocks.
func (s *stream) pages() error {
	for {
		v, err := s.number(8)
		if err != nil {
			return err
		}
		addr, flags := v&^uint64(flagMask), v&flagMask
		switch {
		case flags&flagSizes != 0:
			err = s.blockList(addr)
		case flags&flagEnd != 0:
			return nil
		case flags&(flagZero|flagPage) != 0:
			err = s.page(addr, flags)
		case flags&flagCompress != 0:
			return errors.New("its pages are compressed one by one (the compress capability), which is not supported")
		case flags&flagXBZRLE != 0:
			return errors.New("it has pages as differences (xbzrle), which a saved file should not have")
		case flags == flagFlush:
		case flags&flagHook != 0:
			return errors.New("it was made for RDMA")
		default:
			return fmt.Errorf("a page with flags %#x", flags)
		}
		if err != nil {
			return err
		}
	}
}

func (s *stream) page(addr, flags uint64) error {
	if flags&flagContinue == 0 {
		name, err := s.text()
		if err != nil {
			return err
		}
		s.last = nil
		for _, b := range s.blocks {
			if b.name == name {
				s.last = b
			}
		}
	}
	b := s.last
	if b == nil || addr >= b.size {
		return fmt.Errorf("a page at %#x of a block that is not there or not so large", addr)
	}
	if flags&flagZero != 0 {
		fill, err := s.number(1)
		if err == nil && fill != 0 {
			err = fmt.Errorf("a page filled with %#x, which is not supported", fill)
		}
		if err == nil {
			b.set(addr/phys.PageSize, 0)
			b.see(addr / phys.PageSize)
		}
		return err
	}
	if s.at+phys.PageSize > s.src.Size() {
		return fmt.Errorf("%w: %w", errNoEnd, phys.ErrGone)
	}
	b.set(addr/phys.PageSize, s.at)
	b.see(addr / phys.PageSize)
	s.at += phys.PageSize
	return nil
}

// blockList reads the names and sizes of the blocks, total bytes together.
func (s *stream) blockList(total uint64) error {
	for total > 0 {
		name, err := s.text()
		if err != nil {
			return err
		}
		size, err := s.number(8)
		if err != nil {
			return err
		}
		if size == 0 || size > total || size%phys.PageSize != 0 || len(s.blocks) == maxBlocks || s.sizes+size > maxSize {
			return fmt.Errorf("block %q of %d bytes", name, size)
		}
		total -= size
		s.sizes += size
		b := &block{
			name: name, size: size, leaves: make([]*[leafSize / phys.PageSize]uint64, (size+leafSize-1)/leafSize),
			seen: make([]*[seenPages / 64]uint64, (size/phys.PageSize+seenPages-1)/seenPages),
		}
		s.blocks = append(s.blocks, b)
		if s.mapped {
			if err := s.mappedBlock(b); err != nil {
				return fmt.Errorf("block %q: %w", name, err)
			}
		}
	}
	return nil
}

// mappedBlock indexes a block whose pages have fixed places in the file, of which a
// bitmap says whether they were written (docs/devel/migration/mapped-ram.rst).
func (s *stream) mappedBlock(b *block) error {
	const headSize = 4 + 3*8
	h, err := s.bytes(headSize)
	if err != nil {
		return err
	}
	pageSize, bitmap, pages := binary.BigEndian.Uint64(h[4:]), binary.BigEndian.Uint64(h[12:]), binary.BigEndian.Uint64(h[20:])
	if v := binary.BigEndian.Uint32(h); v != 1 || pageSize != phys.PageSize {
		return fmt.Errorf("version %d of mapped-ram with pages of %d bytes", v, pageSize)
	}
	end := s.src.Size()
	if bitmap > end || pages > end {
		return fmt.Errorf("%w: %w", errNoEnd, phys.ErrGone)
	}
	count := b.size / phys.PageSize
	const step = 512 // bytes of the bitmap, read at a time
	var bitsOf [step]byte
	for done := uint64(0); done < count; done += step * 8 {
		n := min(step, (count-done+7)/8)
		if err := file.ReadFull(s.src, bitsOf[:n], bitmap+done/8); err != nil {
			return err
		}
		for i := range min(step*8, count-done) {
			written := bitsOf[i/8]>>(i%8)&1 != 0
			at := pages + (done+i)*phys.PageSize
			if written && at+phys.PageSize > end {
				s.cut = true
				continue
			}
			if written {
				b.set(done+i, at)
			}
			b.see(done + i)
		}
	}
	s.at = pages + b.size
	return nil
}
