package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/kernel/image/trust"
	"github.com/outsight-vmi/outsight/linux"
)

// ownImage is the source of last resort: the guest's own vmlinuz, if all of it is in its page
// cache. Whoever owns the guest can change that file, so only a signature makes it more than
// the guest's word. It is found by its content: paths would have to be followed for every
// file, and are the guest's word too.
type ownImage struct{ l *Look }

// What is spent to find it.
const (
	ownTime       = 3 * time.Second
	ownInodes     = 4 << 20
	ownCandidates = 8 // files that are read as a whole
	ownSmallest   = 1 << 20
	ownLargest    = 256 << 20
	ownHead       = 64 << 10 // of a file, which names the release
)

// Image implements [image.Source].
func (o ownImage) Image(ctx context.Context, buildID string) (*image.Image, image.Trust, error) {
	limited, cancel := context.WithTimeout(ctx, ownTime)
	defer cancel()
	authorities := o.l.of.authorities()
	open := func(f ownFile) (*image.Image, image.Trust, error) {
		im, t, err := image.Read(f.content, image.Trust{Basis: image.GuestFile, Where: o.path(limited, f.INode)}, authorities)
		if err == nil && (im.BuildID == "" || im.BuildID != buildID) {
			err = fmt.Errorf("vmlinuz: %w: its build-id is %s", image.ErrOther, im.BuildID)
		}
		return im, t, err
	}
	var unsigned *ownFile
	var why error
	for i := range o.candidates(limited, &why) {
		b, err := o.read(limited, i)
		if err != nil {
			why = err
			continue
		}
		// Unpacking takes much longer than verifying, and the guest can have any number of these.
		if _, err := trust.Verify(b, authorities); err != nil {
			if unsigned == nil {
				unsigned = &ownFile{i, b}
			}
			continue
		}
		im, t, err := open(ownFile{i, b})
		if err == nil {
			return im, t, nil
		}
		why = err
	}
	if unsigned != nil {
		im, t, err := open(*unsigned)
		if err == nil {
			return im, t, nil
		}
		why = err
	}
	switch {
	case ctx.Err() != nil:
		return nil, image.Trust{}, ctx.Err()
	case why != nil:
		return nil, image.Trust{}, fmt.Errorf("%w: not on the host, not among the profiles, and of the guest's own %w", image.ErrNone, why)
	}
	return nil, image.Trust{}, fmt.Errorf("%w: not on the host, not among the profiles, and the guest does not have its vmlinuz in memory", image.ErrNone)
}

// candidates yields the files that begin as a bzImage of the kernel's release and that may be
// in memory as a whole. why is set for one that is not.
func (o ownImage) candidates(ctx context.Context, why *error) func(func(*linux.INode) bool) {
	return func(yield func(*linux.INode) bool) {
		s := o.l.Linux
		seen, found := 0, 0
		for sb, err := range s.SuperBlocks(ctx) {
			if err != nil {
				continue
			}
			for i, err := range s.INodes(ctx, sb) {
				if seen++; seen > ownInodes || ctx.Err() != nil {
					return
				}
				if err != nil || i.Size < ownSmallest || i.Size > ownLargest || i.Cached == 0 || i.Mode&0o170000 != 0o100000 {
					continue
				}
				if image.ReleaseOf(o.head(ctx, i)) != s.Release {
					continue
				}
				if i.Cached < i.Size {
					*why = fmt.Errorf("vmlinuz, %d of %d KiB are in memory", i.Cached>>10, i.Size>>10)
					continue
				}
				if found++; !yield(i) || found == ownCandidates {
					return
				}
			}
		}
	}
}

// head is the beginning of a file, as far as it is in memory.
func (o ownImage) head(ctx context.Context, i *linux.INode) []byte {
	b := make([]byte, 0, ownHead)
	for p, err := range o.l.Linux.FileParts(ctx, i) {
		if err != nil || !p.In || p.Start != uint64(len(b)) {
			break
		}
		n := min(p.End-p.Start, uint64(ownHead-len(b)))
		at := len(b)
		b = b[:at+int(n)]
		if _, err := o.l.Linux.Memory.ReadAt(b[at:], p.PA); err != nil {
			return b[:at]
		}
		if at == 0 && !bytes.HasPrefix(b[min(len(b), 0x202):], []byte("HdrS")) {
			return nil // no bzImage
		}
		if len(b) == ownHead {
			break
		}
	}
	return b
}

// ownFile is a file of the guest's.
type ownFile struct {
	*linux.INode
	content []byte
}

// read reads a file from the page cache: all of it, or an error.
func (o ownImage) read(ctx context.Context, i *linux.INode) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(i.Size))
	var broken error
	missing, err := o.l.Linux.Recover(ctx, i, &b, func(err error) { broken = err })
	if err = errors.Join(err, broken); err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("vmlinuz, %d parts are not in memory", len(missing))
	}
	return b.Bytes(), nil
}

// path names a file for people.
func (o ownImage) path(ctx context.Context, i *linux.INode) string {
	const unknown = "a file in the guest's page cache"
	for t, err := range o.l.Linux.Processes(ctx) {
		if err != nil {
			return unknown
		}
		places, err := o.l.Linux.NewProcessReader().Places(ctx, t)
		if err != nil {
			return unknown
		}
		name, _, mounted, err := places.Path(i)
		if err != nil || !mounted {
			return unknown
		}
		return name + " in the guest's page cache"
	}
	return unknown
}
