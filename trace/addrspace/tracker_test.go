package addrspace

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/trace/plugin"
)

// machine makes the records of a machine of page tables, as the programs of [Probes] do.
type machine struct {
	*testing.T
	t      *Tracker
	now    time.Time
	tops   map[uint64]entry
	loaded map[int]uint64
	got    []string
}

func newMachine(t *testing.T) *machine {
	return &machine{T: t, t: NewTracker(), now: time.Unix(1000, 0), tops: map[uint64]entry{}, loaded: map[int]uint64{}}
}

// fork makes an address space: its root, and what the root's last entry leads to.
func (m *machine) fork(root, frame uint64) { m.tops[root] = entry{256, frame} }

// load has a vCPU run with a root for a millisecond.
func (m *machine) load(vcpu int, root uint64) { m.loadWith(vcpu, root, 0, entry{}) }

func (m *machine) loadWith(vcpu int, root, gone uint64, was entry) {
	old := m.loaded[vcpu]
	m.take(&record{kind: recLoad, vcpu: vcpu, root: root, top: m.tops[root], old: old, oldTop: m.tops[old], gone: gone, was: was})
	m.loaded[vcpu] = root
}

func (m *machine) take(r *record) {
	r.at = m.now
	m.t.take(r)
	m.now = m.now.Add(time.Millisecond)
	m.drain()
}

func (m *machine) drain() {
	for {
		c, ok := m.t.Next()
		if !ok {
			return
		}
		name := map[int]string{Created: "create", Switched: "switch", Ended: "end"}[c.What]
		if c.Late {
			name += " late"
		}
		m.got = append(m.got, fmt.Sprintf("%s %x", name, c.Space.Root))
	}
}

func (m *machine) want(events ...string) {
	m.Helper()
	if !slices.Equal(m.got, events) {
		m.Errorf("got %q, want %q", m.got, events)
	}
	m.got = nil
}

const (
	shell, child, another = 0x1000, 0x4000, 0x8000
	none                  = 0x9000 // the kernel's own root
)

func started(t *testing.T) *machine {
	m := newMachine(t)
	m.fork(shell, 0x70000)
	m.t.exists(shell, m.tops[shell], m.now)
	m.load(0, shell)
	m.want()
	return m
}

// TestForkExit: a child runs, and ends while its root is loaded, which shows when it is left.
func TestForkExit(t *testing.T) {
	m := started(t)
	m.fork(child, 0x71000)
	m.load(0, child)
	m.want("create 4000")
	delete(m.tops, child)
	m.load(0, shell)
	m.want("end 4000")
	m.fork(child, 0x71000) // the same page, and the same table
	m.load(0, child)
	m.want("create 4000")
	if m.t.Created != 2 || m.t.Ended != 1 {
		t.Errorf("%d created, %d ended", m.t.Created, m.t.Ended)
	}
	for _, s := range m.t.Summary().Spaces {
		if s.Root == child && !s.Ended.IsZero() && (s.CPU != time.Millisecond || s.Turns != 1) {
			t.Errorf("the child ran for %v in %d turns", s.CPU, s.Turns)
		}
	}
}

// TestExec: what a process leaves by exec ends after it was left, and its page may be another's at once.
func TestExec(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(m *machine, was entry)
	}{
		{"seen at a return", func(m *machine, was entry) {
			delete(m.tops, child)
			m.take(&record{kind: recGone, root: child, was: was})
			m.want("end 4000")
			m.fork(child, 0x71000)
			m.load(0, child)
			m.want("create 4000")
		}},
		{"seen at a load", func(m *machine, was entry) {
			delete(m.tops, child)
			m.loadWith(0, shell, child, was)
			m.want("end 4000")
		}},
		{"another has the page", func(m *machine, _ entry) {
			m.fork(child, 0x72000)
			m.load(0, child)
			m.want("end late 4000", "create 4000")
		}},
		{"known already", func(m *machine, was entry) {
			m.load(1, none)
			m.fork(child, 0x72000)
			m.load(1, child)
			m.want("end late 4000", "create 4000")
			m.take(&record{kind: recGone, root: child, was: was})
			m.want() // of the one before
		}},
		{"never seen", func(m *machine, _ entry) {
			memory := synthetic{child: {}}
			m.t.Sweep(memory, m.now)
			m.drain()
			m.want()
			m.t.Sweep(memory, m.now)
			m.drain()
			slices.Sort(m.got)
			m.want("end late 1000", "end late 4000", "end late 8000") // it has no memory at all
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := started(t)
			m.T = t
			m.fork(child, 0x71000)
			m.load(0, child)
			was := m.tops[child]
			m.fork(another, 0x73000)
			m.load(0, another)
			m.want("create 4000", "create 8000")
			c.do(m, was)
		})
	}
}

