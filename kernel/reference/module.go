package reference

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/outsight-vmi/outsight/kernel/image"
)

// A module is kept packed by zstd, behind a skippable frame that holds its metadata: so it is
// one file, which is replaced in one step, and zstd -d reads it too.

const (
	frameMagic  = 0x184d2a50 // of a skippable frame (RFC 8878, 3.1.2)
	frameHeader = 8
)

var packer = sync.OnceValues(func() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
})

// writeModule stores a module.
func (s *Store) writeModule(e *Entry, b []byte) error {
	z, err := packer()
	if err != nil {
		return err
	}
	meta, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if len(meta) > maxMeta {
		return fmt.Errorf("metadata of %d bytes", len(meta))
	}
	head := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, frameMagic), uint32(len(meta)))
	return s.write(modulesDir, filepath.Base(e.path), head, meta, z.EncodeAll(b, nil))
}

// readModuleHead reads the metadata of a module from the beginning of its file.
func readModuleHead(f io.Reader) (*Entry, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(f, h[:]); err != nil {
		return nil, errors.Join(errMeta, err)
	}
	n := binary.LittleEndian.Uint32(h[4:])
	if binary.LittleEndian.Uint32(h[:]) != frameMagic || n > maxMeta {
		return nil, errMeta
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, errors.Join(errMeta, err)
	}
	var e Entry
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, errors.Join(errMeta, err)
	}
	return &e, nil
}

func readModuleMeta(name string) (*Entry, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return moduleEntry(f, name)
}

func moduleEntry(f io.Reader, name string) (*Entry, error) {
	e, err := readModuleHead(f)
	if err != nil {
		return nil, err
	}
	if e.path = name; filepath.Base(name) != e.ID+moduleEnd {
		return nil, errMeta
	}
	return e, nil
}

// readModule reads a module of the store.
func readModule(name string) (*Entry, []byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	e, err := moduleEntry(f, name)
	if err != nil {
		return nil, nil, err
	}
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxModule))
	if err != nil {
		return nil, nil, err
	}
	defer z.Close()
	if e.Size < 0 || e.Size > maxModule {
		return nil, nil, errMeta
	}
	b := make([]byte, e.Size)
	if _, err := io.ReadFull(z, b); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", image.ErrModule, err)
	}
	return e, b, nil
}

// keysFor are the keys in the kernel of a release: in that of several which is signed.
func (s *Store) keysFor(ctx context.Context, release string) kernelKeys {
	none := kernelKeys{err: fmt.Errorf("kernel %s is not in the store: %w", release, image.ErrNone)}
	kernels, err := s.List(Kernel)
	if err != nil {
		none.err = err
	}
	for _, e := range kernels {
		if e.Release != release {
			continue
		}
		k := s.keysOf(ctx, e.ID)
		if k.err == nil {
			return k
		}
		none = k
	}
	return none
}
