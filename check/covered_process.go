package check

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "covered-process",
		Title:     "Mounts over the folders of processes in /proc",
		Severity:  High,
		Technique: "T1564.013", // Hide Artifacts: Bind Mounts
		Source:    "mount.mnt_mountpoint of all mount namespaces that processes are in, the super_block of that dentry, proc_inode.pid, super_block.s_root and s_fs_info of a /proc",
		Proves: `Something is mounted over /proc/PID of a process, or over a file or folder below it, so that ps, top and lsof, which read it, see an empty folder, or another process's.
Runtimes of containers mount over files of /proc, as /proc/kcore, and never over those of a process. Or all of /proc is covered, or was replaced, in the first process's mount namespace by something that
is no /proc, by a folder of one, or by the /proc of another PID namespace, which lists other processes.`,
		Blind: `A mount in a namespace that no process is in any more. A /proc that was mounted anew with hidepid, which hides processes from users and not from root.`,
		Next: `See what the process is: "outsight ps TARGET --pid PID -o json", and the views tree, files and sockets. "outsight mounts TARGET" shows the mount, and what is mounted there; in the guest "umount /proc/PID"
takes it off.`,
		Example: `An intruder with root, and no code in the kernel, hides a miner from ps and top:

    # mkdir /run/empty; mount --bind /run/empty /proc/4711

    $ outsight check lab:demo --only covered-process
    SEVERITY  CONFIDENCE  CHECK            TITLE
    high      likely      covered-process  process 4711 (xmrig) is covered by a mount over /proc/4711`,
		Kept: true,
		Run:  coveredProcesses,
	})
}

// coverLayout is where members of structures lie that lead from a mount to what it covers.
type coverLayout struct {
	point, mnt, device, root, superOf   kobj.Field // of mount, vfsmount
	parent, super, inode                kobj.Field // of dentry
	superType, typeName                 kobj.Field
	superRoot, superInfo, procNS        kobj.Field // of super_block; of proc_fs_info, since 5.8 (fa10fed30f25)
	procInode, procPID, numbers, number kobj.Field
}

func coverLayoutOf(s *linux.System) (*coverLayout, error) {
	return kobj.LayoutOf(s.Walker, "what mounts cover", func(r *kobj.Resolver, o *coverLayout) {
		o.point, o.mnt, o.device = r.Field("mount", "mnt_mountpoint"), r.Field("mount", "mnt"), r.Field("mount", "mnt_devname")
		o.root, o.superOf = r.Field("vfsmount", "mnt_root"), r.Field("vfsmount", "mnt_sb")
		o.parent, o.super, o.inode = r.Field("dentry", "d_parent"), r.Field("dentry", "d_sb"), r.Field("dentry", "d_inode")
		o.superType, o.typeName = r.Field("super_block", "s_type"), r.Field("file_system_type", "name")
		o.superRoot, o.superInfo, o.procNS = r.Field("super_block", "s_root"), r.Field("super_block", "s_fs_info"), r.Optional("proc_fs_info", "pid_ns")
		o.procInode, o.procPID = r.Optional("proc_inode", "vfs_inode"), r.Optional("proc_inode", "pid")
		o.numbers, o.number = r.Field("pid", "numbers"), r.Field("upid", "nr")
	})
}

func coveredProcesses(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		o, err := coverLayoutOf(s.Linux)
		if err != nil {
			yield(nil, err)
			return
		}
		ps, err := s.Programs()
		if err != nil {
			yield(nil, err)
			return
		}
		w := &coverWalk{s: s, o: o, r: s.Linux.Reader(), ps: ps, reader: s.Linux.NewProcessReader(), proc: map[virt.Addr]bool{}, found: map[string]bool{}}
		for ns, err := range ps.mountNamespaces(ctx, s.Linux) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for m, err := range s.Linux.MountAddrs(ctx, ns.addr) {
				var f *Finding
				if err == nil {
					f, err = w.judge(m, ns)
				}
				if f != nil && err == nil {
					if w.found[f.Aspect] {
						continue
					}
					w.found[f.Aspect] = true
				}
				if (f != nil || err != nil) && !yield(f, err) {
					return
				}
			}
		}
	}
}

