package linux

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

type inodesLayout struct {
	supers                                         virt.Addr // list of all
	list, inodes, sbType, sbDev, sbRoot, sbOps     kobj.Field
	typeName                                       kobj.Field
	size, uid, gid, mode, ino, nlink, mapping      kobj.Field
	sbList, dentry, alias                          kobj.Field
	atime, mtime, ctime, atimeNs, mtimeNs, ctimeNs kobj.Field
	nrPages, link                                  kobj.Field
	shmemOps                                       virt.Addr
	shmemInode, shmemSwapped                       kobj.Field
	inodeSize                                      uint32
}

// InodesLayout resolves what leads to file systems and their inodes.
func (s *System) InodesLayout() (*inodesLayout, error) {
	return kobj.LayoutOf(s.Walker, "inodes", func(r *kobj.Resolver, o *inodesLayout) {
		r.Prefetch("super_blocks", "shmem_ops")
		var err error
		if o.supers, err = s.ListHead("super_blocks"); err != nil {
			r.Errs = append(r.Errs, err)
		}
		const sb, i = "super_block", "inode"
		o.list, o.inodes, o.sbType = r.Field(sb, "s_list"), r.Field(sb, "s_inodes"), r.Field(sb, "s_type")
		o.sbDev, o.sbRoot, o.sbOps = r.Field(sb, "s_dev"), r.Field(sb, "s_root"), r.Field(sb, "s_op")
		o.typeName = r.Field("file_system_type", "name")
		o.inodeSize, o.size = r.Size(i), r.Field(i, "i_size")
		o.uid, o.gid, o.mode = r.Field(i, "i_uid"), r.Field(i, "i_gid"), r.Field(i, "i_mode")
		o.ino, o.nlink = r.Field(i, "i_ino"), r.Field(i, "i_nlink", "__i_nlink")
		o.mapping, o.sbList = r.Field(i, "i_mapping"), r.Field(i, "i_sb_list")
		o.dentry, o.alias = r.Field(i, "i_dentry"), r.Field("dentry", "d_u.d_alias", "d_alias")
		// Seconds and nanoseconds went apart in 6.11; ctime had its own name from 6.6 on.
		o.atime = r.Field(i, "i_atime_sec", "__i_atime.tv_sec", "i_atime.tv_sec")
		o.mtime = r.Field(i, "i_mtime_sec", "__i_mtime.tv_sec", "i_mtime.tv_sec")
		o.ctime = r.Field(i, "i_ctime_sec", "__i_ctime.tv_sec", "i_ctime.tv_sec")
		o.atimeNs = r.Field(i, "i_atime_nsec", "__i_atime.tv_nsec", "i_atime.tv_nsec")
		o.mtimeNs = r.Field(i, "i_mtime_nsec", "__i_mtime.tv_nsec", "i_mtime.tv_nsec")
		o.ctimeNs = r.Field(i, "i_ctime_nsec", "__i_ctime.tv_nsec", "i_ctime.tv_nsec")
		o.nrPages, o.link = r.Field("address_space", "nrpages"), r.Field(i, "i_link")
		o.shmemInode, o.shmemSwapped = r.Optional("shmem_inode_info", "vfs_inode"), r.Optional("shmem_inode_info", "swapped")
		var named bool
		if o.shmemOps, named = s.Address("shmem_ops"); !named && len(r.Errs) == 0 {
			o.shmemOps = s.shmemOps(o)
		}
	})
}

// shmemOps is what the file systems that shmem keeps have in common, in a kernel without
// CONFIG_KALLSYMS_ALL: every kernel mounts one of type tmpfs for itself (mm/shmem.c). 0 where
// there is none, as without CONFIG_SHMEM, where ramfs stands in for it.
func (s *System) shmemOps(o *inodesLayout) virt.Addr {
	if !o.shmemInode.Present() {
		return 0
	}
	for node, err := range s.List(context.Background(), o.supers, maxSupers) {
		if err != nil {
			return 0
		}
		r, a := s.Reader(), node-virt.Addr(o.list.Offset)
		if r.CString(r.Pointer(r.Pointer(a, o.sbType), o.typeName), MaxName) == "tmpfs" && r.Err == nil {
			return r.Pointer(a, o.sbOps)
		}
	}
	return 0
}

// SuperBlock is a file system that is mounted, or that the kernel has for itself.
type SuperBlock struct {
	Type   string
	Device Device
	Root   virt.Addr // dentry
	Shmem  bool      // it keeps its files in memory and swap alone: tmpfs, memfd
	Addr   virt.Addr
}

