package image

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/kernel/image/trust"
)

// Trust is why a boot image is believed.
type Trust struct {
	Basis Basis
	// By is who vouches for it: the distribution whose signature it has.
	By string
	// Where the image was found, for people: a path.
	Where string
	// Unsigned is why it is not believed for its signature; nil if it is.
	Unsigned error
}

// Basis is what trust in a reference rests on.
type Basis uint8

// The bases, the strongest last.
const (
	// MemoryAlone: there is no image. The guest's memory can only be compared with itself.
	MemoryAlone Basis = iota
	// GuestFile: a file of the guest's own, which whoever owns the guest can change.
	GuestFile
	// HostFile: the file that the host boots the guest with.
	HostFile
	// UserFile: the user said that this is the reference.
	UserFile
	// Signed: a distribution's signature, wherever the file was found.
	Signed
)

func (t Trust) String() string {
	switch t.Basis {
	case GuestFile:
		return "the guest's own file " + t.Where
	case HostFile:
		return "the host's file " + t.Where
	case UserFile:
		return "the reference " + t.Where
	case Signed:
		who, signer, _ := strings.Cut(t.By, " (")
		if signer == "" {
			return who + "'s signature on " + t.Where
		}
		return who + "'s signature (" + signer + " on " + t.Where
	}
	return "the guest's memory alone"
}

// ErrNone says that a source has no image of a kernel.
var ErrNone = errors.New("no boot image of this kernel is known")

// ErrOther says that what should be a kernel's image is another's.
var ErrOther = errors.New("boot image of another kernel")

// Source gives boot images.
type Source interface {
	// Image is the image of the kernel with that build-id. Errors wrap [ErrNone] if the
	// source works, but does not have it, and [ErrOther] if it should.
	Image(ctx context.Context, buildID string) (*Image, Trust, error)
}

// File is a source of one file.
type File struct {
	Path  string
	Basis Basis // if it has no signature
	// Authorities are those whose signatures are believed; nil: the distributions that are
	// built in.
	Authorities []trust.Authority
}

// Image implements [Source].
func (f File) Image(_ context.Context, buildID string) (*Image, Trust, error) {
	b, err := readFile(f.Path)
	if err != nil {
		return nil, Trust{}, err
	}
	im, t, err := Read(b, Trust{Basis: f.Basis, Where: f.Path}, f.Authorities)
	if err != nil {
		return nil, Trust{}, err
	}
	if im.BuildID == "" || im.BuildID != buildID {
		return nil, Trust{}, fmt.Errorf("%s: %w: it is %s with build-id %s, the guest's is %s", f.Path, ErrOther, im.Release, im.BuildID, buildID)
	}
	return im, t, nil
}

// Read reads a boot image, and finds who vouches for it. t says where it is from, and what it
// is believed for if no signature of the authorities does; nil stands for the distributions
// that are built in.
func Read(b []byte, t Trust, authorities []trust.Authority) (*Image, Trust, error) {
	if authorities == nil {
		authorities = trust.Authorities()
	}
	signature, err := trust.Verify(b, authorities)
	if err == nil {
		// What is behind the signed part is not looked at.
		t.Basis, t.By, b = Signed, signature.String(), trust.Signed(b)
	}
	t.Unsigned = err
	im, err := parse(b)
	if err != nil && t.Where != "" {
		err = fmt.Errorf("%s: %w", t.Where, err)
	}
	return im, t, err
}

// Sources are several, the best first. The first that has an image gives it. If none has,
// the error is that of the first that failed otherwise than by having none.
type Sources []Source

// Image implements [Source].
func (all Sources) Image(ctx context.Context, buildID string) (*Image, Trust, error) {
	err := ErrNone
	for _, s := range all {
		im, trust, e := s.Image(ctx, buildID)
		if e == nil {
			return im, trust, nil
		}
		if errors.Is(err, ErrNone) {
			err = e
		}
	}
	return nil, Trust{}, err
}
