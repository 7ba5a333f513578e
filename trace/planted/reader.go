package planted

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/trace/plugin"
)

var le = binary.LittleEndian

const (
	chunk = 64 << 10 // is copied of a ring at a time
	// window is for how long a record waits for older ones of other processors: that were begun, and whose processor the host has not run.
	window = 2 * time.Millisecond
	// nested is more programs than interrupt each other on a processor: each gets its place and its number in two steps.
	nested = 64
	// maxTries is how often rings are looked at until it is known which has the oldest record.
	maxTries = 16
	// stuck is for how long a record may be in the writing before it is given up: a busy host may not run its processor for seconds.
	stuck = 10 * time.Second
)

// queue is the ring of one processor, as far as it was read.
type queue struct {
	element int
	tail    uint64 // position of the next record
	buf     []byte // a copy, from position at on
	at      uint64
	whole   uint64 // up to here buf has complete records
	seen    time.Time
	settled bool      // when it was last looked at, it had nothing that can be read
	pending time.Time // since when the record at tail is in the writing; zero: it is not

	empty time.Time         // when it was last looked at and had nothing more; zero: it had
	prev  uint64            // position + 1 of the last record that was read; 0: none
	last  [recordWords]byte // … and how it begins

	started bool   // first is known
	first   uint64 // sequence number of the first record that counts
	taken   uint64 // records
	lost    uint64 // records, as far as is known
	jumped  bool   // the next record's number says how many were lost
}

// reader reads all rings, in the order of time.
type reader struct {
	mem     memory
	shape   shape
	queues  []queue
	control [page]byte
	clock   clock
	last    int    // the queue of the last record
	damaged uint64 // how often what a ring has made no sense
	before  uint64 // records that were lost before it was begun again
	// doubt says that what is there may not be the ring any more, and rewound that it is as it was at an earlier moment: a snapshot was restored.
	doubt, rewound bool
	now            func() time.Time
}

func newReader(m memory, s shape) (*reader, error) {
	r := &reader{mem: m, shape: s, queues: make([]queue, s.elements), last: -1, now: time.Now}
	for i := range r.queues {
		r.queues[i].buf = make([]byte, chunk+maxRecord)
	}
	return r, r.restart()
}

// restart reads on from what is written from now on: what was written for an earlier reader is not of interest, and after the guest was put back to
// an earlier moment nothing is as expected.
func (r *reader) restart() error {
	r.before = r.lost()
	r.clock, r.last, r.doubt, r.rewound = clock{}, -1, false, false
	for i := range r.queues {
		q := &r.queues[i]
		*q = queue{element: i, buf: q.buf}
		if err := r.look(q); err != nil {
			return err
		}
		q.tail, q.first = r.begun(), r.word(controlCount)
		q.at, q.whole = q.tail, q.tail
	}
	return nil
}

// begun is where the last record begins that programs have noted: the head may be in the middle of one that is in the writing, which gives back what it
// does not need. What was begun before is left out by its number.
func (r *reader) begun() (at uint64) {
	head := r.head()
	for i := range anchors {
		if a := r.word(controlAnchors + 8*i); a <= head && a%8 == 0 {
			at = max(at, a)
		}
	}
	if head-at > uint64(r.shape.area)/2 { // no program's doing
		return head &^ 7
	}
	return at
}

// look reads a queue's control page, up to its anchors.
func (r *reader) look(q *queue) error {
	return r.mem.read(r.control[:controlAnchors+8*anchors], q.element, 0)
}

func (r *reader) word(off int) uint64 { return le.Uint64(r.control[off:]) }

func (r *reader) head() uint64 { return r.word(controlHead) }

// lost is how many records were overwritten before they were read, as far as is known.
func (r *reader) lost() (n uint64) {
	n = r.before
	for i := range r.queues {
		n += r.queues[i].lost
	}
	return n
}

// beats is how often the program ran that shows that they run, on all processors.
func (r *reader) beats() (n uint64, err error) {
	for i := range r.queues {
		if err := r.look(&r.queues[i]); err != nil {
			return n, err
		}
		n += r.word(controlBeats)
	}
	return n, nil
}

