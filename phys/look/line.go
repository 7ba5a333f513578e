package look

import (
	"encoding/binary"

	"github.com/outsight-vmi/outsight/phys"
)

const (
	lineSize  = 64
	lineBlock = 256 // lines that are made at once

	// lineShare is the share of the limit that lines may take.
	lineShare = 8
	lineCost  = 96 // bytes of one, with what belongs to it
)

// line is a part of a page of which nothing else is wanted: of the page tables of a
// process a look at its arguments needs four words, each in a page of its own, and to keep
// these pages took half of the time of ps.
type line struct {
	next  *line // another of the same page, read earlier
	at    uint8 // in the page, in lines
	since uint32
	b     [lineSize]byte
}

// Word implements [phys.Worder]. It keeps the line around the word.
func (m *Memory) Word(pa phys.Addr) (uint64, error) { return m.word(pa, 0) }

func (m *Memory) word(pa phys.Addr, since uint32) (uint64, error) {
	if p := m.kept(pa, since); p != nil && pa%8 == 0 {
		return binary.LittleEndian.Uint64(p[pa%phys.PageSize:]), nil
	}
	if c := m.find(pa); c != nil {
		if l := c.line(pa, since); l != nil {
			return l.word(pa), nil
		}
	}
	return m.loadLine(pa, since)
}

func (l *line) word(pa phys.Addr) uint64 {
	return binary.LittleEndian.Uint64(l.b[pa%lineSize&^7:])
}

// line is the newest line at pa, if it is not older than since.
func (c *chunk) line(pa phys.Addr, since uint32) *line {
	at := uint8(pa % phys.PageSize / lineSize)
	for l := c.lines[c.slot(pa)].Load(); l != nil; l = l.next {
		if l.at == at {
			if since != 0 && int32(l.since-since) < 0 {
				return nil
			}
			return l
		}
	}
	return nil
}

func (m *Memory) loadLine(pa phys.Addr, since uint32) (uint64, error) {
	if pa%8 != 0 || pa >= m.end || m.closed.Load() {
		return m.direct(pa)
	}
	c := m.chunk(pa)
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := m.kept(pa, since); p != nil { // read by another meanwhile
		return binary.LittleEndian.Uint64(p[pa%phys.PageSize:]), nil
	}
	if l := c.line(pa, since); l != nil {
		return l.word(pa), nil
	}
	l := m.newLine()
	if l == nil {
		return m.direct(pa)
	}
	l.at, l.since = uint8(pa%phys.PageSize/lineSize), m.now.Load()
	if _, err := m.src.ReadAt(l.b[:], pa&^(lineSize-1)); err != nil {
		return m.direct(pa) // memory may end within the line
	}
	m.loads.Add(1)
	head := &c.lines[c.slot(pa)]
	l.next = head.Load()
	head.Store(l)
	return l.word(pa), nil
}

// direct reads a word that is not kept.
func (m *Memory) direct(pa phys.Addr) (uint64, error) {
	var b [8]byte
	if _, err := m.src.ReadAt(b[:], pa); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// newLine returns room for a line; nil if there are as many as may be.
func (m *Memory) newLine() *line {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.free) == 0 {
		if m.lines >= m.slabs.limit/lineShare/lineCost {
			return nil
		}
		m.free = make([]line, lineBlock)
		m.lines += lineBlock
	}
	l := &m.free[0]
	m.free = m.free[1:]
	return l
}

// overlay puts the lines of the page at pa over it, those older than since apart: they
// were shown already.
func (c *chunk) overlay(p *page, pa phys.Addr, since uint32) {
	var done uint64
	for l := c.lines[c.slot(pa)].Load(); l != nil; l = l.next {
		if bit := uint64(1) << l.at; done&bit == 0 {
			done |= bit
			if since == 0 || int32(l.since-since) >= 0 {
				copy(p[int(l.at)*lineSize:], l.b[:])
			}
		}
	}
}
