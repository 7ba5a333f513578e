// Package flattened reads makedumpfile's flattened format, in which a dump can go
// through a pipe: pieces of the real file, each behind its offset and length, in
// the order in which they were made. It puts them in order by an index, without a
// copy.
package flattened

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
)

// Signature is what a flattened file begins with.
const Signature = "makedumpfile\x00\x00\x00\x00"

const (
	headSize  = 4096
	pieceHead = 16
	maxPieces = 1 << 26
)

// Source is the real file. It implements [file.Source].
type Source struct {
	src    file.Source
	pieces []piece // ascending, not overlapping
	size   uint64
	cut    bool
}

// piece is a part of the real file.
type piece struct {
	start, end uint64 // in the real file
	at         uint64 // in the flattened one
}

// CutOff reports whether the flattened file has no end.
func (s *Source) CutOff() bool { return s.cut }

// New indexes src, which the Source takes over. One that was cut off is read as far as it
// goes.
func New(src file.Source) (*Source, error) {
	var head [pieceHead + 16]byte
	if err := file.ReadFull(src, head[:], 0); err != nil {
		return nil, fmt.Errorf("header of the flattened dump: %w", err)
	}
	kind, version := binary.BigEndian.Uint64(head[16:]), binary.BigEndian.Uint64(head[24:])
	if string(head[:16]) != Signature || kind != 1 || version != 1 {
		return nil, fmt.Errorf("a flattened dump of type %d, version %d", kind, version)
	}
	s := &Source{src: src}
	var all []piece
	for at := uint64(headSize); ; {
		var h [pieceHead]byte
		if err := file.ReadFull(src, h[:], at); err != nil {
			if errors.Is(err, phys.ErrGone) && len(all) > 0 {
				s.cut = true
				break
			}
			return nil, fmt.Errorf("the flattened dump has no end: %w", err)
		}
		start, n := binary.BigEndian.Uint64(h[:]), binary.BigEndian.Uint64(h[8:])
		if int64(start) == -1 && int64(n) == -1 {
			break
		}
		at += pieceHead
		if n == 0 || start > math.MaxInt64 || n > math.MaxInt64-start {
			return nil, fmt.Errorf("a piece of %d bytes for offset %#x at offset %#x of the flattened dump: it is damaged", n, start, at)
		}
		if left := src.Size() - at; n > left {
			s.cut = true
			if left > 0 {
				all = append(all, piece{start, start + left, at})
			}
			break
		}
		if len(all) == maxPieces {
			return nil, fmt.Errorf("a flattened dump of more than %d pieces", maxPieces)
		}
		all = append(all, piece{start, start + n, at})
		at += n
	}
	s.pieces = arrange(all)
	if len(s.pieces) == 0 {
		return nil, errors.New("the flattened dump has nothing in it")
	}
	s.size = s.pieces[len(s.pieces)-1].end
	return s, nil
}

// arrange puts pieces in order. Where two overlap, the one further back in the
// flattened file was written later, and counts.
func arrange(all []piece) []piece {
	slices.SortFunc(all, func(a, b piece) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.at, b.at)) })
	plain := true
	for i := 1; i < len(all) && plain; i++ {
		plain = all[i-1].end <= all[i].start
	}
	if plain {
		return all
	}
	var (
		out  []piece
		open latest // that begin at or before pos, the latest first
		pos  uint64
	)
	for next := 0; next < len(all) || len(open) > 0; {
		if len(open) == 0 {
			pos = max(pos, all[next].start)
		}
		for next < len(all) && all[next].start <= pos {
			heap.Push(&open, all[next])
			next++
		}
		top := open[0]
		if top.end <= pos {
			heap.Pop(&open)
			continue
		}
		end := top.end
		if next < len(all) {
			end = min(end, all[next].start)
		}
		p := piece{pos, end, top.at + (pos - top.start)}
		if n := len(out); n > 0 && out[n-1].end == p.start && out[n-1].at+(out[n-1].end-out[n-1].start) == p.at {
			out[n-1].end = p.end
		} else {
			out = append(out, p)
		}
		pos = end
	}
	return out
}

// latest is a heap of pieces, the one furthest back in the file on top.
type latest []piece

func (l latest) Len() int           { return len(l) }
func (l latest) Less(i, j int) bool { return l[i].at > l[j].at }
func (l latest) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }

// Push and Pop implement [heap.Interface].
func (l *latest) Push(x any) { *l = append(*l, x.(piece)) } //nolint:forcetypeassert // only pieces are pushed

// Pop takes the last one off.
func (l *latest) Pop() any {
	old := *l
	p := old[len(old)-1]
	*l = old[:len(old)-1]
	return p
}

// Size implements [file.Source].
func (s *Source) Size() uint64 { return s.size }

// Close closes the flattened file.
func (s *Source) Close() error { return s.src.Close() }

// ReadAt implements [file.Source]. What no piece has reads as zeros.
func (s *Source) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	pos := uint64(off)
	if pos >= s.size {
		return 0, io.EOF
	}
	short := uint64(len(p)) > s.size-pos
	if short {
		p = p[:s.size-pos]
	}
	i := sort.Search(len(s.pieces), func(i int) bool { return s.pieces[i].end > pos })
	for n < len(p) {
		at := pos + uint64(n)
		q := s.pieces[i]
		if at < q.start {
			k := min(uint64(len(p)-n), q.start-at)
			clear(p[n : n+int(k)])
			n += int(k)
			continue
		}
		dst := p[n : n+int(min(uint64(len(p)-n), q.end-at))]
		if err := file.ReadFull(s.src, dst, q.at+(at-q.start)); err != nil {
			return n, err
		}
		n += len(dst)
		i++
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}
