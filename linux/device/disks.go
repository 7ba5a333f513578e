package device

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Disk is a block device: a disk, or a partition of one.
type Disk struct {
	Name         string // as in /sys/class/block
	Major, Minor uint32
	Partition    uint32 // its number; 0 for a whole disk
	Start, Size  uint64 // in bytes
	ReadOnly     bool
	Removable    bool
	// Done since it was there.
	Reads, Writes         uint64 // requests
	ReadBytes, WriteBytes uint64
	Ops                   virt.Addr // block_device_operations of the disk
	Device                virt.Addr // struct device
	Disk                  virt.Addr // struct gendisk
}

type diskLayout struct {
	kset, klist, class               kobj.Field // subsys_private
	ksetEntry, ksetList              kobj.Field
	knode, private                   kobj.Field // klist_node in device_private, device
	devt, name, parent               kobj.Field // device
	device, start, size, stats       kobj.Field // block_device; hd_struct up to 5.10
	partno, disk, readOnly, bdFlags  kobj.Field
	policy                           kobj.Field
	old                              bool
	part0, fops, flags, diskReadOnly kobj.Field // gendisk
	inode, inodeSize                 kobj.Field // where the device has no size of its own
	ios, sectors                     kobj.Field // disk_stats
}

func diskLayoutOf(s *linux.System) (*diskLayout, error) {
	return kobj.LayoutOf(s.Walker, "disks", func(r *kobj.Resolver, o *diskLayout) {
		r.Prefetch("class_kset", "block_class")
		const d, g = "device", "gendisk"
		o.kset, o.klist, o.class = r.Field("subsys_private", "subsys"), r.Field("subsys_private", "klist_devices.k_list"), r.Field("subsys_private", "class")
		o.ksetList, o.ksetEntry = r.Field("kset", "list"), r.Field("kset", "kobj.entry")
		o.knode, o.private = r.Field("device_private", "knode_class.n_node"), r.Field("device_private", "device")
		o.devt, o.name, o.parent = r.Field(d, "devt"), r.Field(d, "kobj.name"), r.Field(d, "parent")
		part := "block_device"
		if o.device = r.Optional(part, "bd_device"); !o.device.Present() { // 5.11
			part, o.old = "hd_struct", true
			o.device, o.partno, o.policy = r.Field(part, "__dev"), r.Field(part, "partno"), r.Field(part, "policy")
			o.part0 = r.Field(g, "part0")
		} else {
			o.disk, o.partno = r.Field(part, "bd_disk"), r.Optional(part, "bd_partno")
			o.bdFlags = r.Optional(part, "__bd_flags") // 6.10: partition number and flags in one word
			o.readOnly, o.diskReadOnly = r.Optional(part, "bd_read_only"), r.Optional(g, "state")
		}
		o.start, o.stats = r.Field(part, "bd_start_sect", "start_sect"), r.Field(part, "bd_stats", "dkstats")
		if o.size = r.Optional(part, "bd_nr_sectors", "nr_sects"); !o.size.Present() { // 5.11 to 5.15
			o.inode, o.inodeSize = r.Field(part, "bd_inode"), r.Field("inode", "i_size")
		}
		o.fops, o.flags = r.Field(g, "fops"), r.Field(g, "flags")
		o.ios, o.sectors = r.Field("disk_stats", "ios"), r.Field("disk_stats", "sectors")
	})
}

const (
	maxClasses = 1 << 14
	maxDisks   = 1 << 20
	sector     = 512 // bytes, whatever the disk's own are
)

// Disks yields the block devices in the order in which they were added.
func Disks(ctx context.Context, s *linux.System) iter.Seq2[*Disk, error] {
	return func(yield func(*Disk, error) bool) {
		o, err := diskLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		devices, err := blockDevices(ctx, s, o)
		if err != nil {
			yield(nil, fmt.Errorf("disks: %w", err))
			return
		}
		for node, err := range s.List(ctx, devices, maxDisks) {
			var d *Disk
			if err == nil {
				d, err = diskAt(s, o, node-virt.Addr(o.knode.Offset))
			}
			if err != nil {
				d, err = nil, fmt.Errorf("disks: %w", err)
			}
			if !yield(d, err) {
				return
			}
		}
	}
}