// INode is a file that the kernel has in memory, open or not.
type INode struct {
	Super               *SuperBlock
	Number              uint64
	Mode                uint32 // st_mode
	Links               uint32
	UID, GID            uint32
	Size                uint64 // in bytes
	Cached              uint64 // in bytes: its pages in the page cache
	Swapped             uint64 // in bytes: of a file of tmpfs
	ATime, MTime, CTime time.Time
	Dentry              virt.Addr // the first of its names; 0 without one
	Mapping             virt.Addr // address_space
	Addr                virt.Addr
}

const (
	maxSupers = 1 << 18
	maxInodes = 8 << 20
)

// SuperBlocks yields the file systems that exist, in order of their making.
func (s *System) SuperBlocks(ctx context.Context) iter.Seq2[*SuperBlock, error] {
	return func(yield func(*SuperBlock, error) bool) {
		o, err := s.InodesLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		for node, err := range s.List(ctx, o.supers, maxSupers) {
			var sb *SuperBlock
			if err == nil {
				sb, err = s.SuperBlock(node-virt.Addr(o.list.Offset), o)
			}
			if err != nil {
				err = fmt.Errorf("file systems: %w", err)
			}
			if !yield(sb, err) {
				return
			}
		}
	}
}

// SuperBlock reads the struct super_block at a.
func (s *System) SuperBlock(a virt.Addr, o *inodesLayout) (_ *SuperBlock, err error) {
	r := s.Reader()
	sb := &SuperBlock{Addr: a, Device: Device(r.Uint(a, o.sbDev)), Root: r.Pointer(a, o.sbRoot)}
	sb.Type = r.CString(r.Pointer(r.Pointer(a, o.sbType), o.typeName), MaxName)
	sb.Shmem = o.shmemOps != 0 && r.Pointer(a, o.sbOps) == o.shmemOps
	if r.Err != nil {
		return nil, fmt.Errorf("super_block at %#x: %w", uint64(a), r.Err)
	}
	return sb, nil
}

// INodes yields the files of sb that the kernel has in memory.
func (s *System) INodes(ctx context.Context, sb *SuperBlock) iter.Seq2[*INode, error] {
	return func(yield func(*INode, error) bool) {
		o, err := s.InodesLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		r := s.Reader()
		for node, err := range s.List(ctx, o.inodes.At(sb.Addr), maxInodes) {
			var i *INode
			if err == nil {
				i, err = s.Inode(&r, node-virt.Addr(o.sbList.Offset), sb, o)
			}
			if err != nil {
				err = fmt.Errorf("files of the %s at %#x: %w", sb.Type, uint64(sb.Addr), err)
			}
			if !yield(i, err) {
				return
			}
		}
	}
}

// Inode reads the struct inode at a, which belongs to sb.
func (s *System) Inode(r *kobj.Reader, a virt.Addr, sb *SuperBlock, o *inodesLayout) (_ *INode, err error) {
	r.Err = nil
	b := r.Bytes(a, int(min(o.inodeSize, 4096)))
	i := &INode{Super: sb, Addr: a, Number: FieldIn(b, o.ino), Mode: uint32(FieldIn(b, o.mode)), Links: uint32(FieldIn(b, o.nlink))}
	i.UID, i.GID = uint32(FieldIn(b, o.uid)), uint32(FieldIn(b, o.gid))
	i.Size, i.Mapping = FieldIn(b, o.size), virt.Addr(FieldIn(b, o.mapping))
	stamp := func(sec, ns kobj.Field) time.Time {
		// Bit 31 of i_ctime_nsec says that someone has asked for it (I_CTIME_QUERIED, since 6.13).
		return time.Unix(int64(FieldIn(b, sec)), int64(FieldIn(b, ns)&^(1<<31))).UTC()
	}
	i.ATime, i.MTime, i.CTime = stamp(o.atime, o.atimeNs), stamp(o.mtime, o.mtimeNs), stamp(o.ctime, o.ctimeNs)
	if first := virt.Addr(FieldIn(b, o.dentry)); first != 0 {
		i.Dentry = first - virt.Addr(o.alias.Offset)
	}
	if i.Mapping != 0 {
		i.Cached = r.Uint(i.Mapping, o.nrPages) * phys.PageSize
	}
	if sb.Shmem && o.shmemSwapped.Present() {
		i.Swapped = r.Uint(a-virt.Addr(o.shmemInode.Offset), o.shmemSwapped) * phys.PageSize
	}
	if r.Err != nil {
		return nil, fmt.Errorf("inode at %#x: %w", uint64(a), r.Err)
	}
	return i, nil
}
