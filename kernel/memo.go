package kernel

import (
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"

	"github.com/outsight-vmi/outsight/kernel/btf"
)

// memo caches every answer given so far; nil pointers are cached absences.
type memo struct {
	Symbols map[string]*Symbol
	Fields  map[string]*Field
	Sizes   map[string]*uint32
	Enums   map[string]*int64
	Members map[string]*[]Member
	Chosen  map[string]*[]Extent
}

func newMemo() memo {
	return memo{
		Symbols: map[string]*Symbol{}, Fields: map[string]*Field{},
		Sizes: map[string]*uint32{}, Enums: map[string]*int64{},
		Members: map[string]*[]Member{}, Chosen: map[string]*[]Extent{},
	}
}

// The memo of a kernel that was looked at in every way has some thousand answers, and
// every later run begins by reading them: in JSON that took longer than to list the
// processes. So each map is written as its length, then, for each answer, its key, whether
// there is one, and its numbers, all of variable length.

// appendTo writes the memo to b.
func (m memo) appendTo(b []byte) []byte {
	b = appendAnswers(b, m.Symbols, appendSymbol)
	b = appendAnswers(b, m.Fields, func(b []byte, f *Field) []byte {
		b = binary.AppendUvarint(append(b, f.BitOff, f.BitSize), uint64(f.Offset))
		b = binary.AppendUvarint(b, uint64(f.Size))
		return binary.AppendUvarint(b, uint64(f.Type))
	})
	b = appendAnswers(b, m.Sizes, func(b []byte, n *uint32) []byte { return binary.AppendUvarint(b, uint64(*n)) })
	b = appendAnswers(b, m.Enums, func(b []byte, n *int64) []byte { return binary.AppendVarint(b, *n) })
	b = appendAnswers(b, m.Members, appendList(func(b []byte, v *Member) []byte {
		return binary.AppendUvarint(binary.AppendUvarint(appendText(b, v.Name), uint64(v.Offset)), uint64(v.Size))
	}))
	return appendAnswers(b, m.Chosen, appendList(func(b []byte, e *Extent) []byte {
		return binary.AppendUvarint(appendSymbol(appendText(b, e.Name), &e.Symbol), e.Size)
	}))
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendSymbol(b []byte, s *Symbol) []byte {
	percpu := byte(0)
	if s.Percpu {
		percpu = 1
	}
	return binary.AppendVarint(append(b, s.Type, percpu), s.Rel)
}

func appendList[T any](value func([]byte, *T) []byte) func([]byte, *[]T) []byte {
	return func(b []byte, list *[]T) []byte {
		b = binary.AppendUvarint(b, uint64(len(*list)))
		for i := range *list {
			b = value(b, &(*list)[i])
		}
		return b
	}
}

func appendAnswers[T any](b []byte, m map[string]*T, value func([]byte, *T) []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(m)))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		b = appendText(b, key)
		if v := m[key]; v == nil {
			b = append(b, 0)
		} else {
			b = value(append(b, 1), v)
		}
	}
	return b
}

// parseMemo reads what appendTo wrote.
func parseMemo(b []byte) (memo, error) {
	r := memoReader{all: string(b), rest: b}
	m := memo{
		Symbols: readAnswers(&r, func(key string, s *Symbol) { *s = r.symbol(key) }),
		Fields: readAnswers(&r, func(_ string, f *Field) {
			*f = Field{BitOff: r.byte(), BitSize: r.byte(), Offset: r.word(), Size: r.word(), Type: btf.TypeID(r.word())}
		}),
		Sizes: readAnswers(&r, func(_ string, n *uint32) { *n = r.word() }),
		Enums: readAnswers(&r, func(_ string, n *int64) { *n = r.signed() }),
		Members: readAnswers(&r, readList(&r, func() Member {
			return Member{Name: r.text(), Offset: r.word(), Size: r.word()}
		})),
		Chosen: readAnswers(&r, readList(&r, func() Extent {
			return Extent{Symbol: r.symbol(r.text()), Size: r.number()}
		})),
	}
	if r.damaged || len(r.rest) > 0 {
		return memo{}, errors.New("its answers are damaged")
	}
	return m, nil
}

// memoReader reads numbers and names, and zeros after the first error. Keys are pieces
// of one string, so that they cost no allocation each.
type memoReader struct {
	all     string
	rest    []byte // of the same bytes
	damaged bool
}

// fail ends the reading.
func (r *memoReader) fail() { r.rest, r.damaged = nil, true }

func (r *memoReader) take(n uint64) string {
	if n > uint64(len(r.rest)) {
		r.fail()
		return ""
	}
	at := len(r.all) - len(r.rest)
	r.rest = r.rest[n:]
	return r.all[at : at+int(n)]
}

func (r *memoReader) byte() byte {
	if s := r.take(1); s != "" {
		return s[0]
	}
	return 0
}

func (r *memoReader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *memoReader) word() uint32 {
	n := r.number()
	if n > math.MaxUint32 {
		r.damaged = true
	}
	return uint32(n)
}

func (r *memoReader) signed() int64 {
	n, size := binary.Varint(r.rest)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *memoReader) text() string { return r.take(r.number()) }

func (r *memoReader) symbol(name string) Symbol {
	return Symbol{Name: name, Type: r.byte(), Percpu: r.byte() != 0, Rel: r.signed()}
}

func readList[T any](r *memoReader, value func() T) func(string, *[]T) {
	return func(_ string, list *[]T) {
		n := r.number()
		if n > uint64(len(r.rest)) { // each takes a byte at least
			r.fail()
			return
		}
		*list = make([]T, n)
		for i := range *list {
			(*list)[i] = value()
		}
	}
}

func readAnswers[T any](r *memoReader, value func(key string, v *T)) map[string]*T {
	n := r.number()
	if n > uint64(len(r.rest)/2) { // an answer takes two bytes at least
		r.fail()
		return nil
	}
	m, values := make(map[string]*T, n), make([]T, n)
	for i := range values {
		key := r.text()
		switch r.byte() {
		case 0:
			m[key] = nil
		case 1:
			value(key, &values[i])
			m[key] = &values[i]
		default:
			r.damaged = true
		}
	}
	return m
}
