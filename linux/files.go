package linux

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// filesLayout is a process' table of open files and what it leads to.
type filesLayout struct {
	files, fdt, maxFDs, fds, open, cloexec kobj.Field
	fileSize, inodeSize                    uint32
	inode, flags, mode, pos                kobj.Field // of struct file
	iMode, ino, nlink, rdev, size, super   kobj.Field // of struct inode
	dev, mntID                             kobj.Field
}

func (s *System) filesLayout() (*filesLayout, error) {
	return kobj.LayoutOf(s.Walker, "open files", func(r *kobj.Resolver, o *filesLayout) {
		o.files, o.fdt = r.Field("task_struct", "files"), r.Field("files_struct", "fdt")
		o.maxFDs, o.fds = r.Field("fdtable", "max_fds"), r.Field("fdtable", "fd")
		o.open, o.cloexec = r.Field("fdtable", "open_fds"), r.Field("fdtable", "close_on_exec")
		o.fileSize, o.inodeSize = r.Size("file"), r.Size("inode")
		o.inode, o.flags = r.Field("file", "f_inode"), r.Field("file", "f_flags")
		o.mode, o.pos = r.Field("file", "f_mode"), r.Field("file", "f_pos")
		const i = "inode"
		o.iMode, o.ino, o.nlink = r.Field(i, "i_mode"), r.Field(i, "i_ino"), r.Field(i, "i_nlink", "__i_nlink")
		o.rdev, o.size, o.super = r.Field(i, "i_rdev"), r.Field(i, "i_size"), r.Field(i, "i_sb")
		o.dev, o.mntID = r.Field("super_block", "s_dev"), r.Field("mount", "mnt_id")
	})
}

// File is an open file of a process.
type File struct {
	FD      int
	Path    string    // as /proc/PID/fd/FD shows it, without " (deleted)"
	Deleted bool      // the name was unlinked, or is none (memfd)
	Class   FileClass // whether it lies in a file system
	Flags   uint32    // as fdinfo shows them: O_…, with O_CLOEXEC of the descriptor
	Pos     int64     // offset of the next read or write, in bytes
	Inode   uint64
	Mode    uint32 // st_mode: type and permissions
	Links   uint32
	Size    int64
	Device  Device // of the file system
	Rdev    Device // of a device file
	MountID int32
	Addr    virt.Addr // of the struct file
	INode   virt.Addr // of the struct inode
}

// maxFDs bounds the descriptors of one process: fs.nr_open is 1048576 by default.
const maxFDs = 4 << 20

// maxBrokenFDs is when a table of descriptors is none: its size is a lie.
const maxBrokenFDs = 1000

// Files yields the open files of t in order of descriptor, as /proc/PID/fd lists
// them; none for a task without a table of files, as kernel threads and zombies are.
func (l *ProcessReader) Files(ctx context.Context, t Task) iter.Seq2[*File, error] {
	return func(yield func(*File, error) bool) {
		o, err := l.s.filesLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		table, err := l.fdTable(t, o)
		if err != nil {
			yield(nil, fmt.Errorf("open files of task %#x: %w", uint64(t.Addr), err))
			return
		}
		broken := 0
		for base := 0; base < table.max; base += 8 * len(table.open) {
			if ctx.Err() != nil {
				yield(nil, ctx.Err())
				return
			}
			if err := l.fdBits(table, base); err != nil {
				if !yield(nil, fmt.Errorf("open files of task %#x from %d on: %w", uint64(t.Addr), base, err)) {
					return
				}
				continue
			}
			for i := 0; i < len(table.open); i += 8 {
				for word := binary.LittleEndian.Uint64(table.open[i:]); word != 0; word &= word - 1 {
					bit := bits.TrailingZeros64(word)
					fd := base + 8*i + bit
					if fd >= table.max {
						break
					}
					f, err := l.file(table.fds+virt.Addr(8*fd), o)
					if err != nil {
						err = fmt.Errorf("task %#x: descriptor %d: %w", uint64(t.Addr), fd, err)
						if broken++; broken == maxBrokenFDs {
							yield(nil, fmt.Errorf("%w, and so are too many more", err))
							return
						}
					} else if f == nil {
						continue // being opened or closed just now
					} else if f.FD = fd; binary.LittleEndian.Uint64(table.cloexec[i:])>>bit&1 != 0 {
						f.Flags |= closeOnExec
					}
					if !yield(f, err) {
						return
					}
				}
			}
		}
	}
}

const closeOnExec = 0o2000000 // O_CLOEXEC

// fdTable is a struct fdtable, and a part of its two bitmaps.
type fdTable struct {
	max                       int
	fds, openAt, cloexecAt    virt.Addr
	open, cloexec             []byte
	openBitmap, cloexecBitmap [512]byte
}

