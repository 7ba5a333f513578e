package check

import (
	"path"
	"strings"
	"sync"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// owned remembers which files only root can have put where they are: many processes share them.
type owned struct {
	mu    sync.Mutex
	known map[virt.Addr]bool // by dentry
}

// installed reports whether a file that is open at file (a struct file) is where packages put
// theirs, and only root can have put it there: a name alone is anybody's to take.
func (ps *programs) installed(file virt.Addr, name string) bool {
	if file == 0 || !packaged(name) {
		return false
	}
	r := ps.s.Reader()
	d := r.Pointer(file, ps.o.fileDentry)
	return r.Err == nil && ps.rootOwned(d)
}

// maxFolders is how deep a file may lie that is looked at.
const maxFolders = 64

// rootOwned reports whether a file and all folders above it in its file system are root's, and
// nobody else may write there. A file system that a user mounted (FUSE, or in a user namespace)
// says of its files what that user likes.
func (ps *programs) rootOwned(dentry virt.Addr) bool {
	ps.owned.mu.Lock()
	defer ps.owned.mu.Unlock()
	if v, ok := ps.owned.known[dentry]; ok {
		return v
	}
	if ps.owned.known == nil {
		ps.owned.known = map[virt.Addr]bool{}
	}
	v := ps.judgeOwner(dentry)
	ps.owned.known[dentry] = v
	return v
}

func (ps *programs) judgeOwner(dentry virt.Addr) bool {
	const othersWrite, sticky = 0o002, 0o1000
	r := ps.s.Reader()
	for depth := range maxFolders {
		i, err := ps.inodeOf(dentry)
		if err != nil || i.UID != 0 || strings.HasPrefix(i.Super.Type, "fuse") {
			return false
		}
		// Where everybody may write but not rename, as in the root of an initramfs, what is root's stays.
		if i.Mode&othersWrite != 0 && (depth < 2 || i.Mode&sticky == 0) {
			return false
		}
		if first, ok := ps.s.Address("init_user_ns"); ok && ps.o.userNS.Present() && r.Pointer(i.Super.Addr, ps.o.userNS) != first {
			return false
		}
		above := r.Pointer(dentry, ps.o.parent)
		if r.Err != nil || above == dentry {
			return r.Err == nil
		}
		dentry = above
	}
	return false
}

// inodeOf is the file that a dentry names.
func (ps *programs) inodeOf(dentry virt.Addr) (*linux.INode, error) {
	o, err := ps.s.InodesLayout()
	if err != nil {
		return nil, err
	}
	r := ps.s.Reader()
	super, inode := r.Pointer(dentry, ps.o.super), r.Pointer(dentry, ps.o.inode)
	switch {
	case r.Err != nil:
		return nil, r.Err
	case super == 0 || inode == 0:
		return nil, kobj.ErrBroken
	}
	sb, err := ps.s.SuperBlock(super, o)
	if err != nil {
		return nil, err
	}
	return ps.s.Inode(&r, inode, sb, o)
}

// belief is how far a name is believed that says what a program is.
type belief int

const (
	unknownFile  belief = iota // it has another name, or lies where anybody may put a file
	usersFile                  // where users put theirs
	packagesFile               // installed
)

// named is how far a file is believed to be one of those that are named so.
func (ps *programs) named(file virt.Addr, name string, of []string) belief {
	switch {
	case !isOneOf(path.Base(name), of), file == 0, temporary(name), strings.HasPrefix(name, memfdPrefix):
		return unknownFile
	case ps.installed(file, name):
		return packagesFile
	}
	return usersFile
}
