package check

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys/look"
)

// From one look to the next nearly nothing changes. So what was concluded from the guest's memory alone is kept,
// with every byte that was read for it, and holds at the next look if all of them are the same then: which costs
// little beside concluding it again. Only conclusions that nothing is wrong are kept (decision 0018).

// kept is a conclusion, and what it rests on.
type kept struct {
	mu      sync.Mutex
	boot    int
	value   any // nil: there is none
	version uint64
	notes   *look.Noted
	needs   []need // parts that it was made of

	// A conclusion about what changes all the time costs more if it is kept: it is tried less and less often.
	changes, wait int
}

// need is a part that a conclusion rests on, as it was then.
type need struct {
	part    string
	version uint64
}

// maxWait bounds for how many looks nothing is kept of what changes at each.
const maxWait = 32

var versions atomic.Uint64

// keptAs is what history keeps under a name.
func (h *History) keptAs(name string) *kept {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.kept == nil {
		h.kept = map[string]*kept{}
	}
	k := h.kept[name]
	if k == nil {
		k = &kept{}
		h.kept[name] = k
	}
	return k
}

// conclude is what judge concludes, or concluded at a look before, if nothing that was read for it has changed
// since. ok says whether it may be kept. The version changes when the conclusion may have. judge must use nothing that changes but
// the guest's memory and the parts, as it gets them by its subject.
func conclude[T any](s *Subject, name string, judge func(s *Subject) (v T, ok bool)) (T, uint64) {
	k := s.history.keptAs(name)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.value != nil {
		if k.boot == s.Boot && k.holds(s) {
			k.changes = 0
			return k.value.(T), k.version
		}
		k.value, k.notes, k.needs = nil, nil, nil
		k.backOff()
	}
	version := versions.Add(1)
	noted, notes := s.noted(name)
	if noted == nil || k.wait > 0 {
		k.wait = max(k.wait-1, 0)
		v, _ := judge(s)
		return v, version
	}
	v, ok := judge(noted)
	switch {
	case !ok:
	case noted.needs.lost || notes.Lost():
		k.backOff() // or all would be noted at each look for nothing
	default:
		k.value, k.version, k.boot, k.notes, k.needs = v, version, s.Boot, notes, noted.needs.all
	}
	return v, version
}

// backOff has nothing be kept for some looks: for the more, the more often that was in vain.
func (k *kept) backOff() {
	k.changes = min(k.changes+1, 10)
	k.wait = min(1<<k.changes-2, maxWait) // what changed once is kept at once again
}

// holds reports whether what the conclusion rests on is the same at the look of s.
func (k *kept) holds(s *Subject) bool {
	for _, n := range k.needs {
		if s.parts.version(n.part) != n.version {
			return false
		}
	}
	return s.Same(k.notes)
}

// noted is s with all that is read of the guest noted; nil if the guest does not change, or nobody looks again.
func (s *Subject) noted(name string) (*Subject, *look.Noted) {
	if s.Look == nil || s.history.once || s.Still() {
		return nil, nil
	}
	n := *s
	n.needs = &needs{}
	var owners *linux.Owners // of code: nearly all ask for them
	if name != ownersPart {
		var err error
		if owners, err = n.Owners(); err != nil {
			return nil, nil
		}
	}
	var notes *look.Noted
	n.Look, notes = s.Noted(owners)
	if n.Look == nil {
		return nil, nil
	}
	return &n, notes
}

// needs are the parts that a subject was asked for.
type needs struct {
	mu   sync.Mutex
	all  []need
	lost bool // it rests on more than memory and parts
}

// lose notes that the conclusion rests on what is not noted, and must not be kept.
func (n *needs) lose() {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost = true
}

func (n *needs) note(part string, version uint64) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if of := (need{part, version}); !slices.Contains(n.all, of) {
		n.all = append(n.all, of)
	}
}
