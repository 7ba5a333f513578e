package acquire

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outsight-vmi/outsight/phys"
)

// stripe is how much a worker takes on at once, in bytes. To hand over each chunk would
// cost a good part of what it takes to copy it.
const stripe = 32 * chunkSize

// runDirect writes every chunk where it belongs, in whatever order: that is all there
// is to do when nothing is packed, or summed from front to back.
func (w *writer) runDirect(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, done atomic.Uint64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			c := &chunk{buf: make([]byte, chunkSize)}
			var s sight
			for {
				start := next.Add(stripe) - stripe
				end := min(start+stripe, w.im.size)
				for c.off = start; c.off < end; c.off += chunkSize {
					if ctx.Err() != nil {
						return
					}
					c.buf = c.buf[:min(chunkSize, end-c.off)]
					if err := phys.Guard(func() error { return w.work(c, nil, &s) }); err != nil {
						cancel(err)
						return
					}
					done.Add(uint64(len(c.buf)))
				}
				if start >= w.im.size {
					return
				}
			}
		})
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		wg.Wait()
	}()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	show := func() {
		if w.opts.Progress != nil {
			w.opts.Progress(done.Load(), w.im.size)
		}
	}
	for {
		select {
		case <-tick.C:
			show()
			continue
		case <-finished:
		}
		show()
		if err := context.Cause(ctx); err != nil {
			return err
		}
		return w.finish()
	}
}

const progressEvery = 50 * time.Millisecond
