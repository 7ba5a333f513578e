// Package acquire writes guest-physical memory to a file, as other programs read
// it: raw, an ELF core, LiME, each also compressed with zstd in such a way that it
// can be read anywhere without unpacking all.
package acquire

import (
	"bytes"
	"context"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/note"
	"github.com/outsight-vmi/outsight/phys/seekable"
)

// Format is a file format.
type Format string

// The formats.
const (
	Raw  Format = "raw"  // byte N is guest-physical address N
	ELF  Format = "elf"  // an ELF core file, a segment for each range of memory
	LiME Format = "lime" // each range of memory behind a header
)

// Formats are all formats.
func Formats() []Format { return []Format{Raw, ELF, LiME} }

// Options say how to write.
type Options struct {
	Format   Format
	Zstd     bool
	Checksum Checksum // of Result.Sum; empty means none
	// Vmcoreinfo becomes a note of an ELF file; nil: none. drgn and crash need it.
	Vmcoreinfo []byte
	// CPUs become notes of an ELF file too, so that those tools know what runs.
	CPUs []note.CPU
	// Progress is called now and then, from one goroutine, with how much of the
	// content has been done, in bytes. It may be nil.
	Progress func(done, total uint64)
}

// Result is what was written.
type Result struct {
	Size       uint64 // of the content, in bytes, holes included
	Stored     uint64 // what of it takes room in the file, in bytes
	Unreadable uint64 // memory that could not be read and is zeros in the file, in bytes
	Sum        []byte // of the content, before compression; nil: not asked for
}

// chunkSize is how much is worked on at a time, in bytes: as much as stays in a
// processor's cache between the steps.
const chunkSize = seekable.FrameSize

// chunk is a piece of the content on its way.
type chunk struct {
	off    uint64
	buf    []byte
	blank  bool
	packed []byte // for zstd
	err    error
	done   chan struct{}
}

// writer is one run.
type writer struct {
	im         *image
	opts       Options
	file       *os.File // written to at offsets, with holes; nil: a stream
	out        io.Writer
	sum        hash.Hash // in order
	tree       *tree     // in any
	table      seekable.Table
	blankFrame []byte // a whole chunk of zeros, packed
	stored     atomic.Uint64
	unreadable atomic.Uint64
}

// Write writes mem to out. A regular file that is empty gets holes where memory is
// zeros.
func Write(ctx context.Context, mem phys.Memory, out io.Writer, o Options) (Result, error) {
	im, err := newImage(mem, o)
	if err != nil {
		return Result{}, err
	}
	w := &writer{im: im, opts: o, out: out}
	if f, ok := out.(*os.File); ok && !o.Zstd {
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() && st.Size() == 0 {
			w.file = f
		}
	}
	if w.sum = o.Checksum.inOrder(); o.Checksum == BLAKE3 {
		w.tree = newTree(im.size)
	}
	run := w.run
	if w.file != nil && w.sum == nil {
		run = w.runDirect
	}
	if err := run(ctx); err != nil {
		return Result{}, err
	}
	r := Result{Size: im.size, Stored: w.stored.Load(), Unreadable: w.unreadable.Load()}
	switch {
	case w.sum != nil:
		r.Sum = w.sum.Sum(nil)
	case w.tree != nil:
		r.Sum = w.tree.sum()
	}
	return r, nil
}

