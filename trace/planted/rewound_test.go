package planted

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/trace/plugin"
)

// kept is what a ring has at a moment: a snapshot.
func (f *fakeRing) kept() (restore func()) {
	var was [][]byte
	for _, b := range f.b {
		was = append(was, bytes.Clone(b))
	}
	return func() {
		for i, b := range was {
			copy(f.b[i], b)
		}
	}
}

// TestReaderRewound restores a snapshot of a ring at all distances, and lets it go on differently before the reader looks again: no record is wrong,
// it is noticed, and the reader goes on from there and counts what it loses.
func TestReaderRewound(t *testing.T) {
	for _, before := range []int{1, 2, 40, 3000} { // records between the snapshot and its restoration, which are read
		for _, after := range []int{0, 1, 2, 39, 40, 41, 2999, 3000, 3001, 9000} { // records since, until the reader looks
			f := newFakeRing(2, minArea)
			r, now := testReader(t, f)
			at := uint64(1000)
			write := func(n int, world uint64) {
				for range n {
					at++
					f.write(int(at%2), at, at, world)
				}
			}
			read := func(world uint64) (n int) {
				var rec plugin.Record
				for {
					switch ok, err := r.take(&rec); {
					case errors.Is(err, errSoon):
						*now = now.Add(window)
					case err != nil:
						t.Fatal(err)
					case r.doubt || !ok:
						return n
					case rec.Word(1) != world:
						t.Fatalf("%d, %d: a record of world %d in %d", before, after, rec.Word(1), world)
					default:
						n++
					}
				}
			}
			write(100, 1)
			read(1)
			restore := f.kept()
			was := at
			write(before, 1)
			read(1)
			restore()
			at = was + 7 // it takes another time
			write(after, 2)
			lost := r.lost()
			// A ring may be as it was left, if the other processor's had all that is gone.
			n := read(2)
			if !r.rewound {
				write(200, 2)
				n += read(2)
			}
			if after > 3001 && !r.rewound {
				continue // it has come past by more than the ring has room for: that is like records that were lost
			}
			if !r.rewound || n != 0 && before > 1 {
				t.Fatalf("%d records, then %d: rewound %v after %d records", before, after, r.rewound, n)
			}
			if err := r.restart(); err != nil {
				t.Fatal(err)
			}
			write(3, 2)
			if n := read(2); n != 3 || r.lost() != lost || r.doubt {
				t.Errorf("%d, %d: after that %d records, %d lost", before, after, n, r.lost()-lost)
			}
			write(6000, 2)
			n = read(2)
			if got := r.lost() - lost; got != uint64(6000-n) || got == 0 || r.doubt {
				t.Errorf("%d, %d: of 6000 records %d were read, and %d counted as lost", before, after, n, got)
			}
		}
	}
}

// TestReaderAnothers gives a ring's memory to somebody else: nothing is read of it.
func TestReaderAnothers(t *testing.T) {
	f := newFakeRing(1, minArea)
	r, now := testReader(t, f)
	f.write(0, 1, 1)
	if got := next(t, r, now); got != 1 {
		t.Fatalf("record %d", got)
	}
	f.write(0, 2, 2)
	le.PutUint64(f.b[0][controlMagic:], 0x4141414141414141)
	if got := next(t, r, now); got != -1 || !r.doubt || r.rewound {
		t.Errorf("record %d, in doubt %v, rewound %v", got, r.doubt, r.rewound)
	}
}

