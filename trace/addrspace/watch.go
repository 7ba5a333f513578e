package addrspace

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/virt"
)

// Watch compares the address spaces that run with the processes that a guest's kernel lists, at several looks (Lycosid, VEE
// 2008). It is used beside another trace of the plugin's: [Watch.Program] adds its probes to it, and [Watch.Take] gets their
// records. It is safe for concurrent use.
type Watch struct {
	mu     sync.Mutex
	track  *Tracker
	owners *Owners
	boot   int
	began  time.Time
	looks  []listing
}

// listing is what the kernel listed at a look.
type listing struct {
	began, ended time.Time
	tasks, pids  map[uint64]bool // by root: on the list of tasks; by the PID structures
}

// NewWatch sees nothing yet.
func NewWatch() *Watch { return &Watch{track: NewTracker()} }

// Program adds the probes for the kernel of a look to a program that reads it by its map of physical memory already.
func (w *Watch) Program(ctx context.Context, a *plugin.Assembler, l *guest.Look) error {
	owners, err := OwnersOf(l)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.boot != l.Boot || w.owners == nil {
		w.track, w.looks, w.began = NewTracker(), nil, time.Now()
	}
	w.owners, w.boot = owners, l.Boot
	w.track.Owners = true
	// What is on the kernel's lists is not new.
	listed, err := owners.Listed(ctx, l.Linux)
	if err != nil {
		return fmt.Errorf("watch address spaces: %w", err)
	}
	for root, o := range listed {
		if top, err := topOf(l.Machine.Memory, root, entry{}); err == nil && !top.empty() {
			w.track.exists(root, top, w.began)
			w.track.spaces[root].Owner = o
		}
	}
	Probes(a, l.Machine.Memory, owners)
	return nil
}

// Take takes a record in. It reports whether it was one of these probes.
func (w *Watch) Take(r *plugin.Record, at time.Time) bool {
	if r.Probe != ID {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.track.Take(r, at)
	for {
		if _, ok := w.track.Next(); !ok { // events are of no interest
			return true
		}
	}
}

// Look compares with what the kernel lists now.
func (w *Watch) Look(ctx context.Context, l *guest.Look) error {
	w.mu.Lock()
	owners, boot := w.owners, w.boot
	w.mu.Unlock()
	if owners == nil || boot != l.Boot {
		return nil // nothing runs yet, or another kernel
	}
	li := listing{began: time.Now(), tasks: map[uint64]bool{}, pids: map[uint64]bool{}}
	listed, err := owners.Listed(ctx, l.Linux)
	if err != nil {
		return fmt.Errorf("compare address spaces with the task list: %w", err)
	}
	for root := range listed {
		li.tasks[root] = true
	}
	if err := owners.byPIDs(ctx, l.Linux, func(root uint64) { li.pids[root] = true }); err != nil {
		return fmt.Errorf("compare address spaces with the PID structures: %w", err)
	}
	li.ended = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looks = append(w.looks, li)
	return nil
}

type pidLayout struct{ idr, tasks, links kobj.Field }

// byPIDs yields the roots of all processes that the PID structures lead to: /proc goes by them.
func (o *Owners) byPIDs(ctx context.Context, s *linux.System, met func(root uint64)) error {
	p, err := kobj.LayoutOf(s.Walker, "PIDs of address spaces", func(r *kobj.Resolver, p *pidLayout) {
		p.idr, p.tasks, p.links = r.Field("pid_namespace", "idr"), r.Field("pid", "tasks"), r.Field("task_struct", "pid_links")
	})
	if err != nil {
		return err
	}
	ns, err := s.SymbolAddr("init_pid_ns")
	if err != nil {
		return err
	}
	const kind = 0 // PIDTYPE_PID: threads too, of which one has memory when its leader has none any more
	var errs []error
	for e, err := range s.IDR(ctx, p.idr.At(ns), s.MaxTasks()) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		link, err := s.Space.U64(p.tasks.At(e.Value) + 8*kind)
		if err != nil || link == 0 {
			continue // of a process that ends
		}
		if root, ok := o.rootOf(s, virt.Addr(link)-p.links.At(0)-16*kind); ok {
			met(root)
		}
	}
	return errors.Join(errs...)
}

