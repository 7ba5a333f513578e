// Package archive reads the files in which distributions publish kernels: Debian packages,
// RPM packages, and files that are packed by themselves.
//
// A package may be hostile. It is read as a stream, within a [Budget]: of files, of bytes
// that it unpacks to, of the memory that unpacking takes. No name in it is ever used as a
// path here.
package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
)

var (
	// ErrFormat says that a file is not a package.
	ErrFormat = errors.New("not a .deb or .rpm package")
	// ErrDamaged says that a package or a packed file is cut off or contradicts itself.
	ErrDamaged = errors.New("the file is damaged")
	// ErrBudget says that a package unpacks to more than it may.
	ErrBudget = errors.New("the package unpacks to more than is read")
)

// Budget bounds what is read of one package.
type Budget struct {
	Files int   // entries of any kind
	Bytes int64 // that it unpacks to
}

// DefaultBudget has room for a kernel with its debug information: Debian's takes 6 GiB.
var DefaultBudget = Budget{Files: 200_000, Bytes: 16 << 30}

// File is a regular file of a package. Its content is there until the next is asked for.
type File struct {
	Name string // as the package has it: for people, and to choose by; never a path to write to
	Size int64  // as the package says
	io.Reader
}

// Base is the last part of the name.
func (f *File) Base() string { return path.Base(f.Name) }

// Walk visits the regular files of a package of size bytes, in their order.
func Walk(ctx context.Context, r io.ReaderAt, size int64, b Budget, visit func(*File) error) error {
	head := make([]byte, min(size, 8))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the package: %w", err)
	}
	w := &walker{ctx: ctx, budget: b, visit: visit}
	switch {
	case bytes.HasPrefix(head, []byte(arMagic)):
		return w.deb(r, size)
	case bytes.HasPrefix(head, []byte(rpmMagic)):
		return w.rpm(r, size)
	}
	return ErrFormat
}

// walker is one walk.
type walker struct {
	ctx    context.Context
	budget Budget
	visit  func(*File) error
}

// entry counts an entry of the package.
func (w *walker) entry() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if w.budget.Files--; w.budget.Files < 0 {
		return fmt.Errorf("%w: too many files", ErrBudget)
	}
	return nil
}

// file has a file visited.
func (w *walker) file(name string, size int64, r io.Reader) error {
	return w.visit(&File{Name: name, Size: size, Reader: r})
}

// payload unpacks the payload of a package within the budget.
func (w *walker) payload(r io.Reader) (io.ReadCloser, error) {
	u, err := Unpack(r)
	if err != nil {
		return nil, err
	}
	return &limited{ReadCloser: u, w: w}, nil
}

// limited ends with an error once the budget is spent, or who waits for it has gone.
type limited struct {
	io.ReadCloser
	w *walker
}

func (l *limited) Read(p []byte) (int, error) {
	if err := l.w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := l.ReadCloser.Read(p)
	if l.w.budget.Bytes -= int64(n); l.w.budget.Bytes < 0 {
		return 0, fmt.Errorf("%w: too many bytes", ErrBudget)
	}
	return n, err
}
