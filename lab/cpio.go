package lab

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// A cpioWriter writes an archive in the "newc" format that Linux unpacks as its initramfs.
// Archives may follow one another; the kernel unpacks them all. Directories that lead to
// an entry are made as needed. (The library at hand, cavaliergopher/cpio 1.0.1, writes no
// device numbers: /dev/console would not open.)
type cpioWriter struct {
	w    io.Writer
	made map[string]bool
	ino  uint32
	err  error
}

func newCPIOWriter(w io.Writer) *cpioWriter {
	return &cpioWriter{w: w, made: map[string]bool{".": true}}
}

// File types of newc, as in stat(2).
const (
	typeDir  = 0o040000
	typeChar = 0o020000
	typeFile = 0o100000
	typeLink = 0o120000
)

func (c *cpioWriter) dir(name string) { c.parents(path.Join(clean(name), "x")) }
func (c *cpioWriter) file(name string, perm uint32, data string) {
	c.entry(name, typeFile|perm, 0, 0, int64(len(data)), strings.NewReader(data))
}

func (c *cpioWriter) link(name, target string) {
	c.entry(name, typeLink|0o777, 0, 0, int64(len(target)), strings.NewReader(target))
}

func (c *cpioWriter) char(name string, perm, major, minor uint32) {
	c.entry(name, typeChar|perm, major, minor, 0, nil)
}

// hostFile copies a file of the host, following links.
func (c *cpioWriter) hostFile(name, host string) {
	if c.err != nil {
		return
	}
	f, err := os.Open(host)
	if err != nil {
		c.err = err
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		c.err = err
		return
	}
	if !st.Mode().IsRegular() {
		c.err = fmt.Errorf("%s is not a regular file", host)
		return
	}
	c.entry(name, typeFile|uint32(st.Mode()&fs.ModePerm), 0, 0, st.Size(), f)
}

// close ends the archive.
func (c *cpioWriter) close() error {
	c.entry("TRAILER!!!", 0, 0, 0, 0, nil)
	return c.err
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (c *cpioWriter) parents(name string) {
	var missing []string
	for dir := path.Dir(name); !c.made[dir]; dir = path.Dir(dir) {
		c.made[dir] = true
		missing = append(missing, dir)
	}
	slices.Reverse(missing)
	for _, dir := range missing {
		c.header(dir, typeDir|0o755, 0, 0, 0)
	}
}

func (c *cpioWriter) entry(name string, mode, major, minor uint32, size int64, data io.Reader) {
	name = clean(name)
	c.parents(name)
	if size > 1<<32-1 && c.err == nil {
		c.err = fmt.Errorf("%s has %d bytes: an initramfs takes files below 4 GiB", name, size)
	}
	c.header(name, mode, major, minor, uint32(size))
	if c.err != nil || size == 0 {
		return
	}
	if _, c.err = io.CopyN(c.w, data, size); c.err == nil {
		c.pad(size)
	}
}

func (c *cpioWriter) header(name string, mode, major, minor, size uint32) {
	if c.err != nil {
		return
	}
	c.ino++
	// magic, ino, mode, uid, gid, nlink, mtime, size, dev (2), rdev (2), name length, checksum.
	// The time is zero: the same content gives the same archive.
	_, c.err = fmt.Fprintf(c.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.ino, mode, 0, 0, 1, 0, size, 0, 0, major, minor, len(name)+1, 0, name)
	c.pad(int64(110 + len(name) + 1))
}

// pad fills up to a multiple of four: each part of an archive has its length padded.
func (c *cpioWriter) pad(n int64) {
	if c.err == nil && n%4 != 0 {
		_, c.err = c.w.Write(make([]byte, 4-n%4))
	}
}
