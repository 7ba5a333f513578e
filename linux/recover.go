package linux

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
)

// FilePart is consecutive bytes of a file, from Start up to End.
type FilePart struct {
	Start, End uint64
	PA         phys.Addr // of the first, where they are in memory
	In         bool      // they are in memory
	// Missing is why they are not; empty where the file has a hole.
	Missing string
}

// FileParts yields all of a file, part by part, in order. An error is of a part that
// could not be read; what it hid comes as missing.
func (s *System) FileParts(ctx context.Context, i *INode) iter.Seq2[FilePart, error] {
	return func(yield func(FilePart, error) bool) {
		absent := "not in memory"
		if i.Super.Shmem || slices.Contains([]string{"ramfs", "devtmpfs", "rootfs"}, i.Super.Type) {
			absent = "" // nothing was ever written there
		}
		at := uint64(0)
		part := func(end uint64, p FilePart) bool {
			if end <= at {
				return true
			}
			p.Start, p.End = at, end
			at = end
			return yield(p, nil)
		}
		for r, err := range s.CachedPages(ctx, i) {
			if err != nil {
				absent = "unreadable"
				if !yield(FilePart{}, err) {
					return
				}
				continue
			}
			end := min(r.Offset+r.Size, i.Size)
			if r.Offset < at || end <= at {
				continue // behind the end, or twice
			}
			if !part(r.Offset, FilePart{Missing: absent}) {
				return
			}
			p := FilePart{PA: r.PA, In: true}
			switch {
			case r.Swapped:
				p = FilePart{Missing: "in swap"}
			case !r.Valid:
				p = FilePart{Missing: "being read"}
			}
			if !part(end, p) {
				return
			}
		}
		part(i.Size, FilePart{Missing: absent})
	}
}

// Sparse is a file in which holes need no writing.
type Sparse interface {
	io.WriterAt
	Truncate(size int64) error
}

// RecoverSparse writes what of i is in memory into an empty file, with holes for the rest.
// missing are the parts that the file has and memory has not; broken is told of each
// part that could not be read.
func (s *System) RecoverSparse(ctx context.Context, i *INode, w Sparse, broken func(error)) (missing []FilePart, err error) {
	missing, err = s.recover(ctx, i, broken, func(b []byte, at uint64) error {
		_, err := w.WriteAt(b, int64(at))
		return err
	}, func(uint64) error { return nil })
	if err != nil {
		return missing, err
	}
	return missing, w.Truncate(int64(i.Size))
}

// Recover is [System.RecoverSparse] for what cannot have holes: they are written as zeros.
func (s *System) Recover(ctx context.Context, i *INode, w io.Writer, broken func(error)) (missing []FilePart, err error) {
	return s.recover(ctx, i, broken, func(b []byte, _ uint64) error {
		_, err := w.Write(b)
		return err
	}, func(n uint64) error {
		_, err := io.CopyN(w, zeroReader{}, int64(n))
		return err
	})
}

// maxFileSize is the size of the largest file there can be (MAX_LFS_FILESIZE), about.
const maxFileSize = 1 << 62

func (s *System) recover(ctx context.Context, i *INode, broken func(error), write func(b []byte, at uint64) error, hole func(n uint64) error) (missing []FilePart, err error) {
	if i.Size > maxFileSize { // the size is the guest's word
		return nil, fmt.Errorf("inode at %#x: %w: a file of %d bytes", uint64(i.Addr), kobj.ErrBroken, i.Size)
	}
	lacks := func(p FilePart) error {
		if p.Missing != "" {
			missing = append(missing, p)
		}
		return hole(p.End - p.Start)
	}
	buf := make([]byte, 1<<16)
	for p, err := range s.FileParts(ctx, i) {
		switch {
		case err != nil:
			broken(err)
		case !p.In:
			err = lacks(p)
			if err != nil {
				return missing, err
			}
		default:
			for at := p.Start; at < p.End; at += uint64(len(buf)) {
				b := buf[:min(uint64(len(buf)), p.End-at)]
				if _, e := s.Memory.ReadAt(b, p.PA+phys.Addr(at-p.Start)); e != nil {
					err = lacks(FilePart{Start: at, End: at + uint64(len(b)), Missing: "unreadable"})
				} else {
					err = write(b, at)
				}
				if err != nil {
					return missing, err
				}
			}
		}
	}
	return missing, ctx.Err()
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