// TestClockHeld stops a guest's clock for a while: what happens after that has the host's time, at once.
func TestClockHeld(t *testing.T) {
	f := newFakeRing(1, minArea)
	r, now := testReader(t, f)
	guest := uint64(time.Minute)
	check := func(when string) {
		t.Helper()
		f.write(0, guest, 1)
		*now = now.Add(time.Millisecond)
		var rec plugin.Record
		if ok, err := r.take(&rec); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if d := now.Sub(r.clock.host(rec.Ticks)); d < 0 || d > 10*time.Millisecond {
			t.Errorf("%s: an event is %v too early", when, d)
		}
		if ok, err := r.take(&rec); ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	for range 5 {
		check("at first")
		guest += uint64(time.Second)
		*now = now.Add(time.Second)
	}
	*now = now.Add(time.Hour)
	var rec plugin.Record
	if ok, err := r.take(&rec); ok || err != nil { // it is looked at all the time
		t.Fatal(ok, err)
	}
	check("after a pause")
	// A reader that was stopped sees old records late: they keep their time.
	f.write(0, guest, 1)
	was := *now
	*now = now.Add(time.Hour)
	guest += uint64(time.Hour)
	if ok, err := r.take(&rec); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if d := r.clock.host(rec.Ticks).Sub(was); d < -10*time.Millisecond || d > 10*time.Millisecond {
		t.Errorf("an old event is %v off", d)
	}
}

// TestReaderBegins begins to read while a record is in the writing, which gives back what it does not need: that one may be seen or not, all later ones are, and
// nothing is counted as lost.
func TestReaderBegins(t *testing.T) {
	for _, before := range []int{0, 1, 2, 700} {
		for _, counted := range []bool{false, true} { // the program has its number
			for _, early := range []bool{false, true} { // the reader looks before it is complete
				f := newFakeRing(1, minArea)
				for i := range before {
					f.write(0, uint64(i), 7)
				}
				position := f.reserve(0, 4096)
				if !counted {
					le.PutUint64(f.b[0][controlCount:], uint64(before))
				}
				r, now := testReader(t, f)
				le.PutUint64(f.b[0][controlCount:], uint64(before+1))
				if early {
					if got := next(t, r, now); got != -1 {
						t.Fatalf("record %d", got)
					}
				}
				f.commit(0, position, 4096, true, uint64(before), 8)
				for i := range 20 {
					f.write(0, uint64(before+1+i), uint64(100+i))
				}
				got := next(t, r, now)
				if got == 8 {
					got = next(t, r, now)
				}
				for i := range int64(20) {
					if got != 100+i {
						t.Fatalf("%d before, number %v, early %v: record %d in place of %d", before, counted, early, got, 100+i)
					}
					got = next(t, r, now)
				}
				if r.lost() != 0 || r.damaged != 0 || r.doubt {
					t.Errorf("%d before, number %v, early %v: lost %d, damaged %d", before, counted, early, r.lost(), r.damaged)
				}
			}
		}
	}
}

// TestReaderBacklog reads what lies in several rings, more than is copied at a time, and is overtaken in between: a task that moves from processor to processor is
// always seen in order.
func TestReaderBacklog(t *testing.T) {
	for _, round := range []int{1, 10, 700, 3000} { // records until the task moves
		f := newFakeRing(3, minArea)
		r, now := testReader(t, f)
		at, read, last := 0, 0, int64(-1)
		work := func(n int) {
			for range n {
				f.write(at/round%3, uint64(at), uint64(at), 1, 2, 3, 4)
				at++
			}
		}
		for i := range 40 {
			work(200 + i*100)
			copies := 0
			f.before = func() {
				if copies++; copies%5 == 0 && copies < 200 {
					f.before = nil
					work(900)
				}
			}
			for {
				got := next(t, r, now)
				if got < 0 {
					break
				}
				if got <= last {
					t.Fatalf("moves each %d: record %d came after %d", round, got, last)
				}
				last = got
				read++
			}
			f.before = nil
		}
		for got := next(t, r, now); got >= 0; got = next(t, r, now) {
			read++
		}
		if r.lost() != uint64(at-read) || r.damaged != 0 {
			t.Errorf("moves each %d: %d written, %d read, %d lost, damaged %d", round, at, read, r.lost(), r.damaged)
		}
	}
}