// fill copies what is new of a ring.
func (r *reader) fill(q *queue) error {
	for range 2 {
		was := q.tail
		if err := r.copy(q); err != nil {
			return fmt.Errorf("ring of processor %d: %w", q.element, err)
		}
		if q.tail == was { // else it goes on elsewhere
			break
		}
	}
	return nil
}

func (r *reader) copy(q *queue) error {
	if err := r.look(q); err != nil {
		return err
	}
	empty := q.empty
	q.seen, q.empty, q.settled = r.now(), time.Time{}, false
	head := r.head()
	switch {
	case head != 0 && r.word(controlMagic) != ringMagic: // other programs' memory by now, or another kernel's
		r.doubt, q.settled = true, true
		return nil
	case head == q.tail:
		q.pending, q.empty, q.settled = time.Time{}, q.seen, true
		return nil
	case head < q.tail || head%8 != 0:
		r.damaged++
		r.doubt = true
		r.rewound = r.rewound || r.word(controlCount) < q.first+q.taken+q.lost
		r.jump(q, head&^7)
		return nil
	case head-q.tail+2*maxRecord > uint64(r.shape.area):
		r.overtaken(q, head)
		return nil
	}
	mask := uint64(r.shape.area) - 1
	// What was complete does not change, unless the guest was put back to an earlier moment, and has come past this one again.
	if q.prev != 0 {
		var now [recordWords]byte
		if err := r.mem.read(now[:], q.element, page+uint32((q.prev-1)&mask)); err != nil {
			return err
		}
		if now != q.last {
			if err := r.look(q); err != nil {
				return err
			}
			if r.head()+2*maxRecord <= q.prev+uint64(r.shape.area) { // it was not overwritten meanwhile
				r.doubt, r.rewound, q.settled = true, true, true
				return nil
			}
		}
	}
	off := q.tail & mask
	begin := min(head-q.tail, chunk, uint64(r.shape.area)-off) // records begin before that
	n := min(head-q.tail, begin+maxRecord)
	b := q.buf[:n]
	if err := r.mem.read(b, q.element, page+uint32(off)); err != nil {
		return err
	}
	end, ok := records(b, q.tail, begin)
	if !ok {
		r.damaged++
		r.jump(q, head)
		return nil
	}
	if end == 0 {
		// The one that is in the writing will be there soon, unless its processor ended in the middle, or somebody lies.
		q.settled = true
		if q.pending.IsZero() {
			q.pending = q.seen
		} else if q.seen.Sub(q.pending) > stuck {
			r.overtaken(q, head)
		}
		return nil
	}
	q.pending = time.Time{}
	// What was complete when it was copied first is copied once more: a copy takes the mark and what it stands for in any order.
	if err := r.mem.read(b[:min(end, n)], q.element, page+uint32(off)); err != nil {
		return err
	}
	if err := r.look(q); err != nil {
		return err
	}
	again, ok := records(b[:min(end, n)], q.tail, begin)
	now := r.head()
	switch {
	// A program writes into what it has reserved, and may give most of that back.
	case now+maxRecord > q.tail+uint64(r.shape.area):
		r.overtaken(q, now)
		return nil
	case now < q.tail+end || !ok || again != end:
		r.damaged++
		r.jump(q, now&^7)
		return nil
	}
	q.at, q.whole = q.tail, q.tail+end
	if !empty.IsZero() && end > 0 {
		r.clock.atLeast(empty, q.seen, le.Uint64(b[recordTime:]))
	}
	if beat := r.word(controlBeatTime); beat != 0 {
		r.clock.learn(q.seen, beat)
	}
	return nil
}

// records is how many bytes at the beginning of b, which is from a position on, are complete records that begin before the offset begin.
// It is false if they make no sense.
func records(b []byte, position, begin uint64) (n uint64, ok bool) {
	for n < begin && n+recordHead <= uint64(len(b)) && le.Uint64(b[n+recordMark:]) == position+n+1 {
		span, length := uint64(le.Uint32(b[n+recordSpan:])), uint64(le.Uint32(b[n+recordLength:]))
		words := uint64(le.Uint32(b[n+recordWords:]))
		if span%8 != 0 || span > maxRecord || length < recordHead || length > span || words > (length-recordHead)/8 {
			return n, false
		}
		if n+length > uint64(len(b)) {
			break
		}
		n += span
	}
	return n, true
}