// TestTwoRoots: a kernel that hides itself from user code has two roots for each space.
func TestTwoRoots(t *testing.T) {
	const second = child + 0x1000
	m := started(t)
	m.fork(child, 0x71000)
	m.load(0, child)
	m.take(&record{kind: recPair, root: child, partner: second})
	m.want("create 4000")
	m.load(0, shell)
	m.load(0, child)
	m.take(&record{kind: recPair, root: child, partner: second})
	m.want()
	// Another processor was in user code when the trace began there: it loads the second root first.
	m.tops[second] = m.tops[child]
	m.load(1, second)
	m.take(&record{kind: recPair, root: second, partner: child})
	m.load(1, shell)
	m.want()
	delete(m.tops, child)
	delete(m.tops, second)
	m.load(0, shell)
	m.want("end 4000")
	// And here, before anything is known of the two.
	m = started(t)
	m.fork(child, 0x71000)
	m.fork(second, 0x71000)
	m.t.exists(child, m.tops[child], m.now)
	m.load(1, second)
	m.take(&record{kind: recPair, root: second, partner: child})
	delete(m.tops, child)
	delete(m.tops, second)
	m.load(1, shell)
	m.want("end 4000")
	if m.t.Created != 0 || m.t.Ended != 1 {
		t.Errorf("%d created, %d ended", m.t.Created, m.t.Ended)
	}
}

// TestThreads: a space that two processors run ends once, and the tables of one that runs may change.
func TestThreads(t *testing.T) {
	m := started(t)
	m.fork(child, 0x71000)
	m.load(0, child)
	m.load(1, child)
	m.want("create 4000")
	m.tops[child] = entry{200, 0x75000}
	m.load(0, shell)
	m.load(0, child)
	m.want()
	delete(m.tops, child)
	m.take(&record{kind: recMoved, vcpu: 1, root: child})
	m.want("end 4000")
	m.load(0, shell)
	m.load(1, shell)
	m.want()
}

// TestIdle: a processor that has nothing to do keeps what it had loaded, and that does not run.
func TestIdle(t *testing.T) {
	m := started(t)
	m.take(&record{kind: recSleep})
	m.now = m.now.Add(time.Second)
	m.take(&record{kind: recSleep, wakes: true})
	m.load(0, none)
	m.load(0, shell)
	sum := m.t.Summary()
	if len(sum.Spaces) != 1 || sum.Spaces[0].CPU != 2*time.Millisecond || sum.Idle != time.Second+time.Millisecond || sum.Kernel != time.Millisecond {
		t.Errorf("it ran for %v, the kernel for %v, and was idle for %v", sum.Spaces[0].CPU, sum.Kernel, sum.Idle)
	}
	if got := sum.Share(sum.Idle); got < 0.99 || got > 1 {
		t.Errorf("idle for %v of the time", got)
	}
	m.want()
}

// TestIdleInDead: a processor that idles with the root of a process that has ended runs the kernel.
func TestIdleInDead(t *testing.T) {
	m := started(t)
	m.fork(child, 0x71000)
	m.load(0, child)
	delete(m.tops, child)
	m.take(&record{kind: recMoved, root: child})
	m.take(&record{kind: recSleep})
	m.take(&record{kind: recSleep, wakes: true})
	m.now = m.now.Add(time.Second)
	m.load(0, shell)
	m.want("create 4000", "end 4000")
	sum := m.t.Summary()
	for _, s := range sum.Spaces {
		if s.Root == child && (s.CPU != time.Millisecond || s.last.After(s.Ended)) {
			t.Errorf("it ran for %v, until %v, and ended at %v", s.CPU, s.last, s.Ended)
		}
	}
	if sum.Kernel < time.Second {
		t.Errorf("the kernel ran for %v", sum.Kernel)
	}
}

// TestOwners: where owners are reported, a creation comes with its owner.
func TestOwners(t *testing.T) {
	m := started(t)
	m.t.Owners = true
	m.fork(child, 0x71000)
	m.load(0, child)
	m.want()
	m.take(&record{kind: recOwner, root: child, owner: Owner{PID: 7, Comm: "true"}})
	m.want("create 4000")
	m.fork(another, 0x73000)
	m.load(0, another)
	m.load(0, shell) // and without, when it is left
	m.want("create 8000")
	m.t.Name(map[uint64]Owner{another: {PID: 9}, child: {PID: 8}})
	if a, b := m.t.spaces[child].Owner.PID, m.t.spaces[another].Owner.PID; a != 7 || b != 9 {
		t.Errorf("owners are %d and %d", a, b)
	}
}

