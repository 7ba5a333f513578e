// Package cached shows the files of a running guest's disk as its kernel has them. What was written a moment ago is in its page cache
// and its inodes alone, and gets to the disk seconds later.
package cached

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/ext4"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// ErrNotMounted says that the guest has not mounted a file system.
var ErrNotMounted = errors.New("the guest has not mounted it")

// An FS is a file system with what the guest's kernel knows better. It is for one look at the guest.
type FS struct {
	disk.FileSystem
	s      *linux.System
	mem    phys.Memory
	inodes map[uint64]*linux.INode
	memory string
	notes  []string
}

type layout struct {
	uuid, bdev, mapping, inode, inodeMapping kobj.Field
}

func layoutOf(s *linux.System) (*layout, error) {
	return kobj.LayoutOf(s.Walker, "file systems on disks", func(r *kobj.Resolver, o *layout) {
		o.uuid, o.bdev = r.Field("super_block", "s_uuid"), r.Field("super_block", "s_bdev")
		o.mapping = r.Optional("block_device", "bd_mapping") // 6.10
		o.inode, o.inodeMapping = r.Optional("block_device", "bd_inode"), r.Field("inode", "i_mapping")
	})
}

// Over lays what the guest's kernel has in memory over a file system, which is on a device. The guest's is found by its UUID. Pages of files
// are read from mem when they are asked for: in a guest that runs they may have been used for something else by then, if
// it gets short of memory.
func Over(ctx context.Context, s *linux.System, mem phys.Memory, device disk.Device, f disk.FileSystem) (*FS, error) {
	o, err := layoutOf(s)
	if err != nil {
		return nil, err
	}
	info := f.Info()
	sb, err := mounted(ctx, s, o, strings.ReplaceAll(info.UUID, "-", ""))
	if err != nil {
		return nil, err
	}
	c := &FS{FileSystem: f, s: s, mem: mem, inodes: map[uint64]*linux.INode{}}
	damaged := 0
	for i, err := range s.INodes(ctx, sb) {
		if err != nil {
			damaged++
			continue
		}
		c.inodes[i.Number] = i
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.memory = fmt.Sprintf("%d files are shown as the guest has them in memory", len(c.inodes))
	if damaged > 0 {
		c.notes = append(c.notes, fmt.Sprintf("%d files that the guest has in memory could not be read there", damaged))
	}
	if !strings.HasPrefix(info.Kind, "ext") {
		c.notes = append(c.notes, "names that the guest has not written to its log yet are missing")
		return c, nil
	}
	pages, err := blockPages(ctx, s, o, sb, info.BlockSize)
	if err != nil {
		return nil, err
	}
	if c.FileSystem, err = ext4.OpenNewer(device, func(d disk.Device) disk.Device { return &blocks{d, mem, pages} }); err != nil {
		return nil, fmt.Errorf("with the metadata that the guest has in memory: %w", err)
	}
	return c, nil
}

// mounted finds the guest's own file system.
func mounted(ctx context.Context, s *linux.System, o *layout, uuid string) (*linux.SuperBlock, error) {
	const uuidSize = 16
	if strings.Trim(uuid, "0") == "" {
		return nil, fmt.Errorf("a file system without a UUID: %w", ErrNotMounted)
	}
	var found *linux.SuperBlock
	for sb, err := range s.SuperBlocks(ctx) {
		if err != nil {
			continue // another one's
		}
		r := s.Reader()
		if r.Pointer(sb.Addr, o.bdev) != 0 && fmt.Sprintf("%x", r.Bytes(o.uuid.At(sb.Addr), uuidSize)) == uuid && r.Err == nil {
			if found != nil {
				return nil, fmt.Errorf("the guest has mounted two file systems with the UUID %s: which one this is cannot be told", uuid)
			}
			found = sb
		}
	}
	if found == nil {
		return nil, ErrNotMounted
	}
	return found, nil
}

// blockPages are the pages of a block device that the kernel has: metadata, as of now.
func blockPages(ctx context.Context, s *linux.System, o *layout, sb *linux.SuperBlock, blockSize int64) (p places, err error) {
	r := s.Reader()
	bdev := r.Pointer(sb.Addr, o.bdev)
	var mapping virt.Addr
	switch {
	case o.mapping.Present():
		mapping = r.Pointer(bdev, o.mapping)
	case o.inode.Present():
		mapping = r.Pointer(r.Pointer(bdev, o.inode), o.inodeMapping)
	default:
		return p, fmt.Errorf("pages of a block device: %w", kobj.ErrUnsupported)
	}
	if r.Err != nil {
		return p, fmt.Errorf("pages of the block device at %#x: %w", uint64(bdev), r.Err)
	}
	return placesOf(min(blockSize, phys.PageSize), s.CachedBlocks(ctx, &linux.INode{Super: sb, Mapping: mapping}))
}

// places are where the kernel has bytes of a file or device.
type places struct {
	unit int64               // of bytes that are together, a power of two
	at   map[int64]phys.Addr // by their number in units
}

// placesOf are those that are valid.
func placesOf(unit int64, cached iter.Seq2[linux.CachedRange, error]) (places, error) {
	p := places{unit, map[int64]phys.Addr{}}
	for c, err := range cached {
		if err != nil {
			return p, err
		}
		if !c.Valid || c.Swapped || (c.Offset|c.Size)&uint64(unit-1) != 0 {
			continue
		}
		for at := int64(0); at < int64(c.Size); at += unit {
			p.at[(int64(c.Offset)+at)/unit] = c.PA + phys.Addr(at)
		}
	}
	return p, nil
}

// blocks is a device with pages of memory over it.
type blocks struct {
	disk.Device
	mem   phys.Memory
	pages places
}

func (b *blocks) ReadAt(p []byte, offset int64) (int, error) {
	n, err := b.Device.ReadAt(p, offset)
	if err := b.pages.over(b.mem, p[:n], offset); err != nil {
		return 0, err
	}
	return n, err
}

// over replaces what memory has of bytes that were read at an offset. What lies together is read at once.
func (have places) over(mem phys.Memory, p []byte, offset int64) error {
	if len(have.at) == 0 {
		return nil
	}
	for done := int64(0); done < int64(len(p)); {
		at := offset + done
		number, within := at/have.unit, at%have.unit
		n := min(have.unit-within, int64(len(p))-done)
		pa, ok := have.at[number]
		if !ok {
			done += n
			continue
		}
		for next := int64(1); done+n < int64(len(p)); next++ {
			if more, ok := have.at[number+next]; !ok || more != pa+phys.Addr(next*have.unit) {
				break
			}
			n = min(n+have.unit, int64(len(p))-done)
		}
		if _, err := mem.ReadAt(p[done:done+n], pa+phys.Addr(within)); err != nil {
			return fmt.Errorf("byte %#x, in the guest's memory at %#x: %w", at, uint64(pa)+uint64(within), err)
		}
		done += n
	}
	return nil
}

// Info is what the file system says of itself, and what of it is from memory.
func (f *FS) Info() disk.Info {
	info := f.FileSystem.Info()
	info.Elsewhere = append(slices.Clone(info.Elsewhere), f.memory)
	info.Notes = append(slices.Clone(info.Notes), f.notes...)
	return info
}

// Root is the root directory.
func (f *FS) Root() (disk.Node, error) {
	n, err := f.FileSystem.Root()
	if err != nil {
		return nil, err
	}
	return f.over(n), nil
}

// Node reads an inode.
func (f *FS) Node(number uint64) (disk.Node, error) {
	n, err := f.FileSystem.Node(number)
	if err != nil {
		return nil, err
	}
	return f.over(n), nil
}

// Nodes are all inodes.
func (f *FS) Nodes() iter.Seq2[disk.Node, error] {
	return func(yield func(disk.Node, error) bool) {
		for n, err := range f.FileSystem.Nodes() {
			if err == nil {
				n = f.over(n)
			}
			if !yield(n, err) {
				return
			}
		}
	}
}

func (f *FS) over(n disk.Node) disk.Node {
	i := f.inodes[n.Stat().Inode]
	if i == nil {
		return n
	}
	return &node{n, f, i}
}

// A node is one that the kernel has in memory.
type node struct {
	disk.Node
	fs *FS
	i  *linux.INode
}

// Stat is what the kernel knows; what only the disk has is left as it is.
func (n *node) Stat() disk.Stat {
	s := n.Node.Stat()
	if n.i.Mode != 0 {
		s.Mode = n.i.Mode
	}
	s.UID, s.GID, s.Links = n.i.UID, n.i.GID, n.i.Links
	if s.Type() == disk.TypeRegular && n.i.Size < 1<<62 {
		s.Size = int64(n.i.Size)
	}
	s.Accessed, s.Modified, s.Changed = n.i.ATime.Local(), n.i.MTime.Local(), n.i.CTime.Local()
	return s
}

// Target is where a symbolic link leads. Before Linux 5.19 that of a long one is in its pages.
func (n *node) Target() (string, error) {
	const longest = 4096
	if size := n.i.Size; n.Stat().Type() == disk.TypeLink && n.i.Cached > 0 && size > 0 && size < longest {
		pages, err := placesOf(phys.PageSize, n.fs.s.CachedPages(context.Background(), n.i))
		if err == nil && len(pages.at) > 0 {
			b := make([]byte, size)
			err = pages.over(n.fs.mem, b, 0)
			return string(b), err
		}
	}
	return n.Node.Target()
}

// Content is what is in a regular file, from memory where that has it.
func (n *node) Content() (disk.Content, error) {
	c, err := n.Node.Content()
	if err != nil {
		return nil, err
	}
	pages, err := placesOf(phys.PageSize, n.fs.s.CachedPages(context.Background(), n.i))
	if err != nil {
		return nil, err
	}
	return &content{c, n.fs.mem, n.Stat().Size, pages}, nil
}

type content struct {
	below disk.Content
	mem   phys.Memory
	size  int64
	pages places
}

func (c *content) Size() int64 { return c.size }

func (c *content) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, errors.New("cached: negative offset")
	}
	if offset >= c.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > c.size-offset {
		p, end = p[:c.size-offset], io.EOF
	}
	n, err := c.below.ReadAt(p, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, err
	}
	clear(p[n:]) // it has grown in memory
	if err := c.pages.over(c.mem, p, offset); err != nil {
		return 0, err
	}
	return len(p), end
}