// jump goes on at another position of a ring.
func (r *reader) jump(q *queue, to uint64) {
	q.tail, q.at, q.whole, q.prev = to, to, to, 0
	q.pending, q.jumped, q.settled = time.Time{}, true, false
}

// overtaken goes on where a record is known to begin that will not be overwritten so soon: the control page is that of the head.
func (r *reader) overtaken(q *queue, head uint64) {
	to := head
	least := uint64(0)
	if area := uint64(r.shape.area); head > area/2 {
		least = head - area/2
	}
	for i := range anchors {
		if a := r.word(controlAnchors + 8*i); a >= max(least, q.tail+1) && a < to && a%8 == 0 {
			to = a
		}
	}
	r.jump(q, to)
}

// peek returns the next record of a ring as far as it was copied, with its mark; nil if there is none.
func (q *queue) peek() []byte {
	if q.tail == q.whole {
		return nil
	}
	b := q.buf[q.tail-q.at:]
	return b[:le.Uint32(b[recordLength:])]
}

// oldest is the queue whose next record is the oldest of all; -1 if none has one.
func (r *reader) oldest() (first int, err error) {
	for tries := 0; ; tries++ {
		first = -1
		var least uint64
		for i := range r.queues {
			if b := r.queues[i].peek(); b != nil {
				if t := le.Uint64(b[recordTime:]); first < 0 || t < least {
					first, least = i, t
				}
			}
		}
		if first < 0 {
			if tries > 0 {
				return -1, nil
			}
			for i := range r.queues {
				if err := r.fill(&r.queues[i]); err != nil {
					return -1, err
				}
			}
			continue
		}
		if tries == maxTries { // a ring is overwritten again and again while it is copied
			return -1, errSoon
		}
		// The others have to have been empty for a while after it was seen: read to the end, not only as far as they were copied.
		sure, again := r.queues[first].seen.Add(window), false
		for i := range r.queues {
			q := &r.queues[i]
			if q.tail != q.whole || q.settled && !q.seen.Before(sure) {
				continue
			}
			if q.settled && r.now().Before(sure) {
				return -1, errSoon
			}
			if err := r.fill(q); err != nil {
				return -1, err
			}
			again = true
		}
		if !again {
			return first, nil
		}
	}
}

// take finds the next record of all rings: it stays until the next call. It returns false if there is none yet.
func (r *reader) take(rec *plugin.Record) (bool, error) {
	if r.last >= 0 {
		q := &r.queues[r.last]
		b := q.buf[q.tail-q.at:]
		copy(q.last[:], b)
		q.prev = q.tail + 1
		q.tail += uint64(le.Uint32(b[recordSpan:]))
		r.last = -1
	}
	var q *queue
	var b []byte
	var first int
	var sequence uint64
	for {
		var err error
		if first, err = r.oldest(); first < 0 || err != nil {
			return false, err
		}
		q = &r.queues[first]
		b = q.peek()
		if sequence = le.Uint64(b[recordSequence:]); q.started || q.jumped || sequence >= q.first || q.first-sequence > nested {
			break
		}
		q.tail += uint64(le.Uint32(b[recordSpan:])) // it was begun before the reader
	}
	if !q.started && !q.jumped {
		q.first, q.started = sequence, true
	}
	ahead := sequence - q.first - q.taken - q.lost // of what is expected
	switch {
	case q.jumped && ahead < 1<<40:
		q.lost += ahead
	case q.jumped && -ahead > nested: // it has had that number before
		r.doubt, r.rewound = true, true
		return false, nil
	case ahead+nested > 2*nested: // nobody's program has written that
		r.damaged++
	}
	q.jumped, q.started = false, true
	q.taken++
	r.last = first
	r.clock.learn(q.seen, le.Uint64(b[recordTime:]))
	rec.VCPU = first
	return true, rec.Parse(b[recordSpan:])
}
