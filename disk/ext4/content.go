package ext4

import (
	"errors"
	"io"
	"iter"

	"github.com/outsight-vmi/outsight/disk"
)

// content is the bytes of a file, a directory or a long link.
type content struct {
	n    *node
	from disk.Device // for data or for metadata: see OpenNewer
	size int64
	// inline is the content, if it is in the inode. Beyond it Linux shows zeroes (fs/ext4/inline.c, ext4_readpage_inline), and mke2fs makes such files.
	inline []byte
}

func (n *node) content() (*content, error) {
	c := &content{n: n, from: n.fs.device, size: n.stat.Size}
	if n.flags&flagInline == 0 {
		return c, nil
	}
	var err error
	if c.inline, err = n.inline(); err != nil {
		return nil, err
	}
	return c, nil
}

// inline is what is in the inode: where block numbers would be, and behind that in an attribute.
func (n *node) inline() ([]byte, error) {
	b := append([]byte(nil), n.block[:]...)
	for a, err := range n.attributes() {
		if err != nil {
			return nil, err
		}
		if a.index == indexSystem && a.name == "data" {
			more, err := n.value(a)
			if err != nil {
				return nil, err
			}
			return append(b, more...), nil
		}
	}
	return b, nil
}

func (c *content) Size() int64 { return c.size }

// ReadAt reads what is in the file; holes are zeroes.
func (c *content) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, errors.New("ext4: negative offset")
	}
	if offset >= c.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > c.size-offset {
		p, end = p[:c.size-offset], io.EOF
	}
	if c.inline != nil {
		clear(p[copy(p, c.inline[min(offset, int64(len(c.inline))):]):])
		return len(p), end
	}
	fs, done := c.n.fs, 0
	for done < len(p) {
		at := offset + int64(done)
		r, err := c.n.lookup(uint64(at / fs.blockSize))
		if err != nil {
			return done, err
		}
		within := at % fs.blockSize
		part := p[done:]
		if room := uint64(len(part)+int(within)+int(fs.blockSize)-1) / uint64(fs.blockSize); r.length < room {
			part = part[:int64(r.length)*fs.blockSize-within]
		}
		if r.physical == 0 || r.unwritten {
			clear(part)
		} else if err := disk.ReadFull(c.from, part, int64(r.physical)*fs.blockSize+within); err != nil {
			return done, c.n.errorf("its content: %w", err)
		}
		done += len(part)
	}
	return done, end
}

// Extents are where the file is.
func (c *content) Extents() iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		if c.inline != nil {
			if n := min(c.size, int64(len(c.inline))); n > 0 {
				yield(disk.Extent{Physical: -1, Length: n}, nil)
			}
			return
		}
		size := c.n.fs.blockSize
		end := uint64((c.size + size - 1) / size)
		for block := uint64(0); block < end; {
			r, err := c.n.lookup(block)
			if err != nil {
				yield(disk.Extent{}, err)
				return
			}
			length := min(r.length, end-block)
			if r.physical != 0 {
				e := disk.Extent{Logical: int64(block) * size, Physical: int64(r.physical) * size, Unwritten: r.unwritten}
				e.Length = min(int64(length)*size, c.size-e.Logical)
				if !yield(e, nil) {
					return
				}
			}
			block += length
		}
	}
}