// Watched is what a [Watch] saw.
type Watched struct {
	Summary
	Took  time.Duration
	Boot  int // [guest.Look.Boot] of the kernel that it saw
	Looks int
	Lost  uint64 // records that found no room: of a space whose records are lost, less may have been seen
	// Unlisted are spaces that ran, were there at several looks, and belong to no process that the kernel listed.
	Unlisted []Unlisted
}

// Unlisted is an address space that runs, and is in none of a list's processes.
type Unlisted struct {
	Space
	Share float64 // of all processors' time, from 0 to 1
	// Looks is at how many looks it was certainly there: it ran before and after. NoTask and NoPID say at how many of
	// them no process on the task list, and none of the PID structures, had it.
	Looks, NoTask, NoPID int
	// P bounds how likely it is to be missed so often by accident, in any of the spaces that ran.
	P float64
}

const (
	// missed is how likely a look is to miss a process that is there, because its list changed while it was read: far more than was
	// seen in a storm of processes.
	missed = 0.01
	// Significant is the probability below which what is missed is hidden.
	Significant = 1e-6
)

// Watched returns what was seen, when the trace is over. It needs a look at the guest for what runs the system itself.
func (w *Watch) Watched(l *guest.Look) *Watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := &Watched{Summary: w.track.Summary(), Took: time.Since(w.began), Boot: w.boot, Looks: len(w.looks)}
	if w.owners == nil {
		d.Took = 0
		return d
	}
	own := w.owners.own(l.Linux)
	for i := range d.Spaces {
		s := &d.Spaces[i]
		u := Unlisted{Space: *s, Share: d.Share(s.CPU)}
		u.compare(w.looks, len(d.Spaces))
		if u.P < Significant && own[s.Root] == "" && likeKernel(l.Machine.Memory, s.Root, l.Linux) {
			d.Unlisted = append(d.Unlisted, u)
		}
	}
	return d
}

// compare counts at how many looks the space, one of many, was missing.
func (u *Unlisted) compare(looks []listing, of int) {
	for i := range looks {
		li := &looks[i]
		if !u.Seen.Before(li.began) || !u.last.After(li.ended) || !u.Ended.IsZero() && !u.Ended.After(li.ended) {
			continue // it may not have been there
		}
		u.Looks++
		// Who was in user code when the watch began may be known by its second root first.
		if !li.tasks[u.Root] && !li.tasks[u.Partner] {
			u.NoTask++
		}
		if !li.pids[u.Root] && !li.pids[u.Partner] {
			u.NoPID++
		}
	}
	u.P = min(1, chance(max(u.NoTask, u.NoPID), u.Looks)*float64(of))
}

// chance is how likely it is that k or more of n looks miss what is there.
func chance(k, n int) (p float64) {
	if k == 0 {
		return 1
	}
	for ; k <= n; k++ {
		ln := lgamma(n+1) - lgamma(k+1) - lgamma(n-k+1) + float64(k)*math.Log(missed) + float64(n-k)*math.Log(1-missed)
		p += math.Exp(ln)
	}
	return p
}

func lgamma(n int) float64 {
	v, _ := math.Lgamma(float64(n))
	return v
}

// own are the roots with which the kernel runs for itself, and maps something below its half for a moment.
func (o *Owners) own(s *linux.System) map[uint64]string {
	own := map[uint64]string{}
	for _, name := range []string{"poking_mm", "text_poke_mm"} { // renamed in 6.16
		at, err := s.SymbolAddr(name)
		if err != nil {
			continue
		}
		if mm, err := s.Space.U64(at); err == nil && mm != 0 {
			if pgd, err := s.Space.U64(virt.Addr(mm) + virt.Addr(o.pgd)); err == nil {
				own[pgd-o.direct] = name
			}
		}
	}
	if mm, err := s.SymbolAddr("efi_mm"); err == nil {
		if pgd, err := s.Space.U64(mm + virt.Addr(o.pgd)); err == nil {
			own[pgd-o.direct] = "efi_mm"
		}
	}
	return own
}

// likeKernel says whether a root, if it is one still, maps this kernel: a guest inside of the guest has others.
func likeKernel(m phys.Memory, root uint64, s *linux.System) bool {
	var a, b [pageSize]byte
	if _, err := m.ReadAt(a[:], phys.Addr(root)); err != nil {
		return false
	}
	if _, err := m.ReadAt(b[:], s.Space.Root()); err != nil {
		return false
	}
	return le.Uint64(a[pageSize-8:])&frameMask == le.Uint64(b[pageSize-8:])&frameMask
}
