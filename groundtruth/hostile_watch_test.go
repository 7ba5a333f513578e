package groundtruth

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// hostileHeap is how much more than at rest all views that run may hold, in bytes.
	hostileHeap = 200 << 20
	// hang is how long a view may neither read nor end.
	hang = time.Minute
)

// watcher looks after the runs that are under way: what they hold, and that they go on.
type watcher struct {
	// alone is held for reading by a run, and for writing by one that others must not
	// share the heap with.
	alone sync.RWMutex

	mu   sync.Mutex
	base uint64 // the heap at rest
	most uint64 // more than that, at times
	runs map[*hostileMemory]*progress
}

// progress is how far a run was when it was last seen to go on.
type progress struct {
	view  string
	reads int64
	at    time.Time
}

// watch starts a watcher that ends with stop.
func watch() (w *watcher, stop func()) {
	w = &watcher{runs: map[*hostileMemory]*progress{}}
	stopping, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stopping:
				return
			case now := <-tick.C:
				w.look(now)
			}
		}
	}()
	return w, func() { close(stopping); <-stopped }
}

// rest takes the heap as it is now for that at rest.
func (w *watcher) rest() {
	now := heap(true)
	w.mu.Lock()
	w.base, w.most = now, 0
	w.mu.Unlock()
}

func (w *watcher) begin(m *hostileMemory, view string) {
	w.mu.Lock()
	w.runs[m] = &progress{view: view, at: time.Now()}
	w.mu.Unlock()
}

func (w *watcher) end(m *hostileMemory) {
	w.mu.Lock()
	delete(w.runs, m)
	w.mu.Unlock()
}

func (w *watcher) look(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := heap(false)
	if now > w.base+hostileHeap {
		now = heap(true)
	}
	if now > w.base {
		w.most = max(w.most, now-w.base)
	}
	for m, p := range w.runs {
		if now > w.base+hostileHeap {
			m.tooBig.Store(true)
		}
		switch reads := m.reads.Load() + m.rows.Load(); {
		case reads != p.reads:
			p.reads, p.at = reads, t
		case t.Sub(p.at) > hang:
			panic(fmt.Sprintf("%s hangs after %d reads and %d rows: %v", p.view, m.reads.Load(), m.rows.Load(), m.lies))
		}
	}
}

// heap is how many bytes of it are in use; those that are garbage too, unless swept.
func heap(sweep bool) uint64 {
	if sweep {
		runtime.GC()
	}
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// held is how much more than at rest the heap had at times.
func (w *watcher) held() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.most
}
