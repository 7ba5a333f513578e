package linux

import (
	"context"
	"fmt"
	"iter"

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
	kset, klist, class               Field // subsys_private
	ksetEntry, ksetList              Field
	knode, private                   Field // klist_node in device_private, device
	devt, name, parent               Field // device
	device, start, size, stats       Field // block_device; hd_struct up to 5.10
	partno, disk, readOnly, bdFlags  Field
	policy                           Field
	old                              bool
	part0, fops, flags, diskReadOnly Field // gendisk
	inode, inodeSize                 Field // where the device has no size of its own
	ios, sectors                     Field // disk_stats
}

func (s *System) diskLayout() (*diskLayout, error) {
	return layoutOf(s.Walker, "disks", func(r *resolver, o *diskLayout) {
		r.symbols("class_kset", "block_class")
		const d, g = "device", "gendisk"
		o.kset, o.klist, o.class = r.field("subsys_private", "subsys"), r.field("subsys_private", "klist_devices.k_list"), r.field("subsys_private", "class")
		o.ksetList, o.ksetEntry = r.field("kset", "list"), r.field("kset", "kobj.entry")
		o.knode, o.private = r.field("device_private", "knode_class.n_node"), r.field("device_private", "device")
		o.devt, o.name, o.parent = r.field(d, "devt"), r.field(d, "kobj.name"), r.field(d, "parent")
		part := "block_device"
		if o.device = r.optional(part, "bd_device"); !has(o.device) { // 5.11
			part, o.old = "hd_struct", true
			o.device, o.partno, o.policy = r.field(part, "__dev"), r.field(part, "partno"), r.field(part, "policy")
			o.part0 = r.field(g, "part0")
		} else {
			o.disk, o.partno = r.field(part, "bd_disk"), r.optional(part, "bd_partno")
			o.bdFlags = r.optional(part, "__bd_flags") // 6.10: partition number and flags in one word
			o.readOnly, o.diskReadOnly = r.optional(part, "bd_read_only"), r.optional(g, "state")
		}
		o.start, o.stats = r.field(part, "bd_start_sect", "start_sect"), r.field(part, "bd_stats", "dkstats")
		if o.size = r.optional(part, "bd_nr_sectors", "nr_sects"); !has(o.size) { // 5.11 to 5.15
			o.inode, o.inodeSize = r.field(part, "bd_inode"), r.field("inode", "i_size")
		}
		o.fops, o.flags = r.field(g, "fops"), r.field(g, "flags")
		o.ios, o.sectors = r.field("disk_stats", "ios"), r.field("disk_stats", "sectors")
	})
}

const (
	maxClasses = 1 << 14
	maxDisks   = 1 << 20
	sector     = 512 // bytes, whatever the disk's own are
)

// Disks yields the block devices in the order in which they were added.
func (s *System) Disks(ctx context.Context) iter.Seq2[*Disk, error] {
	return func(yield func(*Disk, error) bool) {
		o, err := s.diskLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		devices, err := s.blockDevices(ctx, o)
		if err != nil {
			yield(nil, fmt.Errorf("disks: %w", err))
			return
		}
		for node, err := range s.list(ctx, devices, maxDisks) {
			var d *Disk
			if err == nil {
				d, err = s.diskAt(o, node-virt.Addr(o.knode.Offset))
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
func (s *System) blockDevices(ctx context.Context, o *diskLayout) (virt.Addr, error) {
	class, err := s.symbol("block_class")
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnsupported, err) // built without CONFIG_BLOCK
	}
	kset, err := s.Pointer("class_kset")
	if err != nil {
		return 0, err
	}
	for node, err := range s.list(ctx, at(kset, o.ksetList), maxClasses) {
		if err != nil {
			return 0, err
		}
		private := node - virt.Addr(o.ksetEntry.Offset) - virt.Addr(o.kset.Offset)
		if v, err := s.word(at(private, o.class)); err == nil && virt.Addr(v) == class {
			return at(private, o.klist), nil
		}
	}
	return 0, fmt.Errorf("%w: no class block on the list at %#x", ErrBroken, uint64(kset))
}

func (s *System) diskAt(o *diskLayout, private virt.Addr) (*Disk, error) {
	d := &Disk{}
	err := safely(func() error {
		r := s.reader()
		d.Device = r.pointer(private, o.private)
		if name := r.pointer(d.Device, o.name); name != 0 {
			d.Name = r.cString(name, maxName)
		}
		dev := uint32(r.num(d.Device, o.devt))
		d.Major, d.Minor = dev>>20, dev&(1<<20-1)
		part := d.Device - virt.Addr(o.device.Offset)
		if d.Start = r.num(part, o.start) * sector; has(o.size) {
			d.Size = r.num(part, o.size) * sector
		} else {
			d.Size = r.num(r.pointer(part, o.inode), o.inodeSize)
		}
		s.diskFlags(&r, o, d, part)
		flags := r.num(d.Disk, o.flags)
		d.Ops, d.Removable = r.pointer(d.Disk, o.fops), flags&1 != 0 // GENHD_FL_REMOVABLE
		if stats := r.pointer(part, o.stats); stats != 0 {
			for _, cpu := range s.cpus {
				// One number each of reads, writes, discards and flushes.
				a := stats + cpu
				d.Reads, d.Writes = d.Reads+r.u64(at(a, o.ios)), d.Writes+r.u64(at(a, o.ios)+8)
				d.ReadBytes, d.WriteBytes = d.ReadBytes+r.u64(at(a, o.sectors))*sector, d.WriteBytes+r.u64(at(a, o.sectors)+8)*sector
			}
		}
		return r.err
	})
	if err != nil {
		return nil, fmt.Errorf("device at %#x: %w", uint64(d.Device), err)
	}
	return d, nil
}

// diskFlags reads what each kernel keeps elsewhere: the disk, the partition's number, and
// whether it may be written.
func (s *System) diskFlags(r *reader, o *diskLayout, d *Disk, part virt.Addr) {
	switch {
	case o.old:
		d.Partition, d.ReadOnly = uint32(r.num(part, o.partno)), r.num(part, o.policy) != 0
		whole := part
		if d.Partition != 0 {
			whole = r.pointer(d.Device, o.parent) - virt.Addr(o.device.Offset)
		}
		d.Disk = whole - virt.Addr(o.part0.Offset)
		return
	case has(o.bdFlags):
		const number, readOnly = 0xff, 1 << 8 // BD_PARTNO, BD_READ_ONLY
		flags := r.num(part, o.bdFlags)
		d.Partition, d.ReadOnly = uint32(flags&number), flags&readOnly != 0
	default:
		d.Partition = uint32(r.num(part, o.partno))
		d.ReadOnly = has(o.readOnly) && r.num(part, o.readOnly) != 0
	}
	d.Disk = r.pointer(part, o.disk)
	if has(o.diskReadOnly) {
		const readOnly = 1 // GD_READ_ONLY
		d.ReadOnly = d.ReadOnly || r.num(d.Disk, o.diskReadOnly)>>readOnly&1 != 0
	}
}
