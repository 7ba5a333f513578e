package check

import (
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/trace/told"
	"github.com/outsight-vmi/outsight/virt"
)

// folderLayout is where members of the structures lie that names in directories are told apart by.
type folderLayout struct {
	name, length, inode, hashed, children, sibling kobj.Field // of dentry
	parent                                         kobj.Field
	list                                           bool       // children are a list, else an hlist, since 6.8 (da549bdd15c2)
	number, super, flags, seconds                  kobj.Field // of inode
	magic                                          kobj.Field // of super_block
}

func (c *listening) folderLayout() (*folderLayout, error) {
	return kobj.LayoutOf(c.Linux.Walker, "names in directories", func(r *kobj.Resolver, o *folderLayout) {
		const d, i = "dentry", "inode"
		o.name, o.length = r.Field(d, "d_name.name", "d_name.__name", "__d_name.name"), r.Field(d, "d_name.len", "__d_name.len")
		o.inode, o.hashed, o.parent = r.Field(d, "d_inode"), r.Field(d, "d_hash.pprev"), r.Field(d, "d_parent")
		o.children, o.sibling = r.Optional(d, "d_children"), r.Optional(d, "d_sib")
		if !o.children.Present() {
			o.children, o.sibling, o.list = r.Field(d, "d_subdirs"), r.Field(d, "d_child"), true
		}
		o.number, o.super, o.flags = r.Field(i, "i_ino"), r.Field(i, "i_sb"), r.Field(i, "i_flags")
		o.seconds = r.Field(i, "i_ctime_sec", "__i_ctime.tv_sec", "i_ctime.tv_sec") // as in linux.InodesLayout
		o.magic = r.Field("super_block", "s_magic")
	})
}

const (
	// folds are S_ENCRYPTED and S_CASEFOLD (include/linux/fs.h): names are listed in other words than they were looked up by.
	folds = 1<<14 | 1<<15
	// settled is how much older a change has to be than an answer, by the guest's clock, that the answer knows it: clocks
	// of files go in ticks, and the guest's own is known only as of its last update.
	settled = 2 * time.Second
	// maxListed bounds the directories that one run looks at, and maxListedNames the names in each.
	maxListed      = 1 << 13
	maxListedNames = 1 << 16
)

// files looks for names that listings of directories left out.
//
// That a name was there before and after is known without a look before: what changes the names in a directory sets the
// time of change (ctime) of the directory and of the file. If one of them is older than the answer, the name was there.
func (c *listening) files() bool {
	byFolder := map[virt.Addr][]*told.Reading{}
	for _, r := range c.of(told.Directory) {
		if r.File.Magic != told.MagicProc && r.File.Magic != told.MagicSysfs {
			byFolder[r.File.Dentry] = append(byFolder[r.File.Dentry], r)
		}
	}
	if len(byFolder) == 0 {
		return true
	}
	o, err := c.folderLayout()
	if err != nil {
		return c.yield(nil, fmt.Errorf("names in directories: %w", err))
	}
	now, known := clockOf(c.Look)
	if !known || !c.heard.clocks {
		return c.yield(nil, fmt.Errorf("names in directories: the guest's clock cannot be read"))
	}
	clock := min(now, c.heard.clock) // an idle guest's is old, and one that was set back makes new files look old
	left := maxListed
	for folder, readings := range byFolder {
		if left--; left < 0 {
			return c.yield(nil, fmt.Errorf("names in directories: programs listed more than %d; the rest is not compared", maxListed))
		}
		if !c.folder(o, folder, readings, clock) {
			return false
		}
	}
	return true
}

// folder compares one directory with the answers that programs got of it.
func (c *listening) folder(o *folderLayout, folder virt.Addr, readings []*told.Reading, clock time.Duration) bool {
	r := c.Linux.Reader()
	first := readings[0].File
	inode := r.Pointer(folder, o.inode)
	if r.Err != nil || inode != first.Inode || r.Uint(inode, o.number) != first.Number || r.Pointer(inode, o.super) != first.Super ||
		r.Uint(first.Super, o.magic) != first.Magic || r.Uint(inode, o.flags)&folds != 0 || r.Err != nil {
		return true // it is gone, and its memory used for another, or it folds names
	}
	changed := r.Uint(inode, o.seconds)
	names := c.Linux.HList(c.ctx, o.children.At(folder), maxListedNames)
	if o.list {
		names = c.Linux.List(c.ctx, o.children.At(folder), maxListedNames)
	}
	for node, err := range names {
		if err != nil {
			return true // it changes: then nothing can be said of it
		}
		d := node - o.sibling.At(0)
		child := r.Pointer(d, o.inode)
		if child == 0 || r.Pointer(d, o.hashed) == 0 || r.Pointer(d, o.parent) != folder || r.Err != nil {
			r.Err = nil
			continue // a name that does not exist, or was just taken away
		}
		n := r.Uint(d, o.length)
		if n == 0 || n > linux.MaxName {
			continue
		}
		name := string(r.Bytes(r.Pointer(d, o.name), int(n)))
		since := min(changed, r.Uint(child, o.seconds))
		if r.Err != nil {
			r.Err = nil
			continue
		}
		var asked []*told.Reading
		for _, a := range readings {
			if a.File.Inode == inode && time.Unix(int64(since), 0).Add(time.Second).Before(a.Began.Add(clock-settled)) {
				asked = append(asked, a)
			}
		}
		if len(asked) == 0 {
			continue
		}
		f := c.left(Object{Kind: "file", Name: name, Addr: d}, fmt.Sprintf("file %q", name), fmt.Sprintf("outsight struct {} dentry %#x", uint64(d)),
			false, asked, func(a *told.Reading) bool { return a.Names[name] })
		if !c.found(f) {
			return false
		}
	}
	return true
}