func (w *writer) run(ctx context.Context) error {
	workers := runtime.GOMAXPROCS(0)
	packers := make([]*zstd.Encoder, workers)
	if w.opts.Zstd {
		for i := range packers {
			var err error
			packers[i], err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
			if err != nil {
				return err
			}
			defer packers[i].Close()
		}
		w.blankFrame = packers[0].EncodeAll(make([]byte, chunkSize), nil)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	free := make(chan *chunk, 3*workers)
	for range cap(free) {
		free <- &chunk{buf: make([]byte, chunkSize)}
	}
	jobs, ordered := make(chan *chunk), make(chan *chunk, cap(free))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		defer close(ordered)
		defer close(jobs)
		for off := uint64(0); off < w.im.size; off += chunkSize {
			var c *chunk
			select {
			case c = <-free:
			case <-ctx.Done():
				return
			}
			*c = chunk{off: off, buf: c.buf[:min(chunkSize, w.im.size-off)], packed: c.packed[:0], done: make(chan struct{})}
			select {
			case jobs <- c:
			case <-ctx.Done():
				return
			}
			ordered <- c // has room for all
		}
	})
	for i := range workers {
		wg.Go(func() {
			var s sight
			for c := range jobs {
				c.err = phys.Guard(func() error { return w.work(c, packers[i], &s) })
				close(c.done)
			}
		})
	}
	for c := range ordered {
		<-c.done
		if c.err == nil {
			c.err = w.conclude(c)
		}
		if c.err != nil {
			return c.err
		}
		if w.opts.Progress != nil {
			w.opts.Progress(c.off+uint64(len(c.buf)), w.im.size)
		}
		c.buf = c.buf[:cap(c.buf)]
		free <- c
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return w.finish()
}

// work fills a chunk, and packs it or writes it where it belongs.
func (w *writer) work(c *chunk, packer *zstd.Encoder, s *sight) error {
	blank, unreadable := w.im.read(c.buf, c.off, s)
	w.unreadable.Add(unreadable)
	c.blank = blank
	switch {
	case w.tree != nil && blank:
		w.tree.addBlank(uint64(len(c.buf)), c.off)
	case w.tree != nil:
		w.tree.add(c.buf, c.off) // while the processor has it at hand
	}
	switch {
	case packer != nil && blank && len(c.buf) == chunkSize:
		c.packed = append(c.packed, w.blankFrame...)
	case packer != nil:
		c.packed = packer.EncodeAll(c.content(), c.packed)
	case w.file != nil && !blank:
		return w.writeSparse(c.buf, c.off)
	}
	return nil
}

// content is what c holds.
func (c *chunk) content() []byte {
	if c.blank {
		return blankChunk[:len(c.buf)]
	}
	return c.buf
}

// blankChunk is never written to.
var blankChunk [chunkSize]byte

// writeSparse writes what is not zeros, and leaves the rest holes.
func (w *writer) writeSparse(b []byte, off uint64) error {
	start := -1
	flush := func(end int) error {
		if start < 0 {
			return nil
		}
		p := b[start:end]
		n, err := w.file.WriteAt(p, int64(off)+int64(start))
		w.stored.Add(uint64(n))
		start = -1
		return err
	}
	for at := 0; at < len(b); {
		// Up to the next page of the file, since pages are what can be holes.
		n := min(len(b)-at, phys.PageSize-int((off+uint64(at))%phys.PageSize))
		if isZero(b[at : at+n]) {
			if err := flush(at); err != nil {
				return err
			}
		} else if start < 0 {
			start = at
		}
		at += n
	}
	return flush(len(b))
}

// isZero reports whether p, at most a page, is zeros.
func isZero(p []byte) bool {
	// Most pages that are not zeros show it at once.
	return p[0] == 0 && p[len(p)-1] == 0 && bytes.Equal(p, blankChunk[:len(p)])
}

// conclude does what has to be done in order.
func (w *writer) conclude(c *chunk) error {
	if w.sum != nil {
		w.sum.Write(c.content())
	}
	if w.file != nil {
		return nil
	}
	b := c.content()
	if w.opts.Zstd {
		b = c.packed
		w.table.Add(len(b), len(c.buf))
	}
	n, err := w.out.Write(b)
	w.stored.Add(uint64(n))
	return err
}

func (w *writer) finish() error {
	switch {
	case w.file != nil:
		if err := w.file.Truncate(int64(w.im.size)); err != nil {
			return fmt.Errorf("set the size of the file: %w", err)
		}
	case w.opts.Zstd:
		n, err := w.out.Write(w.table.Append(nil))
		w.stored.Add(uint64(n))
		return err
	}
	return nil
}
