package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Debian package is an ar archive of few members (deb(5)), of which data.tar, packed,
// holds the files.

const (
	arMagic    = "!<arch>\n"
	arHeader   = 60
	arSize     = 48 // of the member, in decimal, ten bytes
	arEnd      = 58 // "`\n"
	maxMembers = 64 // dpkg-deb writes three
)

func (w *walker) deb(r io.ReaderAt, size int64) error {
	at := int64(len(arMagic))
	for range maxMembers {
		name, length, err := arMember(r, at, size)
		if err != nil {
			return err
		}
		at += arHeader
		if name == "data.tar" || strings.HasPrefix(name, "data.tar.") {
			return w.tar(io.NewSectionReader(r, at, length))
		}
		at += length + length&1
	}
	return fmt.Errorf("%w: no data.tar among its first %d members", ErrDamaged, maxMembers)
}

// arMember reads the header of the member of an ar archive that begins at at.
func arMember(r io.ReaderAt, at, size int64) (name string, length int64, err error) {
	h := make([]byte, arHeader)
	if at > size-arHeader {
		return "", 0, fmt.Errorf("%w: it ends without a data.tar", ErrDamaged)
	}
	if _, err := r.ReadAt(h, at); err != nil {
		return "", 0, fmt.Errorf("read the package: %w", err)
	}
	// Unsigned: a negative length would lead back.
	n, err := strconv.ParseUint(string(bytes.TrimRight(h[arSize:arEnd], " ")), 10, 63)
	if err != nil || string(h[arEnd:]) != "`\n" || int64(n) > size-at-arHeader {
		return "", 0, fmt.Errorf("%w: invalid member of the archive at %#x", ErrDamaged, at)
	}
	return strings.TrimSuffix(string(bytes.TrimRight(h[:16], " ")), "/"), int64(n), nil
}

func (w *walker) tar(r io.Reader) error {
	p, err := w.payload(r)
	if err != nil {
		return err
	}
	defer p.Close()
	files := tar.NewReader(p)
	for {
		h, err := files.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return damaged(err)
		}
		if err := w.entry(); err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := w.file(h.Name, h.Size, files); err != nil {
			return err
		}
	}
}

// damaged says what an error in the middle of a package means.
func damaged(err error) error {
	if errors.Is(err, ErrBudget) || errors.Is(err, ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}
