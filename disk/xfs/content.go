package xfs

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"

	"github.com/outsight-vmi/outsight/disk"
)

// content is what is in a file.
type content struct {
	dev      disk.Device
	runs     *runs
	size     int64
	blockLog uint8
}

// Content is what is in a regular file.
func (n *node) Content() (disk.Content, error) {
	if n.kind() != disk.TypeRegular {
		return nil, fmt.Errorf("xfs: inode %d is no regular file", n.number)
	}
	if n.flags()&flagRealtime != 0 && n.size() > 0 {
		return nil, unsupported("inode %d is on the realtime device", n.number)
	}
	if form := n.raw[5]; form != formExtents && form != formTree {
		return nil, n.wrong("a file of format %d", form)
	}
	return &content{dev: n.fs.dev, runs: n.dataRuns(), size: n.size(), blockLog: n.fs.sb.blockLog}, nil
}

func (c *content) Size() int64 { return c.size }

func (c *content) ReadAt(p []byte, offset int64) (done int, err error) {
	if offset < 0 {
		return 0, fmt.Errorf("xfs: invalid offset %d in a file", offset)
	}
	if offset >= c.size {
		return 0, io.EOF
	}
	if int64(len(p)) > c.size-offset {
		p, err = p[:c.size-offset], io.EOF
	}
	i, _ := c.runs.at(offset >> c.blockLog)
	for done < len(p) {
		n, failed := c.piece(p[done:], offset+int64(done), i)
		done += n
		if failed != nil {
			return done, failed
		}
		if i < len(c.runs.list) && (offset+int64(done))>>c.blockLog >= c.runs.list[i].end() {
			i++
		}
	}
	return done, err
}

// piece reads up to the end of a hole or an extent: list[i] is the one that has the offset, or the next.
func (c *content) piece(p []byte, offset int64, i int) (int, error) {
	if i >= len(c.runs.list) {
		clear(p)
		return len(p), nil
	}
	r := &c.runs.list[i]
	if start := r.logical << c.blockLog; offset < start || c.tooFar(r.logical) {
		if !c.tooFar(r.logical) {
			p = p[:min(int64(len(p)), start-offset)]
		}
		clear(p)
		return len(p), nil
	}
	if !c.tooFar(r.end()) {
		p = p[:min(int64(len(p)), r.end()<<c.blockLog-offset)]
	}
	switch r.state {
	case lost:
		return 0, c.runs.err
	case unwritten:
		clear(p)
		return len(p), nil
	}
	n, err := c.dev.ReadAt(p, r.physical<<c.blockLog+offset-r.logical<<c.blockLog)
	if n == len(p) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("xfs: read byte %#x of a file: %w", offset, err)
}

// tooFar says that a block of the file cannot be counted in bytes: files are smaller.
func (c *content) tooFar(block int64) bool { return block > math.MaxInt64>>c.blockLog }

// Extents are where the bytes are. Blocks after the end of the file, which the kernel allocates before they are
// needed, are left out.
func (c *content) Extents() iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		for _, r := range c.runs.list {
			if c.tooFar(r.logical) || r.logical<<c.blockLog >= c.size {
				return
			}
			start := r.logical << c.blockLog
			e := disk.Extent{Logical: start, Physical: r.physical << c.blockLog, Length: c.size - start, Unwritten: r.state == unwritten}
			if !c.tooFar(r.end()) {
				e.Length = min(e.Length, r.count<<c.blockLog)
			}
			if r.state == lost {
				if !yield(disk.Extent{}, c.runs.err) {
					return
				}
				continue
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}
