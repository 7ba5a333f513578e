package linux

import (
	"strconv"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// nameLayout is how files are called that have no place in a file system: their
// dentry's operations make the name (d_dname).
type nameLayout struct {
	dop, dname, dInode            kobj.Field
	iPrivate, ino, nsOps, nsName  kobj.Field
	pipe, socket, anon, pidfd, ns virt.Addr
}

func (s *System) nameLayout() (*nameLayout, error) {
	return kobj.LayoutOf(s.Walker, "names of files", func(r *kobj.Resolver, o *nameLayout) {
		r.Prefetch("pipefs_dname", "sockfs_dname", "anon_inodefs_dname", "pidfs_dname", "ns_dname")
		o.dop, o.dname = r.Field("dentry", "d_op"), r.Field("dentry_operations", "d_dname")
		o.dInode = r.Field("dentry", "d_inode")
		o.iPrivate, o.ino = r.Field("inode", "i_private"), r.Field("inode", "i_ino")
		o.nsOps, o.nsName = r.Field("ns_common", "ops"), r.Field("proc_ns_operations", "name")
		for name, to := range map[string]*virt.Addr{
			"pipefs_dname": &o.pipe, "sockfs_dname": &o.socket, "anon_inodefs_dname": &o.anon,
			"pidfs_dname": &o.pidfd, "ns_dname": &o.ns,
		} {
			*to, _ = s.Address(name)
		}
	})
}

// FileClass distinguishes files of the kernel's own from those in file systems.
type FileClass string

// The classes.
const (
	InFileSystem  FileClass = ""
	PipeFile      FileClass = "pipe" // of pipe(2); FIFOs lie in file systems
	SocketFile    FileClass = "socket"
	AnonInodeFile FileClass = "anon_inode" // eventpoll, eventfd, io_uring, pidfd …
	NamespaceFile FileClass = "namespace"  // an entry of /proc/PID/ns
)

// FileName is the name of the file at file (a struct file) as /proc/PID/fd shows it, and
// whether it was unlinked.
func (l *ProcessReader) FileName(file virt.Addr) (name string, deleted bool, err error) {
	name, err = kobj.Read(&l.r, func() (name string) {
		name, deleted, _ = l.fileName(file)
		return name
	})
	return name, deleted, err
}

// fileName is the name of the file at file as /proc/PID/fd shows it: its path, or
// what the kernel calls it if it has none. A simple name is told as deleted, as the
// kernel does.
func (l *ProcessReader) fileName(file virt.Addr) (name string, deleted bool, class FileClass) {
	at := file + virt.Addr(l.s.o.filePath)
	return l.nameOf(l.r.Ptr(at+virt.Addr(l.s.o.pathMnt)), l.r.Ptr(at+virt.Addr(l.s.o.pathDentry)))
}

// nameOf is fileName of a path.
func (l *ProcessReader) nameOf(mnt, dentry virt.Addr) (name string, deleted bool, class FileClass) {
	r := &l.r
	o, err := l.s.nameLayout()
	if err != nil || mnt == 0 || dentry == 0 {
		name, deleted = l.path(mnt, dentry)
		return name, deleted, InFileSystem
	}
	var fn virt.Addr
	if ops := r.Pointer(dentry, o.dop); ops != 0 {
		fn = r.Pointer(ops, o.dname)
	}
	number := func() string {
		return ":[" + strconv.FormatUint(r.Uint(r.Pointer(dentry, o.dInode), o.ino), 10) + "]"
	}
	switch fn {
	case 0:
	case o.pipe:
		return "pipe" + number(), false, PipeFile
	case o.socket:
		return "socket" + number(), false, SocketFile
	case o.anon:
		return "anon_inode:" + l.dentryName(dentry), false, AnonInodeFile
	case o.pidfd: // 6.9; until then it was one of the ones above
		return "anon_inode:[pidfd]", false, AnonInodeFile
	case o.ns:
		ops := r.Pointer(r.Pointer(r.Pointer(dentry, o.dInode), o.iPrivate), o.nsOps)
		return r.CString(r.Pointer(ops, o.nsName), 32) + number(), false, NamespaceFile
	}
	name, deleted = l.path(mnt, dentry)
	return name, deleted, InFileSystem
}
