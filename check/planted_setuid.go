package check

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "planted-setuid",
		Title:     "Files that make whoever runs them root, where no package puts one",
		Severity:  High,
		Technique: "T1548.001", // Abuse Elevation Control Mechanism: Setuid and Setgid
		Source:    "inode.i_mode and i_uid of files that the kernel knows by name below /dev/shm, /tmp, /var/tmp, /run, /root and /home, and of the programs that run; struct cred of these and of their parents",
		Proves: `A file of root's with the setuid bit lies where everybody may put files, or in a user's folder, or runs from a folder that others than root can write to; or a process has capabilities that its
parent does not have, from a program there. Who was root once leaves a copy of a shell like that to become root again.`,
		Blind: `Files that the kernel has not been asked for since boot, or has forgotten: nothing is read from the disk. More than the first 8192 files that it knows in /root and in /home, and files anywhere else that do not run: those that no package owns below /usr/local or /opt, and what is on disks that are
mounted below /run.
Capabilities of files that do not run. File systems with the root folder of a container, of the network, or that a program serves. A copy with the name and in the place of a setuid program that distributions have, as in the tree of a
system that is being built.`,
		Next: `Take the setuid bit off, and find out who made the file: "outsight struct TARGET inode ADDRESS" shows its times. Programs that the owner needs are an exception: put them into an allow-list with
the reason.`,
		Example: `Somebody who was root left a shell that makes every user root:

    # cp /bin/bash /var/tmp/x; chmod 4755 /var/tmp/x

    $ outsight check lab:demo --only planted-setuid
    SEVERITY  CONFIDENCE  CHECK           TITLE
    high      likely      planted-setuid  /var/tmp/x makes whoever runs it root, and lies where everybody may put files`,
		Kept: true,
		Run:  plantedSetuid,
	})
}

// plantLayout is where members lie that files and processes are judged by.
type plantLayout struct {
	mode, uid, gid    kobj.Field // of inode
	mnt, root         kobj.Field // of mount, vfsmount
	sbUserNS, sbType  kobj.Field
	typeName, superOf kobj.Field
	parentTask        kobj.Field
	fileMnt, mntFlags kobj.Field // of file, vfsmount
}

func plantLayoutOf(s *linux.System) (*plantLayout, error) {
	return kobj.LayoutOf(s.Walker, "planted files", func(r *kobj.Resolver, o *plantLayout) {
		o.mode, o.uid, o.gid = r.Field("inode", "i_mode"), r.Field("inode", "i_uid"), r.Field("inode", "i_gid")
		o.mnt, o.root, o.superOf = r.Field("mount", "mnt"), r.Field("vfsmount", "mnt_root"), r.Field("vfsmount", "mnt_sb")
		o.sbUserNS, o.sbType, o.typeName = r.Optional("super_block", "s_user_ns"), r.Field("super_block", "s_type"), r.Field("file_system_type", "name")
		o.parentTask = r.Field("task_struct", "real_parent")
		o.fileMnt, o.mntFlags = r.Field("file", "f_path.mnt"), r.Field("vfsmount", "mnt_flags")
	})
}

func plantedSetuid(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		o, err := plantLayoutOf(s.Linux)
		if err != nil {
			yield(nil, err)
			return
		}
		ps, err := s.Programs()
		if err != nil {
			yield(nil, err)
			return
		}
		w := &plantWalk{s: s, o: o, ps: ps, r: s.Linux.Reader(), reader: s.Linux.NewProcessReader()}
		if w.init, err = credLayoutOf(s.Linux); err != nil {
			yield(nil, err)
			return
		}
		for _, p := range ps.all {
			if f, err := w.program(p); (f != nil || err != nil) && !yield(f, err) {
				return
			}
		}
		for f, err := range w.files(ctx) {
			if !yield(f, err) {
				return
			}
		}
	}
}

type plantWalk struct {
	s      *Subject
	o      *plantLayout
	init   *credLayout
	ps     *programs
	r      kobj.Reader
	reader *linux.ProcessReader
}

const (
	modeSetuid  = 0o4000
	modeSetgid  = 0o2000
	modeGroupX  = 0o0010 // without it S_ISGID means something else
	modeKind    = 0o170000
	modeRegular = 0o100000
)

// makesRoot reports whether the file of an inode is root's and setuid. A file system that is not the first user namespace's makes nobody root there.
func (w *plantWalk) makesRoot(inode virt.Addr) bool {
	mode := w.r.Uint(inode, w.o.mode)
	return mode&modeSetuid != 0 && mode&modeKind == modeRegular && w.r.Uint(inode, w.o.uid) == 0 && w.r.Err == nil
}

// ofFirstUsers reports whether a file system belongs to the first user namespace.
func (w *plantWalk) ofFirstUsers(super virt.Addr) bool {
	first, ok := w.s.Linux.Address("init_user_ns")
	return !ok || !w.o.sbUserNS.Present() || w.r.Pointer(super, w.o.sbUserNS) == first
}

func (w *plantWalk) typeOf(super virt.Addr) string {
	kind := w.r.CString(w.r.Pointer(w.r.Pointer(super, w.o.sbType), w.o.typeName), linux.MaxName)
	stem, _, _ := strings.Cut(kind, ".")
	return stem
}

