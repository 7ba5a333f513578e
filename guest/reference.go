package guest

import (
	"context"
	"fmt"
	"sync"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux/text"
)

// reference is the boot image of the kernel that ran last, which is the same for all
// looks of one boot.
type reference struct {
	mu    sync.Mutex
	build string
	image *text.Reference
	trust image.Trust
}

// Reference finds the boot image of the kernel that runs: the file that the host boots the
// machine with, or what [Options.References] has. Errors wrap [image.ErrNone] if there is
// none; then the guest's memory can only be compared with itself.
func (l *Look) Reference(ctx context.Context) (*text.Reference, image.Trust, error) {
	g := l.of
	if g == nil {
		return nil, image.Trust{}, fmt.Errorf("%w: the look is at no guest", image.ErrNone)
	}
	g.reference.mu.Lock()
	defer g.reference.mu.Unlock()
	r := &g.reference
	id := l.Linux.BuildID
	if r.image != nil && r.build == id {
		return r.image, r.trust, nil
	}
	im, trust, err := g.sources(l).Image(ctx, id)
	if err != nil {
		return nil, image.Trust{}, fmt.Errorf("%s: kernel %s with build-id %s: %w", l.Target, l.Linux.Release, id, err)
	}
	ref, err := text.NewReference(im)
	if err != nil {
		return nil, image.Trust{}, fmt.Errorf("%s: %w", trust.Where, err)
	}
	r.build, r.image, r.trust = id, ref, trust
	return ref, trust, nil
}

// sources are where boot images may be found, the best first.
func (g *Guest) sources(l *Look) image.Sources {
	var all image.Sources
	if m := l.Machine; m != nil && m.Kernel != "" {
		all = append(all, image.Cached{File: image.File{Path: m.Kernel, Basis: image.HostFile}, Dir: g.opts.Images})
	}
	if g.opts.References != nil {
		all = append(all, g.opts.References)
	}
	if len(all) == 0 {
		all = append(all, nowhere{})
	}
	return all
}

// nowhere is the source of a machine that boots by its firmware.
type nowhere struct{}

func (nowhere) Image(context.Context, string) (*image.Image, image.Trust, error) {
	return nil, image.Trust{}, fmt.Errorf("%w: the machine boots by its firmware, or is a dump: give the guest's vmlinuz", image.ErrNone)
}

// Text prepares to compare the kernel's text with its boot image. The trust says what
// the comparison can prove.
func (l *Look) Text(ctx context.Context) (*text.Text, image.Trust, error) {
	ref, trust, err := l.Reference(ctx)
	if err != nil {
		return nil, image.Trust{}, err
	}
	t, err := text.New(l.Linux, ref)
	return t, trust, err
}
