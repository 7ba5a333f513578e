// Package md reads the arrays of Linux's software RAID (mdadm) with superblocks of versions 0.90, 1.0, 1.1 and 1.2: linear
// ones, RAID 0 of members that have the same size, and RAID 1. Others are refused by name.
//
// Superblocks of versions 0.90 and 1.0 are at the end, so that a disk whose last partition is a member may look like one
// itself: whoever looks for members does so in partitions first.
package md

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/outsight-vmi/outsight/disk"
)

// ErrMissing is wrapped by errors about arrays of which members that are needed are on none of the devices.
var ErrMissing = errors.New("missing")

// An Array is made of devices.
type Array struct {
	UUID    string // as mdadm writes it
	Name    string // "" for version 0.90
	Version string // "0.90", "1.0", "1.1" or "1.2"
	Level   string // "linear", "raid0", "raid1", "raid5" …
	Members []Member
	// Expected is how many members the array has when it is whole.
	Expected int
	// Notes are for people: members that are missing or old, and which one is read.
	Notes []string

	supers  []*super
	devices []disk.Device
	used    int // the member that is read of a RAID 1; -1: none
}

// A Member is a device of an array.
type Member struct {
	Device int    // which one of those that were given
	Role   int    // its place in the array, from 0; -1: a spare, failed, or replaced one
	Events uint64 // how far it has followed the array
}

// Recognise gives the UUID of the array that a device is a member of; disk.ErrUnknown: it is none.
func Recognise(d disk.Device) (uuid string, err error) {
	s, err := readSuper(d)
	if err != nil {
		return "", err
	}
	return s.uuid, nil
}

// Arrays finds the arrays on devices, of which those that are no members do not matter. Arrays that are found are given
// beside an error about others.
func Arrays(devices []disk.Device) ([]*Array, error) {
	var all []*Array
	var errs []error
	for n, d := range devices {
		s, err := readSuper(d)
		if errors.Is(err, disk.ErrUnknown) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("md: device %d: %w", n, err))
			continue
		}
		at := slices.IndexFunc(all, func(a *Array) bool { return a.UUID == s.uuid })
		if at < 0 {
			at, all = len(all), append(all, &Array{UUID: s.uuid})
		}
		a := all[at]
		a.supers, a.devices = append(a.supers, s), append(a.devices, d)
		role := s.role
		if role >= roleJournal {
			role = -1
		}
		a.Members = append(a.Members, Member{n, role, s.events})
	}
	for _, a := range all {
		a.describe()
	}
	return all, errors.Join(errs...)
}

// newest is the superblock that was written last.
func (a *Array) newest() *super {
	return slices.MaxFunc(a.supers, func(x, y *super) int { return cmp.Compare(x.events, y.events) })
}

func (a *Array) describe() {
	s := a.newest()
	a.Name, a.Version, a.Expected, a.Level = s.name, s.version, s.members, fmt.Sprintf("raid%d", s.level)
	if s.level < 0 {
		a.Level = map[int32]string{linear: "linear", -4: "multipath", -5: "faulty"}[s.level]
	}
	present := map[int]bool{}
	for n, m := range a.supers {
		switch {
		case m.role < roleJournal && present[m.role]:
			a.Notes = append(a.Notes, fmt.Sprintf("two devices are member %d", m.role))
		case m.events < s.events:
			a.Notes = append(a.Notes, fmt.Sprintf("device %d is old: the array went on without it (%d events of %d)", a.Members[n].Device, m.events, s.events))
		}
		if m.bad > 0 {
			a.Notes = append(a.Notes, fmt.Sprintf("device %d has %d ranges that the guest could not read", a.Members[n].Device, m.bad))
		}
		present[m.role] = true
	}
	missing := 0
	for role := range min(s.members, maxMembers) {
		if !present[role] {
			missing++
		}
	}
	if missing > 0 {
		a.Notes = append(a.Notes, fmt.Sprintf("%d of %d members are missing", missing, s.members))
	}
	a.used = a.best(s)
	if s.level == raid1 && a.used >= 0 && len(a.supers) > 1 {
		a.Notes = append(a.Notes, fmt.Sprintf("device %d is read", a.Members[a.used].Device))
	}
}

// best is the member of a RAID 1 that is read: one that has followed the array to the end, and that the others do not know as failed.
func (a *Array) best(newest *super) int {
	best := -1
	for n, m := range a.supers {
		if m.role >= roleJournal || !m.rebuilt || !slices.Contains(newest.roles, m.role) || m.events < newest.events && !a.alone(m) {
			continue
		}
		if best >= 0 {
			b := a.supers[best]
			if m.events < b.events || m.events == b.events && (m.bad > b.bad || m.bad == b.bad && m.role >= b.role) {
				continue
			}
		}
		best = n
	}
	return best
}

