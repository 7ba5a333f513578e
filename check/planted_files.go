package check

import (
	"context"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// What the search for setuid files may cost, so that nobody makes it long by making many files: most of all, perPlantPlace below one
// folder or mount, so that what is in one place keeps none of the others from being searched, and perUser where users have their own
// files, of which a healthy guest knows very many. A name that there is no file of, which a guest collects by the hundred thousand,
// costs less than a file.
const (
	nameCost, fileCost = 1, 16
	maxPlantCost       = 6 << 20
	perPlantPlace      = 1 << 20 // 65536 files, or a million names
	perUser            = 8192 * fileCost
)

// plantPlaces are folders in which files are looked for, the ones first that everybody may write to.
var plantPlaces = []string{"/dev/shm", "/tmp", "/var/tmp", "/run", "/root", "/home"}

// usualSetuid are setuid programs of distributions: in bin, sbin, lib or libexec of the tree of a system that somebody builds, or of an
// initramfs that is being packed, they are where they belong.
var usualSetuid = []string{
	"su", "sudo", "mount", "umount", "passwd", "chsh", "chfn", "chage", "newgrp", "gpasswd", "expiry", "pkexec", "fusermount", "fusermount3", "ping", "ping6", "unix_chkpwd", "pam_timestamp_check",
	"dbus-daemon-launch-helper", "polkit-agent-helper-1", "ssh-keysign", "chrome-sandbox", "chrome_sandbox", "snap-confine", "newuidmap", "newgidmap", "mount.nfs", "mount.cifs", "ntfs-3g", "at", "crontab", "exim4", "sudoedit",
	"doas", "Xorg.wrap", "usernetctl", "userhelper", "bwrap", "sg", "traceroute6.iputils", "pppd", "vmware-user-suid-wrapper",
	"dmcrypt-get-device", "qemu-bridge-helper", "spice-client-glib-usb-acl-helper", "mount.ecryptfs_private",
}

// plantStart is a folder that the search begins at: a dentry, as seen through a mount.
type plantStart struct {
	dentry, mount virt.Addr
	nosuid        bool
	path          string
}

// starts are the folders where files are looked for, and the file systems mounted below them, in the first process's mount namespace.
func (w *plantWalk) starts(ctx context.Context) (starts []plantStart, err error) {
	first := w.ps.byPID[1]
	if first == nil {
		return nil, nil
	}
	ns, _, err := w.reader.MountNamespaceOf(first.Task)
	if err != nil || ns == 0 {
		return nil, err
	}
	var mounts []*linux.Mount
	for m, err := range w.reader.Mounts(ctx, ns) {
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	add := func(m *linux.Mount, dentry virt.Addr, name string) {
		if dentry != 0 && !slices.ContainsFunc(starts, func(s plantStart) bool { return s.dentry == dentry }) {
			starts = append(starts, plantStart{dentry, w.o.mnt.At(m.Addr), slices.Contains(m.Options, "nosuid"), name})
		}
	}
	for _, folder := range plantPlaces {
		var on *linux.Mount // the last one that is mounted closest to it
		for _, m := range mounts {
			if below(folder, []string{strings.TrimSuffix(m.Point, "/")}) && (on == nil || len(m.Point) >= len(on.Point)) {
				on = m
			}
		}
		if on == nil {
			continue
		}
		dentry := w.r.Pointer(w.o.mnt.At(on.Addr), w.o.root)
		rest := strings.TrimPrefix(folder, strings.TrimSuffix(on.Point, "/"))
		for _, name := range strings.FieldsFunc(rest, func(r rune) bool { return r == '/' }) {
			next, state, err := w.ps.o.look(ctx, w.s.Linux, dentry, name)
			if err != nil {
				return nil, err
			}
			if dentry = next; state != hasName {
				dentry = 0
				break
			}
		}
		add(on, dentry, folder)
	}
	own := w.r.Pointer(first.root, w.ps.o.super)
	for _, m := range mounts {
		// Not what is mounted a second time, as the root folder is in a tree that somebody works in.
		if below(m.Point, plantPlaces) && m.Root == "/" && m.Super != own && w.searched(m.Point, m.Super) {
			add(m, w.r.Pointer(w.o.mnt.At(m.Addr), w.o.root), m.Point)
		}
	}
	return starts, w.r.Err
}

// searched reports whether files are looked for in a file system that is mounted below one of the folders: those in memory, and disks. What
// is on disks below /run is another system: a backup that is being made, or the root folder of a virtual machine or a container.
func (w *plantWalk) searched(point string, super virt.Addr) bool {
	switch w.typeOf(super) {
	case "tmpfs", "ramfs":
		return w.ofFirstUsers(super)
	case "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs":
		return !below(point, places.runtime) && w.ofFirstUsers(super)
	}
	return false
}

// files are the findings about files that lie somewhere.
func (w *plantWalk) files(ctx context.Context) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		starts, err := w.starts(ctx)
		if err != nil {
			yield(nil, fmt.Errorf("folders where everybody may put files: %w", err))
			return
		}
		left := maxPlantCost
		for _, start := range starts {
			if !w.filesBelow(ctx, start, &left, yield) {
				return
			}
		}
	}
}

