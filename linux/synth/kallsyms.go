package synth

import (
	"encoding/binary"
	"slices"
	"strings"
)

// Layout is an order and an encoding of the symbol table (scripts/kallsyms.c).
type Layout uint8

// The layouts.
const (
	// Since64 has the addresses behind token_index, relative to relative_base
	// (6.15 … 6.x, and all without absolute per-CPU symbols).
	Since64 Layout = iota
	// Since64Percpu is the same with absolute per-CPU symbols (6.4 … 6.14).
	Since64Percpu
	// Before64 has the addresses before the names (5.4 … 6.1).
	Before64
	// Before64Seqs has, beside that, seqs_of_names before the tokens (6.2, 6.3
	// and stables).
	Before64Seqs
	// Place has addresses relative to their own place, and no relative_base (7.x).
	Place
	layouts
)

// Layouts are all of them.
func Layouts() []Layout {
	var all []Layout
	for l := range layouts {
		all = append(all, l)
	}
	return all
}

func (l Layout) String() string {
	return [...]string{"since 6.4", "since 6.4, absolute per-CPU", "before 6.4", "before 6.4 with seqs", "place-relative"}[l]
}

// percpu reports whether per-CPU symbols are stored as absolute numbers.
func (l Layout) percpu() bool { return l == Since64Percpu || l == Before64 || l == Before64Seqs }

// Symbol is one symbol to encode.
type Symbol struct {
	Name   string
	Type   byte
	Rel    int64 // from _text; or, if Percpu, in a CPU's area
	Percpu bool
}

// tokens is a token table: printable characters stand for themselves, and other
// codes for strings that are common in symbols.
func tokens() (toks [256]string) {
	common := strings.Fields("sys_ __x64_ _init _exit init_ task kernel_ _start __ _t _p re in er at on or en ing _to _from page list lock net_ tcp_ dev_ file inode vm_ mm_")
	for c := range toks {
		toks[c] = string(rune('!' + c%90))
		if c >= '!' && c <= '~' {
			toks[c] = string(rune(c))
		} else if len(common) > 0 {
			toks[c], common = common[0], common[1:]
		}
	}
	return toks
}

// compressor finds tokens by their first byte, longest first.
type compressor [256][]coded

type coded struct {
	token string
	code  byte
}

func newCompressor(toks [256]string) *compressor {
	var c compressor
	for code, tok := range toks {
		f := tok[0]
		at := slices.IndexFunc(c[f], func(o coded) bool { return len(o.token) < len(tok) })
		if at < 0 {
			at = len(c[f])
		}
		c[f] = slices.Insert(c[f], at, coded{tok, byte(code)})
	}
	return &c
}

// compress encodes s as codes.
func (c *compressor) compress(s string) []byte {
	var codes []byte
next:
	for s != "" {
		for _, t := range c[s[0]] {
			if strings.HasPrefix(s, t.token) {
				codes, s = append(codes, t.code), s[len(t.token):]
				continue next
			}
		}
		panic("name cannot be encoded: " + s)
	}
	return codes
}

// Kallsyms encodes a symbol table that will lie rel bytes from _text, which is at
// address text. Symbols must ascend, absolute per-CPU ones first, and rel must be
// a multiple of 8.
func Kallsyms(l Layout, symbols []Symbol, rel int64, text uint64) []byte {
	toks := tokens()
	c := newCompressor(toks)
	le := binary.LittleEndian
	var names, markers, seqs []byte
	for i, s := range symbols {
		if i%256 == 0 {
			markers = le.AppendUint32(markers, uint32(len(names)))
		}
		codes := c.compress(string(s.Type) + s.Name)
		if n := len(codes); n < 0x80 {
			names = append(names, byte(n))
		} else {
			names = append(names, byte(n&0x7f|0x80), byte(n>>7))
		}
		names = append(names, codes...)
		seqs = append(seqs, byte(i>>16), byte(i>>8), byte(i))
	}
	var table, index []byte
	for _, tok := range toks {
		index = le.AppendUint16(index, uint16(len(table)))
		table = append(append(table, tok...), 0)
	}

	var out []byte
	put := func(b []byte) {
		out = append(out, b...)
		for len(out)%8 != 0 {
			out = append(out, 0)
		}
	}
	offsets := func() {
		var b []byte
		for i, s := range symbols {
			v := s.Rel
			switch {
			case l == Place:
				v -= rel + int64(len(out)) + int64(4*i)
			case l.percpu() && !s.Percpu:
				v = -1 - v
			}
			b = le.AppendUint32(b, uint32(int32(v)))
		}
		put(b)
		if l != Place {
			put(le.AppendUint64(nil, text))
		}
	}
	before := l == Before64 || l == Before64Seqs
	if before {
		offsets()
	}
	put(le.AppendUint32(nil, uint32(len(symbols))))
	put(names)
	put(markers)
	if l == Before64Seqs {
		put(seqs)
	}
	put(table)
	put(index)
	if !before {
		offsets()
		put(seqs)
	}
	return out
}
