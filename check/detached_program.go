package check

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "detached-program",
		Title:     "Programs that run from a file system that is mounted nowhere any more",
		Severity:  High,
		Technique: "T1564", // Hide Artifacts
		Source:    "mount.mnt_ns and vfsmount.mnt_sb of the mount that mm_struct.exe_file was opened by, and the mounts of all mount namespaces that processes are in",
		Proves: `The program of a process lies in a file system that was unmounted while it ran (umount -l) or never was mounted in a folder (fsmount), and that no mount namespace of a process has any more: no path leads to the file, so
that nobody can look at it, though it has a name and was not deleted. Packages that are mounted to be run (snap, AppImage, other images), containers that were stopped, the copy of itself that runc starts and shares of the network are unmounted like that for good
reasons, and named with severity low.`,
		Blind: `A file system that is still mounted elsewhere, and a file that was opened and is read by an interpreter.`,
		Next: `Take the program out with "outsight extract TARGET --pid PID --address ADDRESS --elf -o FILE" (the views maps and elfs show the address). "outsight filesystems TARGET" shows the file system, which stays until the process ends;
look at the process's parent, files and sockets.`,
		Example: `A program was started from a tmpfs that was unmounted behind it:

    # mount -t tmpfs none /mnt; cp agent /mnt; /mnt/agent & umount -l /mnt

    $ outsight check lab:demo --only detached-program
    SEVERITY  CONFIDENCE  CHECK             TITLE
    high      likely      detached-program  process 412 (agent) runs from a file system that is mounted nowhere (tmpfs)`,
		Kept: true,
		Run:  detachedPrograms,
	})
}

// mountOfLayout is where members lie that lead from a file to its mount, and from that to the file system.
type mountOfLayout struct {
	fileMount, mnt, namespace, superOf, superType, typeName kobj.Field
}

func mountOfLayoutOf(s *linux.System) (*mountOfLayout, error) {
	return kobj.LayoutOf(s.Walker, "mounts of programs", func(r *kobj.Resolver, o *mountOfLayout) {
		o.fileMount, o.mnt, o.namespace = r.Field("file", "f_path.mnt"), r.Field("mount", "mnt"), r.Field("mount", "mnt_ns")
		o.superOf, o.superType, o.typeName = r.Field("vfsmount", "mnt_sb"), r.Field("super_block", "s_type"), r.Field("file_system_type", "name")
	})
}

// leftMounted are types of file systems that are unmounted below running programs for good reasons: images that packages are run
// from, the roots of containers, and shares of the network.
var leftMounted = []string{"squashfs", "erofs", "fuse", "fuseblk", "overlay", "nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "autofs", "iso9660", "udf"}

func detachedPrograms(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		o, err := mountOfLayoutOf(s.Linux)
		if err != nil {
			yield(nil, err)
			return
		}
		ps, err := s.Programs()
		if err != nil {
			yield(nil, err)
			return
		}
		reader := s.Linux.NewProcessReader()
		namespaces, mounted := map[virt.Addr]bool{}, map[virt.Addr]bool(nil) // super_blocks; nil until they are needed
		for _, p := range ps.all {
			r := s.Linux.Reader()
			mnt := r.Pointer(p.exe.file, o.fileMount)
			ns := r.Pointer(mnt-o.mnt.At(0), o.namespace)
			if p.exe.file == 0 || mnt == 0 || isError(ns) || namespaces[ns] || r.Err != nil {
				// The kernel's own mounts have an error for a namespace (MNT_NS_INTERNAL). A file that is just being given up has no mount;
				// those who read programs report the rest.
				continue
			}
			// That a mount has a namespace does not say that a path leads to it: what fsmount made is in one of its own until it is moved.
			if own, _, err := reader.MountNamespaceOf(p.Task); err == nil && own == ns && ns != 0 {
				namespaces[ns] = true
				continue
			}
			if mounted == nil {
				all, supers, err := s.mountedSupers(ctx, ps, o)
				if err != nil {
					yield(nil, err) // what is mounted in the rest is not known
					return
				}
				namespaces, mounted = all, supers
				if namespaces[ns] {
					continue
				}
			}
			if super := r.Pointer(mnt, o.superOf); mounted[super] {
				continue
			}
			kind := r.CString(r.Pointer(r.Pointer(r.Pointer(mnt, o.superOf), o.superType), o.typeName), linux.MaxName)
			if r.Err != nil {
				if !yield(nil, fmt.Errorf("mount of the program of process %d: %w", p.PID, r.Err)) {
					return
				}
				continue
			}
			if !yield(p.detached(mnt-o.mnt.At(0), kind), nil) {
				return
			}
		}
	}
}

// isError reports whether a pointer is an error of the kernel (IS_ERR).
func isError(a virt.Addr) bool {
	const maxErrno = 4095
	return a >= 1<<64-maxErrno
}

// mountedSupers are the mount namespaces of programs, and the file systems that are mounted in them.
func (s *Subject) mountedSupers(ctx context.Context, ps *programs, o *mountOfLayout) (namespaces, mounted map[virt.Addr]bool, err error) {
	r := s.Linux.Reader()
	namespaces, mounted = map[virt.Addr]bool{}, map[virt.Addr]bool{}
	for ns, err := range ps.mountNamespaces(ctx, s.Linux) {
		if err != nil {
			return nil, nil, err
		}
		namespaces[ns.addr] = true
		for m, err := range s.Linux.MountAddrs(ctx, ns.addr) {
			if err != nil {
				return nil, nil, err
			}
			mounted[r.Pointer(o.mnt.At(m), o.superOf)] = true
			if r.Err != nil {
				return nil, nil, fmt.Errorf("mount at %#x: %w", uint64(m), r.Err)
			}
		}
	}
	return namespaces, mounted, ctx.Err()
}

// detached is the finding about a program whose file system is mounted nowhere.
func (p *program) detached(mount virt.Addr, kind string) *Finding {
	f := p.finding(fmt.Sprintf("runs from a file system that is mounted nowhere (%s)", kind), Likely)
	if stem, _, _ := strings.Cut(kind, "."); slices.Contains(leftMounted, stem) {
		f.Severity, f.Confidence = Low, Possible
	}
	f.Expected, f.Seen = "a program in a file system that is mounted", fmt.Sprintf("%s, in a mount of %s that is in no mount namespace of a process", p.Exe, kind)
	f.Evidence = append(f.Evidence, Evidence{Text: "the struct mount", Addr: mount})
	f.Show = fmt.Sprintf("outsight struct {} mount %#x", uint64(mount))
	return f
}
