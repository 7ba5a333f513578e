// Package addrspace sees processes by their address spaces alone (Antfarm, USENIX ATC 2006): each has page tables of its own,
// and a processor that goes on with another process loads their root into CR3. So it shows when one is made, runs, and ends, and
// for how long it ran, in a guest of which nothing else is known. Once the kernel is known, spaces get names.
//
// What a guest's own lists of processes leave out has to run all the same: [Watch] compares (Lycosid, VEE 2008).
package addrspace

import (
	"time"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/trace/plugin"
)

// Space is one address space.
type Space struct {
	Root    uint64    // guest-physical address of its root page table; of the kernel's, where user code has another one
	Partner uint64    // the other one; 0: none was seen
	Seen    time.Time // when it was loaded first
	Existed bool      // it was there when the trace began
	Ended   time.Time // zero: it is there
	CPU     time.Duration
	Turns   uint64 // how often it was loaded
	Kernel  bool   // it maps nothing of a user's: the system's own
	Owner   Owner  // what runs in it, by what is known of the kernel

	last      time.Time // when it ran last
	top       entry
	loaded    int  // vCPUs that have it loaded
	told      bool // its creation is an event
	doubtful  int  // looks at which its tables were another's
	beginning bool // it was loaded when the trace began, perhaps by its second root
}

// Owner is the process that an address space belongs to.
type Owner struct {
	PID, TID, PPID int32 // PID 0: unknown
	UID            uint32
	Comm           string
	Task           uint64 // address of its task_struct
	Started        uint64 // since boot, in nanoseconds
}

// Known says whether there is an owner.
func (o Owner) Known() bool { return o.PID != 0 }

// What happened to an address space.
const (
	Created  = 1 + iota // it was loaded for the first time
	Switched            // it was loaded
	Ended               // its tables are gone
)

// Change is one thing that happened.
type Change struct {
	What  int
	Space *Space
	VCPU  int
	At    time.Time
	Late  bool // it was seen afterwards: something else is in its place, or nothing was
}

// Tracker infers from the records of [Probes] what address spaces there are. It knows nothing of any operating system.
type Tracker struct {
	// Owners says that records name owners: then a creation is told with it.
	Owners bool
	// Switches says that [Switched] is wanted.
	Switches bool

	spaces  map[uint64]*Space // by root, and by the partner's
	past    []*Space          // that ended
	vcpus   []processor
	kernel  Space // all roots that map nothing of a user's
	queue   []Change
	next    int
	forgot  Space // the sum of those that ended and are not kept
	Idle    time.Duration
	Created uint64 // how many were made
	Ended   uint64 // how many ended
	latest  time.Time
}

// processor is what a vCPU does.
type processor struct {
	space  *Space // nil: unknown
	since  time.Time
	asleep bool
}

// Bounds of what is kept of a guest that makes up page tables.
const (
	maxSpaces = 1 << 18
	maxPast   = 1 << 15
)

// NewTracker knows no address space yet.
func NewTracker() *Tracker {
	return &Tracker{spaces: map[uint64]*Space{}, kernel: Space{Kernel: true, told: true}}
}

// exists notes a space that is there before the first record.
func (t *Tracker) exists(root uint64, top entry, now time.Time) {
	if t.spaces[root] == nil {
		t.add(&Space{Root: root, Existed: true, told: true, Seen: now, top: top})
	}
}

func (t *Tracker) add(s *Space) {
	if len(t.spaces) >= maxSpaces {
		for _, other := range t.spaces { // any of them that does not run
			if other.loaded == 0 {
				t.end(other, -1, s.Seen, true)
				break
			}
		}
	}
	t.spaces[s.Root] = s
}

// Take takes a record in, which was made at a time. It reports whether it was one of [Probes].
func (t *Tracker) Take(r *plugin.Record, at time.Time) bool {
	var rec record
	if !decode(r, at, &rec) {
		return false
	}
	t.take(&rec)
	return true
}

func (t *Tracker) take(r *record) {
	for len(t.vcpus) <= r.vcpu {
		t.vcpus = append(t.vcpus, processor{})
	}
	v := &t.vcpus[r.vcpu]
	t.charge(v, r.at)
	switch r.kind {
	case recLoad:
		t.load(v, r)
	case recPair:
		t.pair(r)
	case recMoved:
		if s := t.spaces[r.root]; s != nil && !r.fault {
			if r.top.empty() {
				t.end(s, r.vcpu, r.at, false)
			} else {
				s.top = r.top
			}
		}
	case recGone:
		t.gone(r)
	case recSleep:
		v.asleep = !r.wakes
	case recOwner:
		t.owned(r)
	}
}

// charge counts the time since the last record of a vCPU.
func (t *Tracker) charge(v *processor, at time.Time) {
	if d := at.Sub(v.since); !v.since.IsZero() && d > 0 {
		switch {
		case v.asleep:
			t.Idle += d
		case v.space != nil:
			v.space.CPU += d
			v.space.last = at
		}
	}
	v.since = at
	if at.After(t.latest) {
		t.latest = at
	}
}