// mountNamespace is one that processes are in, of which of is the first.
type mountNamespace struct {
	addr virt.Addr
	of   *program
}

// mountNamespaces yields the mount namespaces that programs are in, each once.
func (ps *programs) mountNamespaces(ctx context.Context, s *linux.System) iter.Seq2[mountNamespace, error] {
	return func(yield func(mountNamespace, error) bool) {
		reader, seen := s.NewProcessReader(), map[virt.Addr]bool{0: true}
		for _, p := range ps.all {
			ns, _, err := reader.MountNamespaceOf(p.Task)
			if err != nil {
				err = fmt.Errorf("mount namespace of process %d: %w", p.PID, err)
			} else if seen[ns] {
				continue
			}
			seen[ns] = true
			if ctx.Err() != nil || !yield(mountNamespace{ns, p}, err) {
				return
			}
		}
	}
}

type coverWalk struct {
	s      *Subject
	o      *coverLayout
	r      kobj.Reader
	ps     *programs
	reader *linux.ProcessReader
	proc   map[virt.Addr]bool // whether a super_block is one of /proc
	found  map[string]bool    // a mount is passed on to other namespaces, and named once
}

// isProc reports whether a file system is a /proc.
func (w *coverWalk) isProc(super virt.Addr) bool {
	is, ok := w.proc[super]
	if !ok {
		is = w.r.CString(w.r.Pointer(w.r.Pointer(super, w.o.superType), w.o.typeName), linux.MaxName) == "proc"
		w.proc[super] = is && w.r.Err == nil
	}
	return is
}

// judge is the finding about one mount; nil if it covers no process.
func (w *coverWalk) judge(m virt.Addr, ns mountNamespace) (*Finding, error) {
	o, r := w.o, &w.r
	r.Err = nil
	point := r.Pointer(m, o.point)
	super := r.Pointer(point, o.super)
	if r.Err != nil || !w.isProc(super) {
		if r.Err == nil && ns.of.PID == 1 && r.Pointer(point, o.parent) == ns.of.root && point != ns.of.root {
			if name, err := w.reader.DentryName(point); err == nil && name == "proc" {
				return w.inPlaceOfProc(m)
			}
		}
		return nil, w.failed(m)
	}
	path, top, err := w.pathOf(point)
	if err != nil {
		return nil, fmt.Errorf("what the mount at %#x covers: %w", uint64(m), err)
	}
	if top == 0 { // at the root of /proc
		if ns.of.PID != 1 || r.Pointer(o.mnt.At(m), o.root) == point {
			return nil, w.failed(m)
		}
		what := w.otherThanProc(m)
		if what == "" || r.Err != nil {
			return nil, w.failed(m)
		}
		f := w.finding(m, Object{Kind: "mount", Name: "/proc", Addr: m}, "all processes are covered by a mount over /proc "+what)
		f.Severity, f.Confidence = Medium, Possible
		return f, w.failed(m)
	}
	name, _, _ := strings.Cut(path[1:], "/")
	pid, err := strconv.ParseInt(name, 10, 32)
	if err != nil || pid <= 0 {
		return nil, nil //nolint:nilerr // it is none of a process
	}
	path = "/proc" + path
	of := int32(pid)
	if o.procPID.Present() { // its number in the first PID namespace
		inode := r.Pointer(top, o.inode)
		if a := r.Pointer(inode-o.procInode.At(0), o.procPID); a != 0 {
			of = int32(r.Uint(o.numbers.At(a), o.number))
		}
	}
	who := fmt.Sprintf("process %d", of)
	obj := Object{Kind: "process", PID: of, Addr: m}
	if p := w.ps.byPID[of]; p != nil {
		who, obj.Name = p.String(), p.Comm
	}
	what := "is covered by a mount over " + path
	if top != point {
		what = "has something mounted over " + path
	}
	f := w.finding(m, obj, who+" "+what)
	f.Aspect = fmt.Sprintf("%d %s", of, path)
	f.Show = fmt.Sprintf("outsight mounts {} --where 'mount_point == %q'", path)
	if ns.of.PID != 1 {
		f.Show = fmt.Sprintf("outsight mounts {} --pid %d --where 'mount_point == %q'", ns.of.PID, path)
	}
	return f, w.failed(m)
}