// alone reports whether no member that is newer has the array's data.
func (a *Array) alone(m *super) bool {
	return !slices.ContainsFunc(a.supers, func(o *super) bool { return o.events > m.events && o.role < roleJournal && o.rebuilt })
}

// Device is the array as a device. disk.ErrUnsupported names a level that is not read; ErrMissing is about members that the array needs.
func (a *Array) Device() (disk.Device, error) {
	s := a.newest()
	if s.reshaped {
		return nil, fmt.Errorf("md: array %s: %w: it was being reshaped", a.UUID, disk.ErrUnsupported)
	}
	var d disk.Device
	var err error
	switch s.level {
	case raid1:
		d, err = a.mirror()
	case linear, raid0:
		d, err = a.joined(s)
	default:
		err = fmt.Errorf("%w: level %s (linear, raid0 and raid1 are read)", disk.ErrUnsupported, a.Level)
	}
	if err != nil {
		return nil, fmt.Errorf("md: array %s: %w", a.UUID, err)
	}
	return d, nil
}

func (a *Array) mirror() (disk.Device, error) {
	if a.used < 0 {
		return nil, fmt.Errorf("a member that is in order is %w: %d devices are spares, failed, or were being rebuilt", ErrMissing, len(a.supers))
	}
	s := a.supers[a.used]
	if s.size > s.length {
		return nil, corrupt(-1, "a member has %d bytes of an array of %d", s.length, s.size)
	}
	return disk.Section(a.devices[a.used], s.start, s.size)
}

// joined is an array whose members follow each other, or take turns.
func (a *Array) joined(s *super) (disk.Device, error) {
	if s.members <= 0 || s.members > maxMembers {
		return nil, corrupt(-1, "an array of %d members", s.members)
	}
	j := &joined{chunk: s.chunk}
	if s.level == linear {
		j.chunk = 0
	} else if s.chunk < sector || s.chunk > 1<<40 {
		return nil, corrupt(-1, "chunks of %d bytes", s.chunk)
	}
	for role := range s.members {
		n := slices.IndexFunc(a.supers, func(m *super) bool { return m.role == role && m.events == s.events })
		if n < 0 {
			return nil, fmt.Errorf("member %d of %d is %w: give its disk too", role, s.members, ErrMissing)
		}
		m := a.supers[n]
		length := m.length
		if s.chunk > 0 {
			length -= length % s.chunk
		}
		part, err := disk.Section(a.devices[n], m.start, length)
		if err != nil {
			return nil, fmt.Errorf("member %d: %w", role, err)
		}
		if role > 0 && j.chunk > 0 && length != j.parts[0].Size() {
			return nil, fmt.Errorf("%w: raid0 of members of different sizes (%d and %d bytes)", disk.ErrUnsupported, j.parts[0].Size(), length)
		}
		j.parts, j.size = append(j.parts, part), j.size+length
		j.ends = append(j.ends, j.size)
	}
	return j, nil
}

// joined is several devices as one. It is a chain if chunk is 0.
type joined struct {
	parts []disk.Device
	ends  []int64 // of a chain
	chunk int64
	size  int64
}

// Size is in bytes.
func (j *joined) Size() int64 { return j.size }

// ReadAt reads as io.ReaderAt has it.
func (j *joined) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("md: read at %d", offset)
	}
	done := 0
	for done < len(p) {
		at := offset + int64(done)
		if at >= j.size {
			return done, io.EOF
		}
		d, in, left := j.place(at)
		n, err := d.ReadAt(p[done:done+int(min(int64(len(p)-done), left))], in)
		done += n
		if n == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // the device has become smaller
			}
			return done, fmt.Errorf("md: %w", err)
		}
	}
	return done, nil
}

// place is the device that has an offset, where, and how much of what follows.
func (j *joined) place(at int64) (d disk.Device, in, left int64) {
	if j.chunk == 0 {
		n := sort.Search(len(j.ends), func(n int) bool { return j.ends[n] > at })
		in = at - (j.ends[n] - j.parts[n].Size())
		return j.parts[n], in, j.ends[n] - at
	}
	chunk, rest, count := at/j.chunk, at%j.chunk, int64(len(j.parts))
	return j.parts[chunk%count], chunk/count*j.chunk + rest, j.chunk - rest
}
