package check

import (
	"maps"
	"slices"
	"sync"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// branchWindows are the bytes that may be a branch out of the kernel's text, by the window that they
// are in: they are looked for again only in one that changed, and held against executable memory again
// only if that changed. What is left, whether they may lead there, is judged at each look.
type branchWindows struct {
	mu    sync.Mutex
	run   uint64
	known map[virt.Addr]*windowBranches
}

// begin begins a run over all text.
func (k *branchWindows) begin() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.run++
}

// forget forgets the windows that the run did not come by: of modules that were removed.
func (k *branchWindows) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.known, func(_ virt.Addr, b *windowBranches) bool { return b.run != k.run })
}

type windowBranches struct {
	run   uint64    // that came by last
	n     virt.Addr // bytes that were looked at
	pages []uint64  // digests of the pages that they are in
	all   []branch

	mu      sync.Mutex
	sorted  bool
	code    []run    // that is executable outside of the kernel's text
	outward []branch // of all, those that may lead there
}

// branch is bytes that may be one.
type branch struct {
	at      int32 // in the window
	through bool  // to is where to find where it leads
	to      virt.Addr
}

// maxBranchWindows bounds what is kept: 256 MiB of code.
const maxBranchWindows = 4096

// of are the branches in the window at at, of n bytes.
func (k *branchWindows) of(s *Subject, at, n virt.Addr, text run) (*windowBranches, error) {
	k.mu.Lock()
	known, run := k.known[at], k.run
	if known != nil {
		known.run = run
	}
	k.mu.Unlock()
	first, last := at&^(phys.PageSize-1), (at+n+phys.PageSize-1)&^(phys.PageSize-1)
	digests := make([]uint64, (last-first)/phys.PageSize)
	if known != nil && known.n == n && s.Linux.Digests(digests, first) == nil && slices.Equal(digests, known.pages) {
		return known, nil
	}
	b := make([]byte, last-first)
	if err := s.Linux.ReadAt(b, first); err != nil {
		return nil, err
	}
	for i := range digests { // of what is looked at: it may have changed since
		digests[i] = phys.Digest(b[i*phys.PageSize:][:phys.PageSize])
	}
	now := &windowBranches{run: run, n: n, pages: digests, all: branches(b[at-first:][:n], at, text)}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known == nil {
		k.known = map[virt.Addr]*windowBranches{}
	}
	if known != nil || len(k.known) < maxBranchWindows {
		k.known[at] = now
	}
	return now, nil
}