// program is the finding about a program that runs and gives rights, from where others than root can put one; nil if it is none.
func (w *plantWalk) program(p *program) (*Finding, error) {
	w.r.Err = nil
	if p.exe.dentry == 0 {
		return nil, nil
	}
	inode := w.r.Pointer(p.exe.dentry, w.ps.o.inode)
	setuid := w.makesRoot(inode)
	another := !setuid && w.r.Uint(inode, w.o.mode)&modeSetuid != 0 // it makes whoever runs it another user
	if readable := w.r.Err == nil; !readable || another {
		return nil, nil // those who read programs report what cannot be read
	}
	var gained uint64
	if !setuid {
		if gained = w.gained(p); gained == 0 {
			return nil, nil
		}
	}
	if !w.ofFirstUsers(p.exe.super) {
		return nil, nil
	}
	severity, sure, where := w.place(p.Exe, w.typeOf(p.exe.super))
	if severity == "" {
		if w.ps.rootOwned(p.exe.dentry) {
			return nil, nil
		}
		// The trees of containers and what programs serve are as who made them likes.
		switch w.typeOf(p.exe.super) {
		case "overlay", "fuse", "nfs", "nfs4", "cifs", "9p", "virtiofs":
			return nil, nil
		}
		severity, sure, where = Medium, Possible, "can be changed by others than root"
	}
	var what, seen string
	if setuid {
		severity, sure, what, seen = w.runs(p, w.r.Uint(inode, w.o.mode), severity, sure, where)
	} else {
		names := strings.Join(linux.CapabilityNames(gained), ",")
		what, seen = fmt.Sprintf("has capabilities that its parent does not have, by %s, which %s", p.Exe, where), names
		if severity == Medium {
			severity = Low // developers give their servers a low port
		}
	}
	f := p.finding(what, sure)
	f.Severity, f.Aspect, f.Expected, f.Seen = severity, "program", "programs that give rights where only root can put them", seen
	f.Evidence = append(f.Evidence, Evidence{Text: "the inode of its program", Addr: inode})
	f.Show = fmt.Sprintf("outsight creds {} --pid %d", p.PID)
	return f, w.r.Err
}

// withoutEffect is what is added to the mode of a file that the kernel does not heed (mnt_may_suid).
const withoutEffect = "; the file system is mounted nosuid, so that it has no effect there"

// runs says what a process does that runs a file of root's with the setuid bit, and how bad that is.
func (w *plantWalk) runs(p *program, mode uint64, severity Severity, sure Confidence, where string) (_ Severity, _ Confidence, what, seen string) {
	what, seen = fmt.Sprintf("runs %s, which makes whoever runs it root, and %s", p.Exe, where), fmt.Sprintf("mode %04o, owner 0", mode&0o7777)
	if !w.nosuid(p) {
		return severity, sure, what, seen
	}
	what = fmt.Sprintf("runs %s, which has root's setuid bit, without effect: its file system is mounted nosuid; it %s", p.Exe, where)
	return Medium, Possible, what, seen + withoutEffect
}

// nosuid reports whether a process runs its program by a mount that gives nobody rights.
func (w *plantWalk) nosuid(p *program) bool {
	const nosuid = 1 // MNT_NOSUID
	return w.r.Uint(w.r.Pointer(p.exe.file, w.o.fileMnt), w.o.mntFlags)&nosuid != 0
}

// place says how bad it is that a file that gives rights lies at a path, in a file system of a type, and what is said of the place; empty
// where it depends on owners. Below /run there are trees of other systems as well, on disks.
func (w *plantWalk) place(name, kind string) (severity Severity, sure Confidence, where string) {
	switch {
	case below(name, places.temporary):
		return High, Likely, "lies where everybody may put files"
	case hiddenInSystem(name), hiddenInState(name):
		return High, Likely, "is hidden"
	case below(name, places.runtime) && !below(name, places.ofRuntime) && kind == "tmpfs":
		return High, Likely, "lies in memory alone"
	case below(name, places.personal):
		return Medium, Possible, "lies in a user's folder"
	}
	return "", "", ""
}

// gained are the capabilities that a process of an ordinary user has from its program: they are not ambient, which capabilities of a file
// clear (cap_bprm_creds_from_file), and its parent is an ordinary user's process without any.
func (w *plantWalk) gained(p *program) uint64 {
	r, o := &w.r, w.init
	first, ok := w.s.Linux.Address("init_user_ns")
	c := r.Pointer(p.Task.Addr, o.own)
	permitted := r.Uint(c, o.permitted)
	if permitted == 0 || r.Uint(c, o.ambient) != 0 || r.Uint(c, o.uid) == 0 || r.Uint(c, o.euid) == 0 || ok && r.Pointer(c, o.userNS) != first || r.Err != nil {
		return 0
	}
	parent := r.Pointer(p.Task.Addr, w.o.parentTask)
	above := r.Pointer(parent, o.own)
	if r.Pointer(parent, o.mm) == 0 || r.Uint(above, o.euid) == 0 || r.Uint(above, o.uid) == 0 || r.Err != nil {
		return 0
	}
	return permitted &^ r.Uint(above, o.permitted)
}
