package reference

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/kernel/image/trust"
)

// ErrChanged says that a file of the store is not what was added.
var ErrChanged = errors.New("the file was changed since it was added")

// Verdict is what the signature of a stored file says now.
type Verdict struct {
	*Entry
	By  string // who vouches for it; empty if nobody who is known does
	Err error  // why nobody does
}

// Verify verifies entries again, or all kernels and modules: that each file is what was added,
// and its signature. A module's counts if it is by a key in a signed kernel of its release. An
// error is of what could not be read.
func (s *Store) Verify(ctx context.Context, entries ...*Entry) iter.Seq2[Verdict, error] {
	return func(yield func(Verdict, error) bool) {
		if len(entries) == 0 {
			var err error
			if entries, err = s.List(Kernel, Module); err != nil && !yield(Verdict{}, err) {
				return
			}
		}
		authorities := s.Authorities()
		keys := map[string]kernelKeys{}
		for _, e := range entries {
			if ctx.Err() != nil {
				yield(Verdict{}, ctx.Err())
				return
			}
			v := Verdict{Entry: e}
			switch e.Kind {
			case Kernel:
				v.By, v.Err = verifyKernel(e, authorities)
			case Module:
				k, ok := keys[e.Release]
				if !ok {
					k = s.keysFor(ctx, e.Release)
					keys[e.Release] = k
				}
				v.By, v.Err = verifyModule(e, k)
			default:
				continue // it is who vouches for others
			}
			if !yield(v, nil) {
				return
			}
		}
	}
}

// SignedBy says who vouches for a kernel by its signature.
func (s *Store) SignedBy(e *Entry) (by string, err error) {
	b, err := readBounded(e.path)
	if err != nil {
		return "", err
	}
	signature, err := trust.Verify(b, s.Authorities())
	if err != nil {
		return "", err
	}
	return signature.String(), nil
}

func verifyKernel(e *Entry, authorities []trust.Authority) (by string, err error) {
	b, err := readBounded(e.path)
	if err != nil {
		return "", err
	}
	if err := same(e, b); err != nil {
		return "", err
	}
	im, t, err := image.Read(b, image.Trust{Where: e.Title()}, authorities)
	switch {
	case err != nil:
		return "", err
	case im.BuildID != e.ID:
		return "", fmt.Errorf("%w: its build-id is %s", ErrChanged, im.BuildID)
	}
	return t.By, t.Unsigned
}

func verifyModule(e *Entry, k kernelKeys) (by string, err error) {
	_, b, err := readModule(e.path)
	if err != nil {
		return "", err
	}
	if err := same(e, b); err != nil {
		return "", err
	}
	return k.verify(b)
}

// same says whether a file is the one that was added. Its signature says more: this is for
// those that have none.
func same(e *Entry, b []byte) error {
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != e.SHA256 {
		return fmt.Errorf("%w: its SHA-256 is %x, it was %s", ErrChanged, sum, e.SHA256)
	}
	return nil
}
