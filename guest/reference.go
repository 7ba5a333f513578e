package guest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/kernel/image/trust"
	"github.com/outsight-vmi/outsight/linux/text"
)

// cachedReference is the boot image of the kernel that ran last, which is the same for all
// looks of one boot, or why there is none.
type cachedReference struct {
	mu    sync.Mutex
	build string
	image *text.Reference
	trust image.Trust
	err   error
	at    time.Time // of err
}

// lookAgain is how long it is believed that there is no boot image: to look for one in the
// guest's page cache takes some time.
const lookAgain = time.Minute

// Reference finds the boot image of the kernel that runs: the file that the host boots the
// machine with, what [Options.References] and the store in [Options.Profiles] have, or the
// guest's own. Errors wrap [image.ErrNone] if there is none; then the guest's memory can only
// be compared with itself.
func (l *Look) Reference(ctx context.Context) (*text.Reference, image.Trust, error) {
	g := l.of
	if g == nil {
		return nil, image.Trust{}, fmt.Errorf("%w: the look is at no guest", image.ErrNone)
	}
	g.reference.mu.Lock()
	defer g.reference.mu.Unlock()
	r := &g.reference
	id := l.Linux.BuildID
	if r.build == id && (r.image != nil || r.err != nil && time.Since(r.at) < lookAgain) {
		return r.image, r.trust, r.err
	}
	ref, trust, err := l.findReference(ctx, id)
	if ctx.Err() != nil { // that says nothing of the next time
		return ref, trust, err
	}
	r.build, r.image, r.trust, r.err, r.at = id, ref, trust, err, time.Now()
	return ref, trust, err
}

func (l *Look) findReference(ctx context.Context, id string) (*text.Reference, image.Trust, error) {
	im, trust, err := l.of.sources(l).Image(ctx, id)
	if err != nil {
		return nil, image.Trust{}, fmt.Errorf("%s: kernel %s with build-id %s: %w", l.Target, l.Linux.Release, id, err)
	}
	ref, err := text.NewReference(im)
	if err != nil {
		return nil, image.Trust{}, fmt.Errorf("%s: %w", trust.Where, err)
	}
	return ref, trust, nil
}

// sources are where boot images may be found, the best first.
func (g *Guest) sources(l *Look) image.Sources {
	var all image.Sources
	if m := l.Machine; m != nil && m.Kernel != "" {
		all = append(all, image.Cached{File: image.File{Path: m.Kernel, Basis: image.HostFile, Authorities: g.authorities()}, Dir: g.opts.Images})
	}
	if g.opts.References != nil {
		all = append(all, g.opts.References)
	}
	if g.store != nil {
		all = append(all, g.store)
	}
	return append(all, ownImage{l})
}

// authorities are those whose signatures are believed.
func (g *Guest) authorities() []trust.Authority {
	if g.store != nil {
		return g.store.Authorities()
	}
	return trust.Authorities()
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

// Rodata prepares to compare the kernel's read-only data with its boot image.
func (l *Look) Rodata(ctx context.Context) (*text.Text, image.Trust, error) {
	ref, trust, err := l.Reference(ctx)
	if err != nil {
		return nil, image.Trust{}, err
	}
	t, err := text.NewRodata(l.Linux, ref)
	return t, trust, err
}

// Pointers prepares to read the pointers to functions in the kernel's data, beside what its boot image has there.
func (l *Look) Pointers(ctx context.Context) (*text.Pointers, image.Trust, error) {
	ref, trust, err := l.Reference(ctx)
	if err != nil {
		return nil, image.Trust{}, err
	}
	p, err := text.NewPointers(l.Linux, ref)
	return p, trust, err
}

// VDSOs prepares to compare the kernel's images of the vDSO with its boot image, and says
// where they are.
func (l *Look) VDSOs(ctx context.Context) (*text.Text, []text.VDSO, image.Trust, error) {
	ref, trust, err := l.Reference(ctx)
	if err != nil {
		return nil, nil, image.Trust{}, err
	}
	t, all, err := text.NewVDSOs(l.Linux, ref)
	return t, all, trust, err
}
