package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func write(path string, b []byte) { check(os.WriteFile(path, b, 0o644)) }

func random(seed, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(n)}).Read(b) // it never fails
	return b
}

// may takes what a file system cannot do.
func may(err error) {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSPC) {
		return
	}
	check(err)
}

func fill(dir string, n int) {
	in := func(name string) string { return filepath.Join(dir, name) }
	for i, size := range []int{0, 1, 100, 511, 512, 513, 4095, 4096, 4097, 70_000, 1_000_003} {
		write(in(fmt.Sprintf("file%d", size)), random(i, size))
	}
	extents(in, n)
	attributes(in)
	special(in)
	times(in)
	names(in, n)
	flags(in)
}

// extents makes files in many pieces, with holes, with room that was never written, and with shared blocks.
func extents(in func(string) string, n int) {
	for _, file := range []struct {
		name        string
		count, step int
	}{{"few-extents", 5, 8192}, {"many-extents", n, 8192}, {"far-extents", 20, 1 << 33}} {
		f, err := os.Create(in(file.name))
		check(err)
		for i := range file.count {
			_, err = f.WriteAt(random(i, 700), int64(i)*int64(file.step))
			check(err)
		}
		check(f.Close())
	}
	f, err := os.Create(in("unwritten"))
	check(err)
	check(unix.Fallocate(int(f.Fd()), 0, 0, 1<<20))
	for i := range 16 {
		_, err = f.WriteAt(random(i, 5000), int64(i)*65536+100)
		check(err)
	}
	check(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 1<<20, 1<<20))
	check(f.Close())
	f, err = os.Create(in("punched"))
	check(err)
	_, err = f.Write(random(77, 1<<20))
	check(err)
	check(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, 100_000, 300_000))
	check(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_ZERO_RANGE, 600_000, 100_000))
	clone, err := os.Create(in("clone"))
	check(err)
	err = unix.IoctlFileClone(int(clone.Fd()), int(f.Fd()))
	may(err)
	if err == nil {
		_, err = clone.WriteAt([]byte("no longer shared"), 500_000)
		check(err)
	}
	check(f.Close())
	check(clone.Close())
	check(os.Truncate(in("file70000"), 50_001))
	check(os.Truncate(in("file4097"), 1<<40))
}

func attributes(in func(string) string) {
	set := func(path, name string, value []byte) { may(unix.Lsetxattr(path, name, value, 0)) }
	for _, name := range []string{"few-attributes", "attributes", "many-attributes", "large-attributes"} {
		write(in(name), []byte(name))
	}
	set(in("few-attributes"), "user.empty", nil)
	set(in("few-attributes"), "user.short", []byte("value"))
	set(in("few-attributes"), "trusted.overlay.opaque", []byte("y"))
	for i := range 20 {
		set(in("attributes"), fmt.Sprintf("user.name%d", i), random(i, i*5))
	}
	for i := range 300 {
		set(in("many-attributes"), []string{"user.", "trusted.", "security."}[i%3]+strings.Repeat("n", i%240)+fmt.Sprint(i), random(i, i%97))
		if i%7 == 3 {
			check(unix.Lremovexattr(in("many-attributes"), "user."+strings.Repeat("n", 0)+"0"))
			set(in("many-attributes"), "user.0", random(i, 40))
		}
	}
	for i, size := range []int{2000, 5000, 20_000, 40_000, 65_536} {
		set(in("large-attributes"), fmt.Sprintf("user.large%d", size), random(i, size))
	}
	acl := []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x06\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x06\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff")
	set(in("attributes"), "system.posix_acl_access", acl)
	check(os.Mkdir(in("acl"), 0o755))
	set(in("acl"), "system.posix_acl_default", acl)
	write(in("acl/inherits"), nil)
}

func special(in func(string) string) {
	for _, size := range []int{1, 59, 60, 100, 300, 336, 337, 500, 1000, 1023} {
		check(os.Symlink(strings.Repeat("0123456/", 128)[:size], in(fmt.Sprintf("link%d", size))))
	}
	check(unix.Mknod(in("char"), unix.S_IFCHR|0o622, int(unix.Mkdev(511, 1<<17+5))))
	check(unix.Mknod(in("block"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 3))))
	check(unix.Mknod(in("fifo"), unix.S_IFIFO|0o600, 0))
	check(unix.Mknod(in("socket"), unix.S_IFSOCK|0o700, 0))
	check(os.Link(in("file513"), in("hard-link")))
	check(os.Chown(in("file1"), 4_000_000_000, 70_000))
	check(unix.Chmod(in("file100"), 0o7751))
}