// blockDevices is the list of the devices of class block.
func blockDevices(ctx context.Context, s *linux.System, o *diskLayout) (virt.Addr, error) {
	class, err := s.SymbolAddr("block_class")
	if err != nil {
		return 0, fmt.Errorf("%w: %w", kobj.ErrUnsupported, err) // built without CONFIG_BLOCK
	}
	kset, err := s.Pointer("class_kset")
	if err != nil {
		return 0, err
	}
	for node, err := range s.List(ctx, o.ksetList.At(kset), maxClasses) {
		if err != nil {
			return 0, err
		}
		private := node - virt.Addr(o.ksetEntry.Offset) - virt.Addr(o.kset.Offset)
		if v, err := s.Word(o.class.At(private)); err == nil && virt.Addr(v) == class {
			return o.klist.At(private), nil
		}
	}
	return 0, fmt.Errorf("%w: no class block on the list at %#x", kobj.ErrBroken, uint64(kset))
}

func diskAt(s *linux.System, o *diskLayout, private virt.Addr) (*Disk, error) {
	d := &Disk{}
	r := s.Reader()
	d.Device = r.Pointer(private, o.private)
	if name := r.Pointer(d.Device, o.name); name != 0 {
		d.Name = r.CString(name, linux.MaxName)
	}
	dev := uint32(r.Uint(d.Device, o.devt))
	d.Major, d.Minor = dev>>20, dev&(1<<20-1)
	part := d.Device - virt.Addr(o.device.Offset)
	if d.Start = r.Uint(part, o.start) * sector; o.size.Present() {
		d.Size = r.Uint(part, o.size) * sector
	} else {
		d.Size = r.Uint(r.Pointer(part, o.inode), o.inodeSize)
	}
	diskFlags(&r, o, d, part)
	flags := r.Uint(d.Disk, o.flags)
	d.Ops, d.Removable = r.Pointer(d.Disk, o.fops), flags&1 != 0 // GENHD_FL_REMOVABLE
	if stats := r.Pointer(part, o.stats); stats != 0 {
		for _, cpu := range s.CPUAreas {
			// One number each of reads, writes, discards and flushes.
			a := stats + cpu
			d.Reads, d.Writes = d.Reads+r.U64(o.ios.At(a)), d.Writes+r.U64(o.ios.At(a)+8)
			d.ReadBytes, d.WriteBytes = d.ReadBytes+r.U64(o.sectors.At(a))*sector, d.WriteBytes+r.U64(o.sectors.At(a)+8)*sector
		}
	}
	if err := r.Err; err != nil {
		return nil, fmt.Errorf("device at %#x: %w", uint64(d.Device), err)
	}
	return d, nil
}

// diskFlags reads what each kernel keeps elsewhere: the disk, the partition's number, and
// whether it may be written.
func diskFlags(r *kobj.Reader, o *diskLayout, d *Disk, part virt.Addr) {
	switch {
	case o.old:
		d.Partition, d.ReadOnly = uint32(r.Uint(part, o.partno)), r.Uint(part, o.policy) != 0
		whole := part
		if d.Partition != 0 {
			whole = r.Pointer(d.Device, o.parent) - virt.Addr(o.device.Offset)
		}
		d.Disk = whole - virt.Addr(o.part0.Offset)
		return
	case o.bdFlags.Present():
		const number, readOnly = 0xff, 1 << 8 // BD_PARTNO, BD_READ_ONLY
		flags := r.Uint(part, o.bdFlags)
		d.Partition, d.ReadOnly = uint32(flags&number), flags&readOnly != 0
	default:
		d.Partition = uint32(r.Uint(part, o.partno))
		d.ReadOnly = o.readOnly.Present() && r.Uint(part, o.readOnly) != 0
	}
	d.Disk = r.Pointer(part, o.disk)
	if o.diskReadOnly.Present() {
		const readOnly = 1 // GD_READ_ONLY
		d.ReadOnly = d.ReadOnly || r.Uint(d.Disk, o.diskReadOnly)>>readOnly&1 != 0
	}
}
