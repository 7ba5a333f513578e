package planted

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/trace/plugin"
)

// fakeRing is a ring in memory of the test's, with the producer's half of the protocol.
type fakeRing struct {
	shape shape
	b     [][]byte
	reads int
	// before runs in front of each read.
	before func()
}

func newFakeRing(elements int, area uint32) *fakeRing {
	f := &fakeRing{shape: shape{elements, area}}
	for range elements {
		f.b = append(f.b, make([]byte, elementSize(area)))
	}
	return f
}

func (f *fakeRing) read(b []byte, element int, off uint32) error {
	if element >= len(f.b) || int(off)+len(b) > len(f.b[element]) {
		return fmt.Errorf("%d bytes at %d of element %d: %w", len(b), off, element, phys.ErrNotPresent)
	}
	f.reads++
	if f.before != nil {
		f.before()
	}
	copy(b, f.b[element][off:])
	return nil
}

// reserve begins a record as programs do, and commit completes it: with give, what is left is given back.
func (f *fakeRing) reserve(cpu int, reserve uint64) (position uint64) {
	e := f.b[cpu]
	le.PutUint64(e[controlMagic:], ringMagic)
	position = le.Uint64(e[controlHead:])
	le.PutUint64(e[controlHead:], position+reserve)
	in := position & uint64(f.shape.area-1)
	clear(e[page+in : page+in+8])
	le.PutUint64(e[controlAnchors+8*(in/uint64(f.shape.area/anchors)):], position)
	n := le.Uint64(e[controlCount:])
	le.PutUint64(e[controlCount:], n+1)
	le.PutUint64(e[page+in+recordSequence:], n)
	return position
}

func (f *fakeRing) commit(cpu int, position, reserve uint64, give bool, at uint64, words ...uint64) {
	e := f.b[cpu]
	r := e[page+position&uint64(f.shape.area-1):]
	length := uint64(recordHead + 8*len(words))
	span := reserve
	if give {
		span = length
		le.PutUint64(e[controlHead:], position+span)
	}
	le.PutUint32(r[recordSpan:], uint32(span))
	le.PutUint32(r[recordProbe:], 7)
	le.PutUint64(r[recordTime:], at)
	le.PutUint32(r[recordWords:], uint32(len(words)))
	le.PutUint32(r[recordLength:], uint32(length))
	for i, w := range words {
		le.PutUint64(r[recordHead+8*i:], w)
	}
	le.PutUint64(r[recordMark:], position+1)
}

func (f *fakeRing) write(cpu int, at uint64, words ...uint64) {
	f.commit(cpu, f.reserve(cpu, 4096), 4096, true, at, words...)
}

// testReader reads a ring at times that the test chooses.
func testReader(t testing.TB, f *fakeRing) (*reader, *time.Time) {
	t.Helper()
	r, err := newReader(f, f.shape)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_000_000, 0)
	r.now = func() time.Time { return now }
	return r, &now
}

// next is the first word of the next record, or -1.
func next(t testing.TB, r *reader, now *time.Time) int64 {
	t.Helper()
	var rec plugin.Record
	for range 10 {
		ok, err := r.take(&rec)
		switch {
		case errors.Is(err, errSoon):
			*now = now.Add(window)
			continue
		case err != nil:
			t.Fatal(err)
		case !ok:
			return -1
		}
		if rec.Probe != 7 {
			t.Fatalf("probe %d", rec.Probe)
		}
		return int64(rec.Word(0))
	}
	t.Fatal("it always waits")
	return 0
}

// TestReaderOrder merges the rings of processors by time, also where a record is complete late.
func TestReaderOrder(t *testing.T) {
	f := newFakeRing(3, minArea)
	f.write(1, 5, 99) // before the reader: not of interest
	r, now := testReader(t, f)
	f.write(0, 10, 1)
	f.write(2, 30, 3)
	f.write(1, 20, 2)
	f.write(0, 40, 4)
	for want := int64(1); want <= 4; want++ {
		if got := next(t, r, now); got != want {
			t.Errorf("record %d in place of %d", got, want)
		}
	}
	if got := next(t, r, now); got != -1 {
		t.Errorf("a record %d too many", got)
	}
	// Two programs on one processor: the first was interrupted by the second, so it cannot give anything back.
	a := f.reserve(0, 4096)
	b := f.reserve(0, 4096)
	f.commit(0, b, 4096, true, 60, 6)
	if got := next(t, r, now); got != -1 {
		t.Errorf("record %d behind one that is in the writing", got)
	}
	f.commit(0, a, 4096, false, 50, 5)
	for want := int64(5); want <= 6; want++ {
		if got := next(t, r, now); got != want {
			t.Errorf("record %d in place of %d", got, want)
		}
	}
	if r.lost() != 0 || r.damaged != 0 {
		t.Errorf("lost %d, damaged %d", r.lost(), r.damaged)
	}
}

// TestReaderWraps reads many rounds of records of all lengths, and misses none.
func TestReaderWraps(t *testing.T) {
	f := newFakeRing(1, minArea)
	r, now := testReader(t, f)
	for i := range int64(20_000) {
		f.write(0, uint64(i), append([]uint64{uint64(i)}, make([]uint64, i*7%500)...)...)
		if got := next(t, r, now); got != i {
			t.Fatalf("record %d in place of %d", got, i)
		}
	}
	if r.lost() != 0 || r.damaged != 0 {
		t.Errorf("lost %d, damaged %d", r.lost(), r.damaged)
	}
}

