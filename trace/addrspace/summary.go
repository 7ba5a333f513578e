package addrspace

import (
	"cmp"
	"slices"
	"time"
)

// thin keeps the half of the spaces that ended that ran longest, and the sum of the others.
func (t *Tracker) thin() {
	slices.SortFunc(t.past, func(a, b *Space) int { return cmp.Compare(b.CPU, a.CPU) })
	half := len(t.past) / 2
	for i, s := range t.past[half:] {
		t.forgot.CPU += s.CPU
		t.forgot.Turns += s.Turns
		t.past[half+i] = nil
	}
	t.past = t.past[:half]
}

// Summary is what ran so far.
type Summary struct {
	Spaces  []Space       // those that ran, the one that ran longest first
	Kernel  time.Duration // with no user's address space loaded, without sleep
	Others  time.Duration // of spaces that ended and are too many to be kept
	Idle    time.Duration // of vCPUs that had nothing to do
	Total   time.Duration // of all vCPUs, idle or not
	Created uint64        // since the trace began
	Ended   uint64
}

// Summary returns what ran so far.
func (t *Tracker) Summary() (sum Summary) {
	for i := range t.vcpus {
		t.charge(&t.vcpus[i], t.latest)
	}
	sum = Summary{Kernel: t.kernel.CPU, Others: t.forgot.CPU, Idle: t.Idle, Created: t.Created, Ended: t.Ended}
	sum.Total = sum.Kernel + sum.Others + sum.Idle
	add := func(s *Space) {
		if s.Turns > 0 {
			sum.Spaces = append(sum.Spaces, *s)
			sum.Total += s.CPU
		}
	}
	for root, s := range t.spaces {
		if root == s.Root {
			add(s)
		}
	}
	for _, s := range t.past {
		add(s)
	}
	slices.SortFunc(sum.Spaces, func(a, b Space) int {
		return cmp.Or(cmp.Compare(b.CPU, a.CPU), cmp.Compare(a.Root, b.Root), a.Seen.Compare(b.Seen))
	})
	return sum
}

// Share is the part of all processors' time that a space ran, from 0 to 1.
func (s Summary) Share(d time.Duration) float64 {
	if s.Total == 0 {
		return 0
	}
	return float64(d) / float64(s.Total)
}
