package check

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// A table in the data of a module that is on the list may be the module's to put there, or not: a file system's files
// are served by that file system's module and the kernel, and a network device by its driver. A module that puts a table of its own
// into the objects of others, and that nobody vouches for, does what rootkits do.

// server is who may serve an object.
type server struct {
	name   string // of the type of file system
	module virt.Addr
	// closed says that nobody else may. Files of some file systems (debugfs, devices) are made by any module.
	closed bool
}

// kernelItself stands for the kernel in [opsKey.of].
const kernelItself = 1

// closedTypes are file systems without a device of which files are served by nobody but themselves and the kernel.
// Those not named are open: modules make files in debugfs, tracefs, configfs, securityfs, anon_inodefs and others.
var closedTypes = []string{
	"rootfs", "ramfs", "tmpfs", "devtmpfs", "hugetlbfs", "overlay", "9p", "nfs", "nfs4", "cifs", "smb3", "ceph", "fuse", "virtiofs",
	"proc", "sysfs", "cgroup", "cgroup2", "devpts",
}

// fileSystem is who may serve a file of a super block.
func (w *opsWalk) fileSystem(o *opsLayout, super virt.Addr) server {
	if super == 0 {
		return server{}
	}
	kind := w.r.Pointer(super, o.fsType)
	if fs, ok := w.types[kind]; ok {
		return fs
	}
	const requiresDevice = 1 // FS_REQUIRES_DEV
	fs := server{name: w.r.CString(w.r.Pointer(kind, o.typeName), maxName), module: w.r.Pointer(kind, o.typeOwner)}
	fs.closed = o.typeOwner.Present() && (w.r.Uint(kind, o.typeFlags)&requiresDevice != 0 || slices.Contains(closedTypes, fs.name))
	if w.r.Err != nil {
		return server{}
	}
	if len(w.types) < maxTypes {
		w.types[kind] = fs
	}
	return fs
}

// maxTypes bounds the types of file systems that are remembered.
const maxTypes = 1 << 10

// plain reports whether a file of that mode is a regular file, a folder or a link: special files are served by others than
// their file system.
func plain(mode uint64) bool {
	const mask, regular, folder, link = 0o170000, 0o100000, 0o040000, 0o120000
	return mode&mask == regular || mode&mask == folder || mode&mask == link
}

// served judges who serves an object: once for each table, and each module whose object has it.
func (w *opsWalk) served(kind *operations, table virt.Addr, by server, object func() string) {
	if table == 0 || !by.closed || w.ended || w.image.holds(table) {
		return
	}
	key := opsKey{kind, table, cmp.Or(by.module, kernelItself)}
	if w.seen[key] || len(w.seen) >= maxServed {
		return
	}
	w.seen[key] = true
	if w.passing != nil {
		w.passing.seen = append(w.passing.seen, key)
	}
	holder := w.owners.HolderAt(table)
	if holder.Kind != linux.OwnerModule {
		return // judge says what is to be said of that
	}
	of, ownerName := "the kernel", ""
	if by.module != 0 {
		m, err := w.s.Linux.ModuleAt(by.module)
		if err != nil {
			return
		}
		of, ownerName = "module "+m.Name, m.Name
	}
	w.key = key
	w.strange(kind, table, holder.Name, ownerName, of, object)
	w.key = opsKey{}
}

// maxServed bounds what is remembered of tables.
const maxServed = 1 << 20

// strange is a finding if a module that nobody vouches for has the table of an object that is another's. One that somebody
// else built may consist of several modules: then their owner is strange as well.
func (w *opsWalk) strange(kind *operations, table virt.Addr, holder, owner, of string, object func() string) {
	if holder == owner || w.faulty[table] {
		return
	}
	st, m := w.s.standingOf(w.ctx, holder)
	if m == nil || st.vouched || st.strange == "" {
		return
	}
	if owner != "" {
		if o, _ := w.s.standingOf(w.ctx, owner); !o.vouched && o.strange != "" {
			return
		}
	}
	w.doubted = table
	w.foundAs(Likely, kind, table, object(), fmt.Sprintf("has %s of module %s (%s)", kind.structure, holder, st.strange), "a table of "+of, fmt.Sprintf("%#x, in the data of module %s", uint64(table), holder), table, "")
	w.doubted = 0
}

// driven judges a table of what lies, itself or with another table, in the data of its driver: drivers of large things are several modules.
func (w *opsWalk) driven(kind *operations, table, driver virt.Addr, object func() string) {
	of, holder := w.owners.HolderAt(driver), w.owners.HolderAt(table)
	if table == 0 || holder.Kind != linux.OwnerModule {
		return
	}
	switch of.Kind {
	case linux.OwnerKernel:
		w.strange(kind, table, holder.Name, "", "the kernel", object)
	case linux.OwnerModule:
		w.strange(kind, table, holder.Name, of.Name, "module "+of.Name, object)
	}
}

// deviceServed judges who serves a network device: the module that has its operations, or that has those of another device,
// as those do that a bond or team takes the place of.
func (w *opsWalk) deviceServed(o *opsLayout, dev, ops, header, ethtool virt.Addr, name func() string) {
	driver := w.owners.HolderAt(ops)
	const loopback = 8 // IFF_LOOPBACK
	if o.deviceFlags.Present() && w.r.Uint(dev, o.deviceFlags)&loopback != 0 && w.r.Err == nil {
		w.served(&deviceOps, ops, server{closed: true}, name)
		driver = linux.Owner{Kind: linux.OwnerKernel}
	}
	if driver.Kind == linux.OwnerModule {
		w.drivers[driver.Name] = true
	}
	owner, of := "", "the kernel"
	if driver.Kind == linux.OwnerModule {
		owner, of = driver.Name, "module "+driver.Name
	}
	for _, t := range []opsKey{{kind: &headerOps, table: header}, {kind: &ethtoolOps, table: ethtool}} {
		if t.table == 0 {
			continue
		}
		if holder := w.owners.HolderAt(t.table); holder.Kind == linux.OwnerModule && holder.Name != owner {
			w.others = append(w.others, otherServer{t, holder.Name, owner, of, name()})
		}
	}
}

// otherServer is a table of a network device that is not its driver's.
type otherServer struct {
	opsKey
	holder, owner, of, object string
}

// devicesServed judges the tables of network devices that are not their drivers', once all drivers are known.
func (w *opsWalk) devicesServed() {
	for _, t := range w.others {
		if !w.drivers[t.holder] {
			w.strange(t.kind, t.table, t.holder, t.owner, t.of, func() string { return t.object })
		}
	}
}
