package lvm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/outsight-vmi/outsight/disk"
)

// Device is the volume as a device. disk.ErrUnsupported names a kind of volume that is not read; ErrMissing is
// about a physical volume that the volume needs and nobody gave.
func (v Volume) Device() (disk.Device, error) {
	b := builder{v.group, v.devices, map[string]*built{}}
	d, err := b.logical(v.Name, 0)
	if err != nil {
		return nil, fmt.Errorf("lvm: %s/%s: %w", v.Group, v.Name, err)
	}
	return d, nil
}

// ErrMissing is wrapped by errors about volumes of which a part is on a device that nobody gave.
var ErrMissing = errors.New("missing")

// maxNesting is how many volumes are made of each other: raid1 of linear ones, and so on.
const maxNesting = 8

// builder makes devices of volumes, each once, whoever needs it how often: names may make a maze.
type builder struct {
	*group
	devices map[string]disk.Device
	built   map[string]*built
}

type built struct {
	device disk.Device
	err    error
}

func (b *builder) logical(name string, depth int) (disk.Device, error) {
	if done := b.built[name]; done != nil {
		return done.device, done.err
	}
	under := &built{err: corrupt(-1, "metadata: volume %q is made of itself", name)}
	b.built[name] = under
	if depth > maxNesting {
		under.err = corrupt(-1, "metadata: volume %q is in more than %d others", name, maxNesting)
		return nil, under.err
	}
	d, err := b.build(name, depth)
	*under = built{d, err}
	return d, err
}

func (b *builder) build(name string, depth int) (disk.Device, error) {
	v := b.group.logical[name]
	switch {
	case v == nil:
		return nil, corrupt(-1, "metadata: no volume %q", name)
	case v.snapshot:
		return nil, fmt.Errorf("%w: it is a snapshot, of which what has not changed is elsewhere", disk.ErrUnsupported)
	case v.merging:
		return nil, fmt.Errorf("%w: a snapshot is being merged into it", disk.ErrUnsupported)
	case b.size(v) == 0:
		return nil, corrupt(-1, "metadata: volume %q has %d extents", name, v.extents)
	}
	m := &mapped{size: b.size(v)}
	for _, s := range v.segments {
		parts, err := b.segment(s, depth)
		if err != nil {
			return nil, err
		}
		m.parts = append(m.parts, part{s.first * b.extent, s.count * b.extent, s.stripe, parts})
	}
	if len(m.parts) == 1 && len(m.parts[0].stripes) == 1 {
		return m.parts[0].stripes[0], nil
	}
	return m, nil
}

// segment gives the devices that the bytes of a segment are on, in turns.
func (b *builder) segment(s segment, depth int) ([]disk.Device, error) {
	size := s.count * b.extent
	switch s.kind {
	case "striped":
		n := int64(len(s.areas))
		if n == 0 || s.count%n != 0 || n > 1 && (s.stripe <= 0 || (size/n)%s.stripe != 0) {
			return nil, corrupt(-1, "metadata: %d stripes of %d bytes in %d extents", n, s.stripe, s.count)
		}
		var all []disk.Device
		for _, t := range s.areas {
			d, err := b.area(t, size/n, depth)
			if err != nil {
				return nil, err
			}
			all = append(all, d)
		}
		return all, nil
	case "mirror", "raid1":
		d, err := b.leg(s, size, depth)
		return []disk.Device{d}, err
	}
	return nil, fmt.Errorf("%w: segments of type %q (linear, striped, mirror and raid1 are read)", disk.ErrUnsupported, s.kind)
}

// area is a run of a physical volume, or of a logical one that the volume is made of.
func (b *builder) area(t target, size int64, depth int) (disk.Device, error) {
	if t.extent > (1<<61)/b.extent {
		return nil, corrupt(-1, "metadata: extent %d of %q", t.extent, t.name)
	}
	at := t.extent * b.extent
	p := b.physical[t.name]
	if p == nil {
		d, err := b.logical(t.name, depth+1)
		if err != nil {
			return nil, err
		}
		return disk.Section(d, at, size)
	}
	d := b.devices[p.uuid]
	if d == nil {
		return nil, fmt.Errorf("physical volume %s (%s in the guest) is %w: give its disk too", p.uuid, p.hint, ErrMissing)
	}
	section, err := disk.Section(d, p.start+at, size)
	if err != nil {
		return nil, fmt.Errorf("physical volume %s was cut off: %w", p.uuid, err)
	}
	return section, nil
}

