package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Entry is what is said of each file. Names and values may be any bytes.
type Entry struct {
	Path                  []byte
	Inode                 uint64
	Mode, UID, GID, Links uint32
	Project, Generation   uint32
	Immutable, Append     bool
	Size, Blocks          int64
	Major, Minor          uint32
	Times                 [4][2]int64       // accessed, modified, changed, born
	Target                []byte            `json:",omitempty"`
	Sum                   string            `json:",omitempty"` // of a file's content: where it is large, of its pieces that are not holes
	Attributes            map[string][]byte `json:",omitempty"`
}

func list(dir, to string) {
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o644)
	check(err)
	w := bufio.NewWriterSize(out, 1<<20)
	j := json.NewEncoder(w)
	check(filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		check(err)
		return j.Encode(entry(dir, path))
	}))
	check(w.WriteByte(0))
	check(w.Flush())
	check(out.Sync())
	check(out.Close())
}

func entry(dir, path string) *Entry {
	var x unix.Statx_t
	check(unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_ALL|unix.STATX_BTIME, &x))
	relative, err := filepath.Rel(dir, path)
	check(err)
	e := &Entry{
		Path: []byte(relative), Inode: x.Ino, Mode: uint32(x.Mode), UID: x.Uid, GID: x.Gid, Links: x.Nlink,
		Size: int64(x.Size), Blocks: int64(x.Blocks), Major: x.Rdev_major, Minor: x.Rdev_minor,
	}
	for i, t := range []unix.StatxTimestamp{x.Atime, x.Mtime, x.Ctime, x.Btime} {
		if i < 3 || x.Mask&unix.STATX_BTIME != 0 {
			e.Times[i] = [2]int64{t.Sec, int64(t.Nsec)}
		}
	}
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		check(err)
		e.Target = []byte(target)
	case unix.S_IFREG, unix.S_IFDIR:
		f, err := os.Open(path)
		check(err)
		defer f.Close()
		if e.Mode&unix.S_IFMT == unix.S_IFREG {
			e.Sum = sum(f, e.Size)
		}
		e.flags(f)
	}
	e.attributes(path)
	return e
}

func (e *Entry) flags(f *os.File) {
	version, err := unix.IoctlGetInt(int(f.Fd()), getVersion)
	may(err)
	e.Generation = uint32(version)
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	may(err)
	e.Immutable, e.Append = flags&flagImmutable != 0, flags&flagAppend != 0
	x, err := fsxattr(f)
	may(err)
	e.Project = x[3]
}

func (e *Entry) attributes(path string) {
	b, value := make([]byte, 64<<10), make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, b)
	may(err)
	for _, name := range bytes.Split(b[:max(n, 0)], []byte{0}) {
		if len(name) == 0 {
			continue
		}
		n, err := unix.Lgetxattr(path, string(name), value)
		check(err)
		if e.Attributes == nil {
			e.Attributes = map[string][]byte{}
		}
		e.Attributes[string(name)] = bytes.Clone(value[:n])
		if n > 200 {
			e.Attributes[string(name)] = fmt.Appendf(nil, "%x", sha256.Sum256(value[:n]))
		}
	}
}

// small is how large a file is of which all is read.
const small = 64 << 20

func sum(f *os.File, size int64) string {
	h := sha256.New()
	if size <= small {
		_, err := io.Copy(h, f)
		check(err)
		return fmt.Sprintf("%x", h.Sum(nil))
	}
	// The first bytes of each GiB: what is in between are holes.
	b := make([]byte, 4096)
	for at := int64(0); at < size; at += 1 << 30 {
		n, err := f.ReadAt(b, at)
		if err != io.EOF {
			check(err)
		}
		h.Write(b[:n])
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