// TestReaderLost counts exactly what was overwritten, and goes on in order.
func TestReaderLost(t *testing.T) {
	f := newFakeRing(1, minArea)
	r, now := testReader(t, f)
	written, read := uint64(0), uint64(0)
	last := int64(-1)
	for round := range 50 {
		for range 100 + round*100 {
			f.write(0, written, written, 1, 2, 3)
			written++
		}
		for {
			got := next(t, r, now)
			if got < 0 {
				break
			}
			if got <= last || uint64(got) >= written {
				t.Fatalf("record %d behind %d", got, last)
			}
			last = got
			read++
		}
		if uint64(last) != written-1 {
			t.Fatalf("the last record is %d, not %d", last, written-1)
		}
	}
	if r.lost() != written-read || r.lost() == 0 || r.damaged != 0 {
		t.Errorf("%d written, %d read, %d lost, damaged %d", written, read, r.lost(), r.damaged)
	}
}

// TestReaderOvertaken: what is overwritten while it is copied is lost, not wrong.
func TestReaderOvertaken(t *testing.T) {
	f := newFakeRing(1, minArea)
	r, now := testReader(t, f)
	written, read := uint64(0), uint64(0)
	for range 500 {
		for range 300 {
			f.write(0, written, written, ^written, written)
			written++
		}
		n := 0
		f.before = func() {
			if n++; n%3 == 0 { // in the middle of a look
				for range 1500 {
					f.write(0, written, written, ^written, written)
					written++
				}
			}
		}
		var rec plugin.Record
		for range 200 {
			ok, err := r.take(&rec)
			if errors.Is(err, errSoon) {
				*now = now.Add(window)
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			read++
			if rec.Word(0) != ^rec.Word(1) || rec.Word(0) != rec.Word(2) || rec.Word(0) != rec.Sequence {
				t.Fatalf("record %d has %#x, %#x, %#x", rec.Sequence, rec.Word(0), rec.Word(1), rec.Word(2))
			}
		}
		f.before = nil
	}
	for next(t, r, now) >= 0 {
		read++
	}
	if r.lost() != written-read || r.damaged != 0 {
		t.Errorf("%d written, %d read, %d lost, damaged %d", written, read, r.lost(), r.damaged)
	}
	t.Logf("%d written, %d read", written, read)
}

// FuzzRing reads a ring that has anything: it ends, and what it yields lies in the ring.
func FuzzRing(f *testing.F) {
	good := newFakeRing(2, minArea)
	good.write(0, 1, 1, 2, 3)
	good.write(1, 2, 4)
	f.Add(uint64(0), uint64(16), good.b[0][:page], good.b[0][page:page+256], uint16(0))
	f.Add(uint64(minArea-8), uint64(8), []byte{}, []byte{1}, uint16(8))
	f.Add(uint64(1)<<63, ^uint64(0), []byte{}, []byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, head, then uint64, control, data []byte, skew uint16) {
		ring := newFakeRing(2, minArea)
		copy(ring.b[0], control[:min(len(control), page)])
		le.PutUint64(ring.b[0][controlHead:], head)
		r, now := testReader(t, ring)
		off := head & (minArea - 1)
		copy(ring.b[0][page+off:], data[:min(len(data), 1<<14)])
		if skew%4 != 0 { // a mark that is right
			le.PutUint64(ring.b[0][page+off:], r.queues[0].tail+1)
		}
		le.PutUint64(ring.b[0][controlHead:], then)
		ring.write(1, 1, 1)
		var rec plugin.Record
		for n := range 20_000 {
			ok, err := r.take(&rec)
			if err != nil && !errors.Is(err, errSoon) {
				t.Fatal(err)
			}
			if r.rewound {
				if err := r.restart(); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if errors.Is(err, errSoon) {
				*now = now.Add(window)
				continue
			}
			if !ok {
				break
			}
			for i := range min(rec.Words(), 4096) {
				_ = rec.Word(i)
			}
			for items := rec.Items(); ; {
				item, ok := items.Next()
				if !ok {
					break
				}
				_ = len(item.Data)
			}
			if n == 19_999 {
				t.Error("it never ends")
			}
		}
		if ring.reads > 100_000 {
			t.Errorf("%d reads", ring.reads)
		}
	})
}

// BenchmarkReader reads rings that a producer keeps full: per record, of the size of a system call's.
func BenchmarkReader(b *testing.B) {
	for _, cpus := range []int{1, 4} {
		b.Run(fmt.Sprintf("cpus=%d", cpus), func(b *testing.B) {
			f := newFakeRing(cpus, defaultArea)
			r, now := testReader(b, f)
			words := make([]uint64, 24)
			var rec plugin.Record
			b.ReportAllocs()
			left := 0
			for b.Loop() {
				if left == 0 {
					b.StopTimer()
					for i := range 2000 {
						f.write(i%cpus, uint64(i), words...)
					}
					left = 2000
					b.StartTimer()
				}
				for {
					ok, err := r.take(&rec)
					if errors.Is(err, errSoon) {
						*now = now.Add(window)
						continue
					}
					if err != nil || !ok {
						b.Fatal(ok, err, left)
					}
					break
				}
				left--
			}
		})
	}
}

// BenchmarkIdle is one poll of rings in which there is nothing.
func BenchmarkIdle(b *testing.B) {
	f := newFakeRing(4, defaultArea)
	r, _ := testReader(b, f)
	var rec plugin.Record
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := r.take(&rec); ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