func times(in func(string) string) {
	for _, year := range []int{1902, 1969, 1970, 2037, 2105, 2400} {
		path := in(fmt.Sprintf("year%d", year))
		write(path, nil)
		at := time.Date(year, 5, 6, 7, 8, 9, 123_456_789, time.UTC)
		check(os.Chtimes(path, at, at.Add(time.Hour+1)))
	}
}

// names makes directories of all sizes, and takes some names out again.
func names(in func(string) string, n int) {
	for _, count := range []int{0, 3, 30, 300, n} {
		dir := in(fmt.Sprintf("names%d", count))
		check(os.Mkdir(dir, 0o2775))
		name := func(i int) string {
			return filepath.Join(dir, fmt.Sprintf("%d-%s", i, bytes.Repeat([]byte{byte('a' + i%26)}, i%61*(1+i%4))))
		}
		for i := range count {
			if i%3 == 0 {
				check(os.Symlink("x", name(i)))
			} else {
				check(unix.Mknod(name(i), unix.S_IFREG|0o644, 0))
			}
		}
		for i := 0; i < count; i += 5 {
			check(os.Remove(name(i)))
		}
		for i := 0; i < count; i += 20 {
			check(os.Mkdir(name(i), 0o700))
		}
	}
	deep := in("deep")
	for range 30 {
		check(os.Mkdir(deep, 0o755))
		deep = filepath.Join(deep, strings.Repeat("d", 100))
	}
	write(in(strings.Repeat("\xe2\x82\xac", 85)), []byte("255 bytes"))
	write(in("\x01\xff \n"), []byte("any bytes"))
}

func flags(in func(string) string) {
	for name, flag := range map[string]int{"immutable": flagImmutable, "append": flagAppend} {
		write(in(name), []byte(name))
		f, err := os.Open(in(name))
		check(err)
		check(unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flag))
		check(f.Close())
	}
	write(in("project"), nil)
	f, err := os.Open(in("project"))
	check(err)
	x, err := fsxattr(f)
	check(err)
	x[3] = 3_000_000_000
	may(setFSXattr(f, x))
	check(f.Close())
}

// change does again much of what fill has done, elsewhere, and undoes some of it.
func change(dir string, n int) {
	check(os.Mkdir(filepath.Join(dir, "changed"), 0o755))
	fill(filepath.Join(dir, "changed"), n)
	unix.Sync() // so that the log has several transactions
	check(os.RemoveAll(filepath.Join(dir, "names300")))
	unix.Sync()
	check(os.RemoveAll(filepath.Join(dir, "deep")))
	check(os.Rename(filepath.Join(dir, "names30"), filepath.Join(dir, "changed", "moved")))
	for _, name := range []string{"many-attributes", "many-extents", "link1000", "clone"} {
		check(os.Remove(filepath.Join(dir, name)))
	}
	for i := range 200 {
		write(filepath.Join(dir, fmt.Sprintf("new%d", i)), random(i, i*37))
	}
	for i := 0; i < 200; i += 3 {
		check(os.Remove(filepath.Join(dir, fmt.Sprintf("new%d", i))))
	}
	unix.Sync()
	f, err := os.OpenFile(filepath.Join(dir, "unwritten"), os.O_RDWR, 0)
	check(err)
	_, err = f.WriteAt(random(5, 100_000), 3000)
	check(err)
	check(f.Close())
	check(unix.Lsetxattr(filepath.Join(dir, "attributes"), "user.name3", []byte("changed"), 0))
	unix.Sync()
}

// hold keeps deleted files open.
func hold(dir string) {
	var open []*os.File
	for i := range 150 {
		path := filepath.Join(dir, fmt.Sprintf("held%d", i))
		f, err := os.Create(path)
		check(err)
		_, err = fmt.Fprintf(f, "deleted and open: %d", i)
		check(err)
		check(os.Remove(path))
		open = append(open, f)
	}
	for i := 0; i < len(open); i += 7 {
		check(open[i].Close())
	}
	unix.Sync()
	fmt.Println("READY")
	time.Sleep(time.Hour)
	for _, f := range open {
		_ = f.Close() // they end with the guest
	}
}