// leg is one that is in order, of those that have the same: the first, if nothing is known of them.
func (b *builder) leg(s segment, size int64, depth int) (disk.Device, error) {
	var errs []error
	var best disk.Device
	var state legState
	states := make([]legState, len(s.areas))
	for n := range s.areas {
		if s.kind == "raid1" {
			states[n] = b.legState(s.meta[n], depth)
		}
	}
	failed := failedLegs(states)
	for n, t := range s.areas {
		d, err := b.area(t, size, depth)
		switch {
		case err != nil:
			errs = append(errs, err)
		case n < 64 && failed>>n&1 != 0:
			errs = append(errs, fmt.Errorf("leg %q had failed in the guest", t.name))
		case states[n].known && !states[n].whole:
			errs = append(errs, fmt.Errorf("leg %q was being rebuilt", t.name))
		case best == nil || states[n].events > state.events:
			best, state = d, states[n]
		}
	}
	if best == nil {
		const most = 2 // or else what is in each other becomes long
		return nil, fmt.Errorf("no leg of a %s is in order: %w", s.kind, errors.Join(errs[:min(len(errs), most)]...))
	}
	return best, nil
}

// legState is what the kernel wrote down of a leg of a RAID (struct dm_raid_superblock).
type legState struct {
	known  bool
	events uint64
	failed uint64 // a bit for each leg that has failed
	whole  bool   // it has all data
}

func (b *builder) legState(meta string, depth int) legState {
	const magic = 0x64526d44 // "DmRd"
	d, err := b.area(target{name: meta}, b.extent, depth)
	if err != nil {
		return legState{}
	}
	h := make([]byte, 48)
	if disk.ReadFull(d, h, 0) != nil || binary.LittleEndian.Uint32(h) != magic {
		return legState{} // it was never in use
	}
	le := binary.LittleEndian
	return legState{true, le.Uint64(h[16:]), le.Uint64(h[24:]), le.Uint64(h[32:]) == ^uint64(0)}
}

// failedLegs is what the leg that was written last says of the others.
func failedLegs(states []legState) uint64 {
	var newest legState
	for _, s := range states {
		if s.known && (!newest.known || s.events > newest.events) {
			newest = s
		}
	}
	return newest.failed
}

// mapped is a volume that is put together.
type mapped struct {
	parts []part // without gaps
	size  int64
}

type part struct {
	start, size int64
	stripe      int64
	stripes     []disk.Device
}

// Size is in bytes.
func (m *mapped) Size() int64 { return m.size }

// ReadAt reads as io.ReaderAt has it.
func (m *mapped) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("lvm: read at %d", offset)
	}
	done := 0
	for done < len(p) {
		at := offset + int64(done)
		if at >= m.size {
			return done, io.EOF
		}
		n, err := m.readPart(p[done:], at)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// readPart reads at least a byte of what is together at an offset.
func (m *mapped) readPart(p []byte, offset int64) (int, error) {
	n := sort.Search(len(m.parts), func(n int) bool { return m.parts[n].start+m.parts[n].size > offset })
	s := m.parts[n]
	in := offset - s.start
	left := s.size - in
	d := s.stripes[0]
	if count := int64(len(s.stripes)); count > 1 {
		chunk, rest := in/s.stripe, in%s.stripe
		d, in, left = s.stripes[chunk%count], chunk/count*s.stripe+rest, s.stripe-rest
	}
	p = p[:min(int64(len(p)), left)]
	read, err := d.ReadAt(p, in)
	if read == len(p) {
		return read, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the device has become smaller
	}
	return read, fmt.Errorf("lvm: %w", err)
}