// inPlaceOfProc is the finding about what is mounted at /proc itself, once the /proc that was there was unmounted (umount -l).
func (w *coverWalk) inPlaceOfProc(m virt.Addr) (*Finding, error) {
	what := w.otherThanProc(m)
	if what == "" || w.r.Err != nil {
		return nil, w.failed(m)
	}
	f := w.finding(m, Object{Kind: "mount", Name: "/proc", Addr: m}, "in place of /proc something is mounted "+what)
	f.Severity, f.Confidence, f.Expected = Medium, Possible, "the /proc of the first PID namespace"
	f.Show = `outsight mounts {} --where 'mount_point == "/proc"'`
	return f, w.failed(m)
}

// otherThanProc says why what is mounted does not list the processes that the first PID namespace's /proc does; empty if it does.
func (w *coverWalk) otherThanProc(m virt.Addr) string {
	o, r := w.o, &w.r
	super := r.Pointer(o.mnt.At(m), o.superOf)
	switch {
	case !w.isProc(super):
		return "that is no /proc"
	case r.Pointer(o.mnt.At(m), o.root) != r.Pointer(super, o.superRoot):
		return "of a folder of /proc"
	}
	first, known := w.s.Linux.Address("init_pid_ns")
	of := r.Pointer(super, o.superInfo)
	if o.procNS.Present() {
		of = r.Pointer(of, o.procNS)
	}
	if known && of != first {
		return "that lists the processes of another PID namespace"
	}
	return ""
}

func (w *coverWalk) failed(m virt.Addr) error {
	if w.r.Err != nil {
		return fmt.Errorf("mount at %#x: %w", uint64(m), w.r.Err)
	}
	return nil
}

// pathOf is the path of a dentry in its file system, and the dentry of its first component: "/" and 0 for the root.
func (w *coverWalk) pathOf(at virt.Addr) (path string, top virt.Addr, err error) {
	for range maxFolders {
		above := w.r.Pointer(at, w.o.parent)
		switch {
		case w.r.Err != nil:
			return "", 0, w.r.Err
		case above == at:
			return cmp.Or(path, "/"), top, nil
		}
		name, err := w.reader.DentryName(at)
		if err != nil {
			return "", 0, err
		}
		path, top, at = "/"+name+path, at, above
	}
	return "", 0, fmt.Errorf("%w: more than %d folders in each other", kobj.ErrBudget, maxFolders)
}

func (w *coverWalk) finding(m virt.Addr, of Object, title string) *Finding {
	mounted := w.r.Pointer(w.o.mnt.At(m), w.o.superOf)
	kind := w.r.CString(w.r.Pointer(w.r.Pointer(mounted, w.o.superType), w.o.typeName), linux.MaxName)
	device := w.r.CString(w.r.Pointer(m, w.o.device), linux.MaxName)
	root, _, err := w.pathOf(w.r.Pointer(w.o.mnt.At(m), w.o.root))
	if err != nil {
		root = "" // then it is named by its device alone
	}
	return &Finding{
		Confidence: Likely, Title: title, Object: of,
		Aspect:   of.Name,
		Expected: "nothing is mounted over the folder of a process in /proc",
		Seen:     fmt.Sprintf("a mount of %s (%s)", coverSource(root, device), kind),
		Evidence: []Evidence{{Text: "the struct mount", Addr: m}},
		Basis:    "the mounts of the guest's kernel, by where they are mounted",
		Show:     `outsight mounts {} --where 'mount_point.startsWith("/proc/")'`,
	}
}

// coverSource says what is mounted: a path within a file system, unless it is all of it.
func coverSource(root, device string) string {
	if root == "" || root == "/" {
		return device
	}
	return root + " of " + device
}
