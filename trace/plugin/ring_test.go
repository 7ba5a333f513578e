package plugin

import "testing"

// TestLost: what is lost without having been asked for is not counted as lost, and still keeps records from being joined over it.
func TestLost(t *testing.T) {
	r, err := newRings(2, 2*maxRecord)
	if err != nil {
		t.Skip(err)
	}
	defer r.close()
	s := &Stream{r: r}
	put := func(i int, sequence uint64) {
		g := r.ring[i]
		b := r.data[i][g.head:]
		le.PutUint32(b, recordSize)
		le.PutUint64(b[8:], sequence)
		g.head += recordSize
	}
	takes := func() {
		t.Helper()
		if ok, err := r.take(&Record{}); !ok || err != nil {
			t.Fatalf("%v, %v", ok, err)
		}
	}
	expect := func(lost, lostBefore, least, most uint64) {
		t.Helper()
		a, b := s.Before()
		if s.Lost() != lost || s.LostBefore() != lostBefore || a != least || b != most {
			t.Errorf("%d are lost, %d before, %d to %d of all; want %d, %d, %d to %d", s.Lost(), s.LostBefore(), a, b, lost, lostBefore, least, most)
		}
	}
	put(0, 0)
	takes()
	expect(0, 0, 0, 0)
	r.ring[0].lost, r.ring[0].aside, r.ring[1].aside = 5, 3, 4
	expect(5, 0, 0, 0)
	put(1, 1)
	takes() // both rings were empty
	expect(5, 5, 0, 12)
	put(1, 2)
	r.ring[1].lost = 1
	takes()
	expect(6, 6, 4, 13)
}