func (l *ProcessReader) fdTable(t Task, o *filesLayout) (f *fdTable, err error) {
	f = &fdTable{}
	r := &l.r
	r.Err = nil
	files := r.Pointer(t.Addr, o.files)
	if files == 0 {
		return f, r.Err
	}
	fdt := r.Pointer(files, o.fdt)
	n := r.Uint(fdt, o.maxFDs)
	f.fds, f.openAt, f.cloexecAt = r.Pointer(fdt, o.fds), r.Pointer(fdt, o.open), r.Pointer(fdt, o.cloexec)
	if r.Err == nil && n > maxFDs {
		return f, fmt.Errorf("%w: a table of %d descriptors at %#x", kobj.ErrBroken, n, uint64(fdt))
	}
	f.max = int(n)
	f.open, f.cloexec = f.openBitmap[:0], f.cloexecBitmap[:0]
	if n > 0 {
		size := min(len(f.openBitmap), (f.max+63)/64*8)
		f.open, f.cloexec = f.openBitmap[:size], f.cloexecBitmap[:size]
	}
	return f, r.Err
}

// fdBits copies the bits of the descriptors from base on.
func (l *ProcessReader) fdBits(f *fdTable, base int) (err error) {
	clear(f.open)
	n := min(len(f.open), (f.max-base+63)/64*8)
	if _, err := l.s.Space.ReadAt(f.open[:n], f.openAt+virt.Addr(base/8)); err != nil {
		return err
	}
	_, err = l.s.Space.ReadAt(f.cloexec[:n], f.cloexecAt+virt.Addr(base/8))
	return err
}

// file reads the file that the pointer at slot leads to, again if it became another
// meanwhile; nil for none.
func (l *ProcessReader) file(slot virt.Addr, o *filesLayout) (f *File, err error) {
	const tries = 3
	r := &l.r
	defer l.use(l.s)
	for try := range tries {
		l.attempt(try)
		loads := l.now.loads()
		file := r.Ptr(slot)
		if file == 0 || r.Err != nil {
			return nil, r.Err
		}
		f, err = l.fileAt(file, o)
		if again := l.ptrAfter(slot, file, loads); again == file {
			return f, err
		}
		err = errChanged
	}
	return nil, err
}

func (l *ProcessReader) fileAt(a virt.Addr, o *filesLayout) (*File, error) {
	r := &l.r
	f := &File{Addr: a}
	b := r.Bytes(a, int(min(o.fileSize, 4096)))
	f.INode = virt.Addr(FieldIn(b, o.inode))
	f.Flags, f.Pos = uint32(FieldIn(b, o.flags))&^closeOnExec, int64(FieldIn(b, o.pos))
	if f.INode != 0 {
		b = r.Bytes(f.INode, int(min(o.inodeSize, 4096)))
		f.Mode, f.Inode, f.Links = uint32(FieldIn(b, o.iMode)), FieldIn(b, o.ino), uint32(FieldIn(b, o.nlink))
		f.Rdev, f.Size = Device(FieldIn(b, o.rdev)), int64(FieldIn(b, o.size))
		f.Device = Device(r.Uint(virt.Addr(FieldIn(b, o.super)), o.dev))
	}
	f.Path, f.Deleted, f.Class = l.fileName(a)
	if f.Class == AnonInodeFile {
		f.Mode &= 0o7777 // since 6.16 they have a type inside, which stat(2) leaves out
	}
	if mnt := r.Ptr(a + virt.Addr(l.s.o.filePath+l.s.o.pathMnt)); mnt != 0 {
		f.MountID = int32(r.Uint(mnt-virt.Addr(l.s.o.mountMnt), o.mntID))
	}
	if r.Err != nil {
		return nil, fmt.Errorf("file at %#x: %w", uint64(a), r.Err)
	}
	return f, nil
}

// FlagNames are the flags by name; the first is how the file was opened.
func (f *File) FlagNames() []string {
	names := []string{[...]string{"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"}[f.Flags&3]}
	left := f.Flags &^ 3
	for _, n := range fileFlags {
		if left&n.bits == n.bits {
			names, left = append(names, n.name), left&^n.bits
		}
	}
	if left != 0 {
		names = append(names, fmt.Sprintf("0%o", left))
	}
	return names
}

// fileFlags are the flags of amd64 (include/uapi/asm-generic/fcntl.h), those that
// hold others first.
var fileFlags = []struct {
	bits uint32
	name string
}{
	{0o20200000, "O_TMPFILE"},
	{0o4010000, "O_SYNC"},
	{0o100, "O_CREAT"},
	{0o200, "O_EXCL"},
	{0o400, "O_NOCTTY"},
	{0o1000, "O_TRUNC"},
	{0o2000, "O_APPEND"},
	{0o4000, "O_NONBLOCK"},
	{0o10000, "O_DSYNC"},
	{0o20000, "O_ASYNC"},
	{0o40000, "O_DIRECT"},
	{0o100000, "O_LARGEFILE"},
	{0o200000, "O_DIRECTORY"},
	{0o400000, "O_NOFOLLOW"},
	{0o1000000, "O_NOATIME"},
	{closeOnExec, "O_CLOEXEC"},
	{0o10000000, "O_PATH"},
}

// Type is what kind of file it is: its class, or what st_mode says.
func (f *File) Type() string {
	if f.Class != InFileSystem {
		return string(f.Class)
	}
	return fileType(f.Mode)
}

// fileType is what a st_mode says.
func fileType(mode uint32) string {
	switch mode >> 12 & 0xf {
	case 0o1:
		return "fifo"
	case 0o2:
		return "char"
	case 0o4:
		return "directory"
	case 0o6:
		return "block"
	case 0o10:
		return "file"
	case 0o12:
		return "symlink"
	case 0o14:
		return "socket"
	}
	return "unknown"
}