// Extents are those on the disk, and those in memory, which are newer where both are.
func (c *content) Extents() iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		numbers := slices.Sorted(maps.Keys(c.pages.at))
		memory := c.runs(numbers)
		// before yields what memory has before a place in the file.
		before := func(at int64) bool {
			for len(memory) > 0 && memory[0].Logical < at {
				if !yield(memory[0], nil) {
					return false
				}
				memory = memory[1:]
			}
			return true
		}
		for e, err := range c.below.Extents() {
			if err != nil {
				yield(e, err)
				return
			}
			if e.Logical >= c.size {
				break
			}
			e.Length = min(e.Length, c.size-e.Logical)
			for _, part := range outside(e, numbers) {
				if !before(part.Logical) || !yield(part, nil) {
					return
				}
			}
		}
		before(c.size)
	}
}

// runs are the pages that follow each other, as extents.
func (c *content) runs(numbers []int64) (runs []disk.Extent) {
	for i := 0; i < len(numbers) && numbers[i]*phys.PageSize < c.size; {
		last := i
		for last+1 < len(numbers) && numbers[last+1] == numbers[last]+1 {
			last++
		}
		at := numbers[i] * phys.PageSize
		runs = append(runs, disk.Extent{Logical: at, Physical: -1, Length: min((numbers[last]+1)*phys.PageSize, c.size) - at, Memory: true})
		i = last + 1
	}
	return runs
}

// outside are the parts of an extent that are in no page of memory.
func outside(e disk.Extent, numbers []int64) (parts []disk.Extent) {
	end := e.Logical + e.Length
	part := func(from, to int64) {
		if from >= to {
			return
		}
		p := e
		p.Logical, p.Length = from, to-from
		if e.Physical >= 0 {
			p.Physical = e.Physical + from - e.Logical
		}
		parts = append(parts, p)
	}
	at := e.Logical
	for i := sort.Search(len(numbers), func(i int) bool { return (numbers[i]+1)*phys.PageSize > at }); i < len(numbers) && numbers[i]*phys.PageSize < end; i++ {
		part(at, numbers[i]*phys.PageSize)
		at = min((numbers[i]+1)*phys.PageSize, end)
	}
	part(at, end)
	return parts
}
