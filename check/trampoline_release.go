package check

import (
	"context"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/virt"
)

// The kernel frees a trampoline of BPF after its programs: it waits until no task can be in it. What was compiled meanwhile may lie where the
// programs were, so that it leads anywhere. How far the kernel is with that is noted in words that who controls the kernel can write; but the
// grace periods that it waits for come to an end, and are counted.

// maxPeriods is how many grace periods may end while a trampoline waits for one. A callback runs after the next that begins, so that two
// are enough but for the time until it is run, by a kernel thread.
const maxPeriods = 8

// releasing is a trampoline that was being freed at every look since.
type releasing struct {
	holding
	stage   bpf.Stage
	periods uint64 // when it was first seen in this stage
}

// watchReleases notes which trampolines are being freed at a look, by their symbols.
func (h *History) watchReleases(boot int, at time.Time, releases map[virt.Addr]bpf.Release) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := make(map[virt.Addr]releasing, len(releases))
	for symbol, rel := range releases {
		n := releasing{holding{boot: boot, last: at}, rel.Stage, rel.Periods}
		if was, ok := h.releases[symbol]; ok && was.boot == boot {
			n.long = was.long + min(max(0, at.Sub(was.last)), heldBetween)
			if was.stage == rel.Stage {
				n.periods = was.periods
			}
		}
		now[symbol] = n
	}
	h.releases = now
}

// overdue says why a trampoline should have been freed by now; empty if not.
func (h *History) overdue(symbol virt.Addr, rel bpf.Release) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	was, ok := h.releases[symbol]
	switch {
	case !ok:
		return ""
	case was.long > heldFor:
		return fmt.Sprintf("it has been so at all looks for %v", was.long.Round(time.Second))
	case was.stage == rel.Stage && rel.Stage != bpf.AwaitsReturn && rel.Periods-was.periods > maxPeriods:
		return fmt.Sprintf("%d of the grace periods that it waits for have ended meanwhile", rel.Periods-was.periods)
	}
	return ""
}

// released judges what a trampoline leads to that is being freed, and that nothing leads to any more. f is what it is if it is not so.
func (w *trampolineWalk) released(ctx context.Context, i bpf.Image, code []byte, f *Finding) (*Finding, error) {
	rel, err := bpf.ReleaseOf(w.s.Linux, i)
	if err != nil || rel.Stage == bpf.Unreleased {
		f.Busy, f.Explained = true, true // the two were not read at one moment
		return f, ctx.Err()
	}
	if rel.Stage == bpf.AwaitsReturn {
		// No task is between its beginning and the traced function any more, and none comes: what is still executed is what those
		// that are in the function return to.
		inside, err := w.s.Linux.Inside(ctx, i.Start, uint64(len(code)))
		if err == nil && len(inside) > 0 && w.harmless(code, i.Start, inside) {
			return nil, nil
		}
	}
	w.releases[i.Symbol] = rel
	if why := w.s.history.overdue(i.Symbol, rel); why != "" {
		f.Evidence = append(f.Evidence, Evidence{Text: "the kernel does not free it, as " + why + ": its struct bpf_ksym", Addr: i.Symbol})
		return f, nil
	}
	f.Busy, f.Explained, f.work = true, true, rel.Progress
	return f, nil
}

// harmless reports whether code at start leads only where a trampoline may, from these places on.
func (w *trampolineWalk) harmless(code []byte, start virt.Addr, from []virt.Addr) bool {
	entries := make([]int, 0, len(from))
	for _, a := range from {
		entries = append(entries, int(a-start))
	}
	for out := range branchesFrom(code, start, entries) {
		if out.bad || w.bpfMayLead(out.to) != "" {
			return false
		}
	}
	return true
}