// TestBounds: a guest that makes up page tables without end costs bounded memory.
func TestBounds(t *testing.T) {
	m := newMachine(t)
	const n = maxSpaces + 3*maxPast
	for i := range uint64(n) {
		m.t.take(&record{kind: recLoad, root: (i + 1) << 12, top: entry{1, i << 12}, old: i << 12, oldTop: entry{1, i << 12}, at: m.now})
		for _, ok := m.t.Next(); ok; _, ok = m.t.Next() {
		}
	}
	if len(m.t.spaces) > maxSpaces || len(m.t.past) > maxPast || cap(m.t.queue) > 1000 {
		t.Errorf("%d spaces, %d that ended, and %d events are kept", len(m.t.spaces), len(m.t.past), cap(m.t.queue))
	}
	if m.t.Created != n {
		t.Errorf("%d of %d were seen", m.t.Created, n)
	}
}

// synthetic is memory by page.
type synthetic map[uint64][]byte

func (s synthetic) Ranges() []phys.Range { return []phys.Range{{Start: 0, End: 64 << 12}} }

func (s synthetic) ReadAt(p []byte, pa phys.Addr) (int, error) {
	clear(p)
	for n := 0; n < len(p); {
		off := int(pa+phys.Addr(n)) & (pageSize - 1)
		k := min(len(p)-n, pageSize-off)
		if page := s[uint64(pa)+uint64(n)-uint64(off)]; len(page) > off {
			copy(p[n:n+k], page[off:])
		}
		n += k
	}
	return len(p), nil
}

// TestExisting finds roots by their kernel's half, and the right one of two.
func TestExisting(t *testing.T) {
	page := func(user uint64, kernel ...uint64) []byte {
		b := make([]byte, pageSize)
		binary.LittleEndian.PutUint64(b[255*8:], user)
		for i, k := range kernel {
			binary.LittleEndian.PutUint64(b[pageSize-8*(i+1):], k)
		}
		return b
	}
	m := synthetic{
		0x2000: page(0x70007, 0x9067, 0x8067, 0x7067, 0x6067),
		0x3000: page(0x70007, 0x9067),                 // what user code has of it
		0x4000: page(0x71027, 0x9047, 0x8063, 0x7067), // one entry less, other accesses
		0x6000: page(0, 0x9067, 0x8067, 0x7067, 0x6067),
		0x7000: page(0x72007, 0x9067, 0x1067, 0x2067, 0x3067), // another kernel's
	}
	for _, cr3 := range []uint64{0x2000 | 5, 1<<63 | 0x3805} {
		tr := NewTracker()
		if err := tr.Existing(t.Context(), m, []uint64{cr3}, time.Now()); err != nil {
			t.Fatal(err)
		}
		if len(tr.spaces) != 2 || tr.spaces[0x2000] == nil || tr.spaces[0x4000] == nil || tr.spaces[0x4000].top != (entry{256, 0x71000}) {
			t.Errorf("by CR3 %#x: %v", cr3, tr.spaces)
		}
	}
}

// FuzzTracker takes in records that say anything.
func FuzzTracker(f *testing.F) {
	f.Add([]byte{1, 0, 1, 2, 3, 0, 0, 0, 0, 1, 0, 2, 2, 3, 1, 2, 3, 0, 2, 0, 2, 3, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMachine(t)
		for len(b) >= 9 {
			root := func(i int) uint64 { return uint64(b[i]&7) << 12 }
			top := func(i int) entry { return entry{int(b[i] & 3), uint64(b[i]>>2) << 12} }
			m.take(&record{
				kind: int(b[0]) % 8, vcpu: int(b[1] & 3), root: root(2), top: top(3), old: root(4), oldTop: top(5), gone: root(6), was: top(7), partner: root(8),
				wakes: b[1]&8 != 0, fault: b[1]&16 != 0,
			})
			b = b[9:]
			if b := len(b) % 3; b == 0 {
				m.t.Sweep(synthetic{}, m.now)
			}
		}
		live := 0
		for root, s := range m.t.spaces {
			if root != s.Root && root != s.Partner {
				t.Fatalf("%#x leads to the space of %#x and %#x", root, s.Root, s.Partner)
			}
			if !s.Ended.IsZero() {
				t.Fatalf("the space of %#x has ended", root)
			}
			if root == s.Root && !s.Existed {
				live++
			}
		}
		if m.t.Created-m.t.Ended != uint64(live) {
			t.Fatalf("%d created and %d ended, but there are %d", m.t.Created, m.t.Ended, live)
		}
		_ = m.t.Summary()
	})
}

// TestProbes: programs are whole, with and without owners.
func TestProbes(t *testing.T) {
	for _, o := range []*Owners{nil, {}} {
		a := &plugin.Assembler{}
		Probes(a, synthetic{}, o)
		if err := a.Check(); err != nil {
			t.Error(err)
		}
	}
}
