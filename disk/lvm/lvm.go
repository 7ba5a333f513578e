// Package lvm reads the volume groups of LVM2, of one disk or several: linear, striped and mirrored volumes (mirror and raid1). Origins
// of snapshots are read, snapshots themselves are not, nor are thin, cached and other volumes: they are refused by name.
package lvm

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/outsight-vmi/outsight/disk"
)

// A Group is a volume group.
type Group struct {
	Name, UUID string
	Sequence   int64 // how often it was changed
	ExtentSize int64 // in bytes
	Volumes    []Volume
	// Missing are physical volumes that are on none of the devices, with the guest's name for them.
	Missing []string
	// Notes are for people: copies of the metadata that are damaged or old, disks that are there twice.
	Notes []string
}

// A Volume is a logical volume.
type Volume struct {
	Name, Group, UUID string
	Size              int64  // in bytes
	Kind              string // of its segments: "linear", "striped", "raid1", "thin", "snapshot" …; "mixed"
	// Visible is false for parts that other volumes are made of.
	Visible bool
	Created time.Time // zero: not written down
	Host    string    // where it was made
	Tags    []string

	group   *group
	devices map[string]disk.Device // by the UUID of the physical volume
}

// Recognise gives the UUID of the physical volume that a device is; disk.ErrUnknown: it is none.
func Recognise(d disk.Device) (uuid string, err error) {
	l, err := readLabel(d)
	if err != nil {
		return "", err
	}
	return l.uuid, nil
}

// member is a physical volume that was found.
type member struct {
	label  *label
	device disk.Device
	newest *group
}

// Groups finds the volume groups on devices, of which those that are no physical volumes do not matter. Groups that are
// found are given beside an error about others.
func Groups(devices []disk.Device) ([]*Group, error) {
	var members []member
	var errs []error
	notes := map[string][]string{} // by the UUID of the physical volume
	for n, d := range devices {
		l, err := readLabel(d)
		if errors.Is(err, disk.ErrUnknown) {
			continue
		}
		var newest *group
		var damage []string
		if err == nil {
			newest, damage, err = l.newest(d)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("lvm: device %d: %w", n, err))
		}
		if l == nil {
			continue
		}
		notes[l.uuid] = append(notes[l.uuid], damage...)
		if err != nil {
			notes[l.uuid] = append(notes[l.uuid], fmt.Sprintf("the metadata on physical volume %s is damaged: %v", l.uuid, err))
		}
		members = append(members, member{l, d, newest})
	}
	var groups []*Group
	for _, g := range latest(members) {
		groups = append(groups, assemble(g, members, notes))
	}
	return groups, errors.Join(errs...)
}

// latest are the newest metadata of each group, in the order in which they were found.
func latest(members []member) []*group {
	var all []*group
	for _, m := range members {
		if m.newest == nil {
			continue
		}
		n := slices.IndexFunc(all, func(g *group) bool { return g.uuid == m.newest.uuid })
		switch {
		case n < 0:
			all = append(all, m.newest)
		case m.newest.sequence > all[n].sequence:
			all[n] = m.newest
		}
	}
	return all
}

func assemble(g *group, members []member, notes map[string][]string) *Group {
	out := &Group{Name: g.name, UUID: g.uuid, Sequence: g.sequence, ExtentSize: g.extent}
	devices := map[string]disk.Device{}
	for _, m := range members {
		switch name := g.physicalByUUID(m.label.uuid); {
		case name == "":
			if m.newest != nil && m.newest.uuid == g.uuid {
				out.Notes = append(out.Notes, fmt.Sprintf("physical volume %s was taken out of the group", m.label.uuid))
			}
			continue
		case devices[m.label.uuid] != nil:
			out.Notes = append(out.Notes, fmt.Sprintf("physical volume %s is there twice: the first is used", m.label.uuid))
			continue
		case m.newest != nil && m.newest.sequence < g.sequence:
			out.Notes = append(out.Notes, fmt.Sprintf("the metadata on physical volume %s is older (%d) than that of others (%d)", m.label.uuid, m.newest.sequence, g.sequence))
		}
		devices[m.label.uuid] = m.device
		out.Notes = append(out.Notes, notes[m.label.uuid]...)
	}
	for _, name := range g.names {
		p := g.physical[name]
		switch {
		case devices[p.uuid] == nil:
			out.Missing = append(out.Missing, fmt.Sprintf("%s (%s)", p.uuid, p.hint))
		case p.missing:
			out.Notes = append(out.Notes, fmt.Sprintf("the guest had lost physical volume %s (%s): it may be old", p.uuid, p.hint))
		}
	}
	for _, name := range g.order {
		v := g.logical[name]
		out.Volumes = append(out.Volumes, Volume{
			Name: name, Group: g.name, UUID: v.uuid, Size: g.size(v), Kind: v.kind(), Visible: v.visible,
			Created: v.created, Host: v.host, Tags: v.tags, group: g, devices: devices,
		})
	}
	return out
}

func (g *group) physicalByUUID(uuid string) string {
	for _, name := range g.names {
		if g.physical[name].uuid == uuid {
			return name
		}
	}
	return ""
}

// size is 0 for one that is larger than can be.
func (g *group) size(v *logical) int64 {
	if v.extents > (1<<62)/g.extent {
		return 0
	}
	return v.extents * g.extent
}

func (v *logical) kind() string {
	kind := ""
	for _, s := range v.segments {
		k := s.kind
		if k == "striped" && len(s.areas) == 1 {
			k = "linear"
		}
		if kind != "" && kind != k {
			return "mixed"
		}
		kind = k
	}
	if v.snapshot {
		return "snapshot"
	}
	return kind
}