func (t *Tracker) load(v *processor, r *record) {
	v.asleep = false
	t.left(v, r)
	made := t.Created
	if s := t.spaces[r.gone]; s != nil && s.Root == r.gone && s.loaded == 0 && s.top == r.was {
		t.end(s, r.vcpu, r.at, false)
	}
	s := t.spaces[r.root]
	switch {
	case r.top.empty():
		if s != nil && !r.fault {
			t.end(s, r.vcpu, r.at, true)
		}
		s = &t.kernel
	case s == nil:
		s = t.create(r)
	case s.Root != r.root && r.old != 0: // the second root of another, whose page has been reused
		t.end(s, r.vcpu, r.at, true)
		s = t.create(r)
	case s.top != r.top && (s.top.n == r.top.n || s.loaded == 0):
		// Tables of a space that does not run do not change: this is another one, in the same place.
		t.end(s, r.vcpu, r.at, true)
		s = t.create(r)
	}
	if !s.Kernel {
		s.top = r.top
		if s.loaded == 0 {
			s.doubtful = 0
		}
	}
	s.loaded++
	s.Turns++
	v.space = s
	s.beginning = r.old == 0
	if !s.told && !t.Owners && !s.beginning {
		t.tell(s, r.vcpu, s.Seen)
	}
	if t.Switches && !s.Kernel && t.Created == made { // a creation is a load, too
		t.queue = append(t.queue, Change{What: Switched, Space: s, VCPU: r.vcpu, At: r.at})
	}
}

// left takes in what a vCPU ran before.
func (t *Tracker) left(v *processor, r *record) {
	s := v.space
	v.space = nil
	if s == nil {
		return
	}
	s.loaded = max(0, s.loaded-1)
	if s.Kernel || !s.Ended.IsZero() || s.Root != r.old && s.Partner != r.old {
		return // or records in between were lost
	}
	if !s.told {
		t.tell(s, r.vcpu, s.Seen)
	}
	switch {
	case !r.oldTop.empty():
		s.top = r.oldTop
	case !r.fault:
		t.end(s, r.vcpu, r.at, false)
	}
}

func (t *Tracker) create(r *record) *Space {
	s := &Space{Root: r.root, Seen: r.at, top: r.top}
	t.add(s)
	t.Created++
	return s
}

// pair joins two roots of one space.
func (t *Tracker) pair(r *record) {
	s, other := t.spaces[r.root], t.spaces[r.partner]
	switch {
	case s == nil || s == other || r.partner == 0:
		return
	case other != nil && other.Root != r.partner: // the second root of one that must have ended
		t.end(other, r.vcpu, r.at, true)
	case other != nil && s.beginning && !s.told:
		// What was loaded first was the second root of a space that is known.
		t.drop(s)
		t.Created--
		other.CPU += s.CPU
		other.Turns += s.Turns
		other.loaded += s.loaded
		for i := range t.vcpus {
			if t.vcpus[i].space == s {
				t.vcpus[i].space = other
			}
		}
		s, r.root, r.partner = other, r.partner, r.root
	case other != nil:
		t.end(other, r.vcpu, r.at, true)
	}
	if old := t.spaces[s.Partner]; s.Partner != 0 && s.Partner != r.partner && old == s {
		delete(t.spaces, s.Partner)
	}
	s.Partner = r.partner
	t.spaces[r.partner] = s
}

// gone takes in that the entry of a root that was left is now another: it was cleared, or the page is something else.
func (t *Tracker) gone(r *record) {
	s := t.spaces[r.root]
	switch {
	case s == nil || s.Root != r.root || s.top != r.was: // it is known already, and another has its place
	case s.loaded > 0 && !r.top.empty():
		s.top = r.top
	default:
		t.end(s, r.vcpu, r.at, false)
	}
}

// Sweep looks at the tables of all spaces: those that ended unseen, because what ended them ran on, or records were lost, show
// there. What is seen at two looks counts: a record about it may be on its way at the first.
func (t *Tracker) Sweep(memory phys.Memory, now time.Time) {
	for root, s := range t.spaces {
		if root != s.Root {
			continue
		}
		top, err := topOf(memory, root, s.top)
		switch {
		case err == nil && top == s.top:
			s.doubtful = 0
			continue
		case err == nil && !top.empty() && s.loaded > 0:
			continue
		}
		if s.doubtful++; s.doubtful > 1 {
			t.end(s, -1, now, true)
		}
	}
}

func (t *Tracker) owned(r *record) {
	s := t.spaces[r.root]
	if s == nil {
		return
	}
	s.Owner = r.owner
	s.beginning = false
	if !s.told {
		t.tell(s, r.vcpu, s.Seen)
	}
}

func (t *Tracker) tell(s *Space, vcpu int, at time.Time) {
	s.told = true
	t.queue = append(t.queue, Change{What: Created, Space: s, VCPU: vcpu, At: at})
}

// drop forgets where a space is.
func (t *Tracker) drop(s *Space) {
	for _, root := range []uint64{s.Root, s.Partner} {
		if t.spaces[root] == s {
			delete(t.spaces, root)
		}
	}
}

func (t *Tracker) end(s *Space, vcpu int, at time.Time, late bool) {
	if !s.Ended.IsZero() {
		return
	}
	if !s.told {
		t.tell(s, vcpu, s.Seen)
	}
	s.Ended = at
	t.Ended++
	// A processor may keep its root until it goes on with another process: what runs there meanwhile is the kernel.
	for i := range t.vcpus {
		if t.vcpus[i].space == s {
			t.vcpus[i].space = &t.kernel
			t.kernel.loaded++
		}
	}
	s.loaded = 0
	t.drop(s)
	t.queue = append(t.queue, Change{What: Ended, Space: s, VCPU: vcpu, At: at, Late: late})
	if len(t.past) >= maxPast {
		t.thin()
	}
	t.past = append(t.past, s)
}

// Next returns what happened next, and whether anything did.
func (t *Tracker) Next() (c Change, ok bool) {
	if t.next == len(t.queue) {
		t.queue, t.next = t.queue[:0], 0
		return c, false
	}
	c = t.queue[t.next]
	t.queue[t.next].Space = nil
	t.next++
	return c, true
}