// filesBelow yields the findings about files below a folder; false when no more are wanted. left is what the search may still cost.
func (w *plantWalk) filesBelow(ctx context.Context, start plantStart, left *int, yield func(*Finding, error) bool) bool {
	o, here := w.ps.o, plantBudget(start.path, *left)
	spend := func(cost int) bool {
		here, *left = here-cost, *left-cost
		return here >= 0
	}
	for queue := []plantStart{start}; len(queue) > 0; queue = queue[1:] {
		folder := queue[0]
		entries := w.s.Linux.HList(ctx, o.children.At(folder.dentry), maxNames)
		if o.childrenAreList {
			entries = w.s.Linux.List(ctx, o.children.At(folder.dentry), maxNames)
		}
		for node, err := range entries {
			if ctx.Err() != nil {
				return false
			}
			if err != nil {
				if !yield(nil, fmt.Errorf("names in the folder at %#x: %w", uint64(folder.dentry), err)) {
					return false
				}
				break
			}
			w.r.Err = nil
			d := node - o.sibling.At(0)
			inode := w.r.Pointer(d, o.inode)
			cost := fileCost
			if inode == 0 {
				cost = nameCost
			}
			if !spend(cost) {
				// Of users' files a healthy guest knows more than that.
				return below(start.path, places.personal) && *left >= 0 || yield(nil, fmt.Errorf("files below %s: %w: not all were looked at", start.path, kobj.ErrBudget))
			}
			if inode == 0 || w.r.Err != nil || w.r.Pointer(d, o.hashed) == 0 {
				continue // it is none, or is just being made or removed
			}
			const directory = 0o040000
			if w.r.Uint(inode, w.o.mode)&modeKind == directory {
				queue = append(queue, plantStart{d, folder.mount, folder.nosuid, folder.path})
				continue
			}
			if !w.makesRoot(inode) {
				continue
			}
			f, err := w.file(d, inode, folder)
			if (f != nil || err != nil) && !yield(f, err) {
				return false
			}
		}
	}
	return true
}

// plantBudget is what the search below a folder may cost, of what is left for all.
func plantBudget(folder string, left int) int {
	if below(folder, places.personal) {
		return min(left, perUser)
	}
	return min(left, perPlantPlace)
}

// file is the finding about a file of root's that is setuid; nil if it is where it belongs.
func (w *plantWalk) file(dentry, inode virt.Addr, in plantStart) (*Finding, error) {
	name, _, err := w.reader.PathOf(in.mount, dentry)
	if err != nil {
		return nil, fmt.Errorf("path of the file at %#x: %w", uint64(inode), err)
	}
	if usualPlace(name) || below(name, places.ofRuntime) {
		return nil, nil
	}
	severity, sure, where := w.place(name, w.typeOf(w.r.Pointer(dentry, w.ps.o.super)))
	if severity == "" {
		severity, sure, where = Medium, Possible, "lies where no package puts one"
	}
	mode, gid := w.r.Uint(inode, w.o.mode), w.r.Uint(inode, w.o.gid)
	seen := fmt.Sprintf("mode %04o, owner 0, group %d", mode&0o7777, gid)
	if in.nosuid {
		severity, sure = Medium, Possible
		seen += withoutEffect
	}
	return &Finding{
		Severity: severity, Confidence: sure, Title: plantTitle(name, where, mode, gid, in.nosuid),
		Object:   Object{Kind: "file", Name: name, Addr: inode},
		Aspect:   "file",
		Expected: "setuid files of root's where packages put them", Seen: seen,
		Evidence: []Evidence{{Text: "its inode", Addr: inode}, {Text: "its dentry", Addr: dentry}},
		Basis:    "names and inodes in the memory of the guest's kernel",
		Show:     fmt.Sprintf("outsight struct {} inode %#x", uint64(inode)),
	}, w.r.Err
}

// plantTitle says what a file of root's with the setuid bit does. Without the bit of execution by the group, the setgid bit gives no group
// (bprm_fill_uid).
func plantTitle(name, where string, mode, gid uint64, nosuid bool) string {
	group := ""
	if mode&modeSetgid != 0 && mode&modeGroupX != 0 {
		group = fmt.Sprintf("group %d", gid)
		if gid == 0 {
			group = "root's group"
		}
	}
	if nosuid {
		bits := "root's setuid bit"
		if group != "" {
			bits += " and the setgid bit of " + group
		}
		return fmt.Sprintf("%s has %s, without effect: its file system is mounted nosuid; it %s", name, bits, where)
	}
	if group != "" {
		group = ", in " + group
	}
	return fmt.Sprintf("%s makes whoever runs it root%s, and %s", name, group, where)
}

// usualPlace reports whether a file is a setuid program of distributions in the tree of a system, or the sandbox that Electron's developers
// are told to make root's.
func usualPlace(name string) bool {
	base := path.Base(name)
	if !slices.Contains(usualSetuid, base) {
		return false
	}
	if (base == "chrome-sandbox" || base == "chrome_sandbox") && below(name, places.personal) {
		return true
	}
	for folder := range strings.SplitSeq(path.Dir(name), "/") {
		switch folder {
		case "bin", "sbin", "lib", "lib64", "libexec":
			return !hiddenName(name) || below(name, places.personal)
		}
	}
	return false
}
