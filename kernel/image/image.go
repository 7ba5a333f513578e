// Package image reads Linux boot images: the file that a guest was booted from, as the
// reference for what its kernel should look like in memory.
//
// A vmlinuz holds, compressed, an ELF file without symbols, and behind it the list of
// what KASLR has to adjust. All tables of places that the kernel patches in itself are
// still in it (see [Image.Sites]). So no debug package is needed to know which bytes of a
// running kernel's text are its own.
//
// A file may be hostile: every size is checked before anything is allocated.
package image

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/kernel/kallsyms"
	"github.com/outsight-vmi/outsight/phys/note"
)

const (
	// maxFile bounds a boot image, maxImage what it unpacks to. The kernel's image may
	// take 1 GiB of addresses (KERNEL_IMAGE_SIZE); those of distributions take 50 to 100 MiB.
	maxFile  = 256 << 20
	maxImage = 512 << 20
)

// ErrFormat says that a file is not a boot image of an x86-64 kernel.
var ErrFormat = errors.New("not a boot image of an x86-64 kernel")

// Image is a kernel as it was built. It is safe for concurrent use.
type Image struct {
	Release     string // as uname -r prints it; empty if the image does not say
	BuildID     string // lower-case hex; empty if the kernel has none
	Compression string // of the payload; empty for a plain vmlinux

	data     []byte // the ELF file; nil of an image that was kept
	kept     *kept
	end      uint64 // of the ELF file: behind it come the relocations
	sections []Section
	relocs   relocs
	symbols  func() (*kallsyms.Table, error)
}

// Open reads a boot image: a vmlinuz (bzImage) or a vmlinux (ELF) of size bytes.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	b, err := read(r, size)
	if err != nil {
		return nil, err
	}
	return parse(b)
}

// OpenFile opens the boot image of that name.
func OpenFile(name string) (*Image, error) {
	b, err := readFile(name)
	if err != nil {
		return nil, err
	}
	im, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return im, nil
}

// readFile reads a file that may be a boot image.
func readFile(name string) ([]byte, error) {
	// A pipe would never open.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("boot image: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("boot image: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("boot image %s: not a regular file", name)
	}
	return read(f, st.Size())
}

func read(r io.ReaderAt, size int64) ([]byte, error) {
	if size > maxFile {
		return nil, fmt.Errorf("%w: it has %d bytes, more than the %d MiB that are read", ErrFormat, size, maxFile>>20)
	}
	b := allocate(int(size))
	if n, err := r.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("boot image: %w", err)
	}
	return b, nil
}

func parse(b []byte) (*Image, error) {
	im := &Image{data: b}
	if !bytes.HasPrefix(b, []byte("\x7fELF")) {
		payload, err := payloadOf(b)
		if err != nil {
			return nil, err
		}
		if im.data, im.Compression, err = unpack(payload); err != nil {
			return nil, err
		}
		im.Release = headerRelease(b)
	}
	var err error
	if im.end, err = im.parseELF(); err != nil {
		return nil, err
	}
	if im.Compression != "" {
		if im.relocs, err = parseRelocs(im.data[im.end:]); err != nil {
			return nil, err
		}
	}
	if s, ok := im.Section(".notes"); ok {
		im.BuildID = hex.EncodeToString(note.BuildID(im.bytes(s), binary.LittleEndian, 4))
	}
	if im.Release == "" {
		im.Release = im.bannerRelease()
	}
	im.symbols = sync.OnceValues(im.findSymbols)
	return im, nil
}

// Offsets in a bzImage's setup header (Documentation/arch/x86/boot.rst).
const (
	setupSects    = 0x1f1
	setupMagic    = 0x202 // "HdrS"
	setupVersion  = 0x206
	kernelVersion = 0x20e // of a string, less 0x200
	payloadOffset = 0x248 // since protocol 2.08
	payloadLength = 0x24c
	setupEnd      = 0x250
)

// payloadOf finds the compressed kernel in a bzImage.
func payloadOf(b []byte) ([]byte, error) {
	if len(b) < setupEnd || string(b[setupMagic:setupMagic+4]) != "HdrS" {
		return nil, fmt.Errorf("%w: neither ELF nor a bzImage", ErrFormat)
	}
	if v := binary.LittleEndian.Uint16(b[setupVersion:]); v < 0x208 {
		return nil, fmt.Errorf("%w: boot protocol %#x is older than Linux 2.6.26", ErrFormat, v)
	}
	sects := uint64(b[setupSects])
	if sects == 0 {
		sects = 4
	}
	start := (sects+1)*512 + uint64(binary.LittleEndian.Uint32(b[payloadOffset:]))
	n := uint64(binary.LittleEndian.Uint32(b[payloadLength:]))
	if start > uint64(len(b)) || n > uint64(len(b))-start || n < 16 {
		return nil, fmt.Errorf("%w: payload of %d bytes at %#x reaches beyond its end: the file is cut off", ErrFormat, n, start)
	}
	return b[start : start+n], nil
}

// ReleaseOf is the release that a bzImage names in its header, of which b is the beginning;
// empty if it is none, or names none there.
func ReleaseOf(b []byte) string {
	if len(b) < setupEnd || string(b[setupMagic:setupMagic+4]) != "HdrS" {
		return ""
	}
	return headerRelease(b)
}

// headerRelease is the release that a bzImage's header names.
func headerRelease(b []byte) string {
	at := 0x200 + int(binary.LittleEndian.Uint16(b[kernelVersion:]))
	if at == 0x200 || at >= len(b) {
		return ""
	}
	text := b[at:min(len(b), at+256)]
	if i := bytes.IndexAny(text, "\x00 "); i > 0 {
		return string(text[:i])
	}
	return ""
}

// bannerRelease is the release that the kernel's banner names (init/version.c).
func (im *Image) bannerRelease() string {
	s, _ := im.Section(".rodata")
	const start = "Linux version "
	for b := im.bytes(s); ; {
		i := bytes.Index(b, []byte(start))
		if i < 0 {
			return ""
		}
		b = b[i+len(start):]
		// A format for printk has a % there.
		if n := bytes.IndexAny(b[:min(len(b), 256)], " %\x00\n"); n > 0 && b[n] == ' ' {
			return string(b[:n])
		}
	}
}

// Symbols is the kernel's symbol table, as it is in the image: what the guest's memory
// says of itself has no part in it.
func (im *Image) Symbols() (*kallsyms.Table, error) { return im.symbols() }

func (im *Image) findSymbols() (*kallsyms.Table, error) {
	s, ok := im.Section(".rodata")
	if !ok {
		return nil, errors.New("boot image has no .rodata: no symbol table")
	}
	b := im.bytes(s)
	for p := kallsyms.NextIndex(b, 0); p >= 0; p = kallsyms.NextIndex(b, p+4) {
		if t, err := kallsyms.Find(b, p); err == nil {
			return t, nil
		}
	}
	return nil, errors.New("boot image holds no symbol table: its kernel was built without CONFIG_KALLSYMS")
}
