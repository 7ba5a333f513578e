package main

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() {
	views["pagecache"] = func(emit func(any) error) error {
		return eachOnlyName(func(path string, st *unix.Stat_t, _ int64) error {
			cached, err := inMemory(path, st)
			if err != nil || cached == 0 {
				return nil //nolint:nilerr // it has gone, or is not for reading
			}
			return emit(map[string]any{
				"path": procsText(path), "device": devText(st.Dev), "inode": st.Ino, "size": st.Size, "cached": cached,
				"deleted": false, "mounted": true,
			})
		})
	}
	views["tmpfs"] = func(emit func(any) error) error {
		return eachOnlyName(func(path string, st *unix.Stat_t, kind int64) error {
			if kind != unix.TMPFS_MAGIC && kind != unix.RAMFS_MAGIC {
				return nil
			}
			// What was last read is not told: looking at directories is reading.
			row := map[string]any{
				"path": procsText(path), "device": devText(st.Dev), "inode": st.Ino, "mode": st.Mode, "links": st.Nlink,
				"uid": st.Uid, "gid": st.Gid, "size": st.Size, "deleted": false, "mounted": true,
				"modified": stamp(st.Mtim), "changed": stamp(st.Ctim),
			}
			if st.Mode&unix.S_IFMT == unix.S_IFREG {
				cached, err := inMemory(path, st)
				if err != nil {
					return nil //nolint:nilerr // it has gone, or is not for reading
				}
				row["resident"] = cached
				if kind == unix.TMPFS_MAGIC { // it counts blocks: what is in memory or in swap
					row["swapped"] = max(st.Blocks*512-cached, 0)
				}
			}
			return emit(row)
		})
	}
}

func stamp(t unix.Timespec) string { return time.Unix(t.Unix()).UTC().Format(time.RFC3339Nano) }

// eachOnlyName calls f for the files that have one name in all that is mounted here,
// with the magic number of the file system: those with more can be shown by any.
func eachOnlyName(f func(path string, st *unix.Stat_t, kind int64) error) error {
	leases, err := os.ReadFile("/proc/locks")
	if err != nil {
		return err
	}
	names := map[[2]uint64]string{}
	kinds := map[uint64]int64{}
	err = filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err != nil || unix.Lstat(path, &st) != nil {
			return nil //nolint:nilerr // it has gone
		}
		kind, known := kinds[st.Dev]
		if !known {
			var s unix.Statfs_t
			if unix.Statfs(path, &s) == nil {
				kind = s.Type
			}
			kinds[st.Dev] = kind
		}
		switch {
		case !slices.Contains([]int64{unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.EXT4_SUPER_MAGIC}, kind), path == "/usr/share", path == "/usr/lib", path == "/var/lib":
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		// To open what has a lease would end it. A line ends in device:inode first last.
		key := [2]uint64{st.Dev, st.Ino}
		if _, twice := names[key]; twice || strings.Contains(string(leases), "LEASE") && leased(string(leases), st.Ino) {
			path = ""
		}
		names[key] = path
		return nil
	})
	if err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Values(names)) {
		var st unix.Stat_t
		if path == "" || unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
			continue
		}
		if err := f(path, &st, kinds[st.Dev]); err != nil {
			return err
		}
	}
	return nil
}

func leased(locks string, inode uint64) bool {
	for line := range strings.Lines(locks) {
		if f := strings.Fields(line); len(f) > 5 && f[1] == "LEASE" && number(f[5][strings.LastIndexByte(f[5], ':')+1:]) == int64(inode) {
			return true
		}
	}
	return false
}

// inMemory is how many bytes of a file are in the page cache, as mincore(2) says; what is
// behind its end it does not say.
func inMemory(path string, st *unix.Stat_t) (int64, error) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		return 0, nil
	}
	file, err := unix.Open(path, unix.O_RDONLY|unix.O_NOATIME|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(file) }()
	pages, err := syscall.Mmap(file, 0, int(st.Size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	defer func() { _ = syscall.Munmap(pages) }()
	size := os.Getpagesize()
	present := make([]byte, (len(pages)+size-1)/size)
	if _, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&pages[0])), uintptr(len(pages)), uintptr(unsafe.Pointer(&present[0]))); e != 0 {
		return 0, e
	}
	cached := int64(0)
	for _, p := range present {
		cached += int64(p&1) * int64(size)
	}
	return cached, nil
}
