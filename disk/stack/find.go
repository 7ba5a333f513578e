package stack

import (
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/ext4"
	"github.com/outsight-vmi/outsight/disk/lvm"
	"github.com/outsight-vmi/outsight/disk/md"
	"github.com/outsight-vmi/outsight/disk/partition"
	"github.com/outsight-vmi/outsight/disk/xfs"
)

const (
	arrayMember    = "RAID member"
	physicalVolume = "LVM2 physical volume"
)

// find fills in the volumes: what the disks are divided into, the arrays that this makes, and the volume groups on all that.
func (d *Disk) find(disks []disk.Device) {
	for i, device := range disks {
		prefix := ""
		if i > 0 {
			prefix = fmt.Sprintf("%d:", i+1)
		}
		scheme := d.divide(device, prefix, true)
		if i == 0 {
			d.Scheme = scheme
		}
	}
	d.arrays()
	d.groups()
	for _, v := range d.Volumes {
		v.read()
	}
}

// divide finds the partitions of a device, or that it is something as a whole: boot sectors of FAT look like a partition table.
func (d *Disk) divide(device disk.Device, prefix string, onDisk bool) partition.Scheme {
	whole := newVolume(prefix+"disk", 0, device)
	if !onDisk {
		whole.Name, whole.Offset = prefix, -1
	}
	if whole.Content != "" {
		d.Volumes = append(d.Volumes, whole)
		return partition.None
	}
	table, err := partition.Read(device, 0)
	if err != nil {
		whole.Err = err
		d.Volumes = append(d.Volumes, whole)
		return partition.None
	}
	d.Notes = append(d.Notes, table.Notes...)
	found := 0
	for _, p := range table.Partitions {
		if p.Container {
			continue
		}
		found++
		v := &Volume{Name: fmt.Sprintf("%sp%d", prefix, p.Number), Offset: p.Start, Partition: &p}
		if part, err := p.Device(device); err != nil {
			v.Err = err
		} else {
			v.Device, v.Content = part, disk.Identify(part)
		}
		if !onDisk {
			v.Offset = -1
		}
		d.Volumes = append(d.Volumes, v)
	}
	if found == 0 {
		d.Volumes = append(d.Volumes, whole)
	}
	return table.Scheme
}

func newVolume(name string, offset int64, device disk.Device) *Volume {
	return &Volume{Name: name, Offset: offset, Device: device, Content: disk.Identify(device)}
}

// devices are what was found so far, and is no member of an array.
func (d *Disk) devices() (volumes []*Volume, devices []disk.Device) {
	for _, v := range d.Volumes {
		if v.Device != nil && v.Content != arrayMember {
			volumes = append(volumes, v)
			devices = append(devices, v.Device)
		}
	}
	return volumes, devices
}

// arrays puts members together. What a member of a mirror holds looks like a file system by itself: its superblock may be at its end.
func (d *Disk) arrays() {
	volumes, devices := d.devices()
	all, err := md.Arrays(devices)
	if err != nil {
		d.Notes = append(d.Notes, err.Error())
	}
	for _, a := range all {
		for _, m := range a.Members {
			volumes[m.Device].Content = arrayMember
		}
		name := "md/" + a.Name
		if a.Name == "" {
			name = "md/" + a.UUID
		}
		for _, note := range a.Notes {
			d.Notes = append(d.Notes, name+": "+note)
		}
		device, err := a.Device()
		if err != nil {
			d.Volumes = append(d.Volumes, &Volume{Name: name, Offset: -1, Err: err})
			continue
		}
		d.divide(device, name, false)
	}
}

// groups finds logical volumes.
func (d *Disk) groups() {
	_, devices := d.devices()
	all, err := lvm.Groups(devices)
	if err != nil {
		d.Notes = append(d.Notes, err.Error())
	}
	for _, g := range all {
		for _, note := range g.Notes {
			d.Notes = append(d.Notes, g.Name+": "+note)
		}
		for _, missing := range g.Missing {
			d.Notes = append(d.Notes, fmt.Sprintf("%s: physical volume %s is missing: name its disk, too", g.Name, missing))
		}
		for _, l := range g.Volumes {
			if !l.Visible {
				continue
			}
			name := g.Name + "/" + l.Name
			device, err := l.Device()
			if err != nil {
				d.Volumes = append(d.Volumes, &Volume{Name: name, Offset: -1, Err: err})
				continue
			}
			d.Volumes = append(d.Volumes, newVolume(name, -1, device))
		}
	}
}

// read opens a volume's file system, or says why that is not done.
func (v *Volume) read() {
	switch v.Content {
	case "ext":
		v.mount(ext4.Open(v.Device))
	case "xfs":
		v.mount(xfs.Open(v.Device))
	case "":
	case arrayMember:
		v.Err = errors.New("it is a part of an array")
	case physicalVolume:
		v.Err = errors.New("it is a part of a volume group")
	default:
		v.Err = fmt.Errorf("%s: %w", v.Content, disk.ErrUnsupported)
	}
}

// mount takes a file system, or the reason why there is none.
func (v *Volume) mount(f disk.FileSystem, err error) {
	if err != nil {
		v.Err = err
		return
	}
	v.FS, v.Content = f, f.Info().Kind
}
