package lvm

import (
	"fmt"
	"time"
)

// group is the text of a volume group, with numbers in bytes.
type group struct {
	name, uuid string
	sequence   int64
	extent     int64
	physical   map[string]*physical
	names      []string // of the physical volumes, in their order
	logical    map[string]*logical
	order      []string // of the logical volumes
}

type physical struct {
	uuid, hint string // the hint is the name of a device in the guest
	start      int64  // of the first extent
	missing    bool   // the guest had lost it
}

type logical struct {
	name, uuid string
	visible    bool
	created    time.Time
	host       string
	tags       []string
	segments   []segment
	extents    int64
	snapshot   bool // it is the store of a snapshot
	merging    bool // a snapshot is being merged into it
}

type segment struct {
	first, count int64 // extents
	kind         string
	stripe       int64 // bytes
	areas        []target
	meta         []string // of RAID legs

	origin, store, merging string // of a snapshot
}

// target is a place on a physical volume, or in another logical volume.
type target struct {
	name   string
	extent int64
}

const (
	maxExtents = 1 << 40
	maxExtent  = 1 << 40 // bytes
)

func parseGroup(text []byte) (*group, error) {
	all, err := parseText(text)
	if err != nil {
		return nil, err
	}
	for _, name := range all.names {
		if s, ok := all.values[name].(*section); ok {
			return newGroup(name, s)
		}
	}
	return nil, corrupt(-1, "metadata without a volume group")
}

func newGroup(name string, s *section) (*group, error) {
	g := &group{
		name: name, uuid: s.text("id"), sequence: s.number("seqno"), extent: s.number("extent_size"),
		physical: map[string]*physical{}, logical: map[string]*logical{},
	}
	if g.extent <= 0 || g.extent > maxExtent/sector {
		return nil, corrupt(-1, "metadata of volume group %q: extents of %d sectors", name, g.extent)
	}
	g.extent *= sector
	pvs := s.sub("physical_volumes")
	g.names = pvs.names
	for _, name := range pvs.names {
		p := pvs.sub(name)
		start := p.number("pe_start")
		if start < 0 || start > maxExtents {
			return nil, corrupt(-1, "metadata: physical volume %q begins at sector %d", name, start)
		}
		g.physical[name] = &physical{uuid: p.text("id"), hint: p.text("device"), start: start * sector, missing: p.has("status", "MISSING") || p.has("flags", "MISSING")}
	}
	lvs := s.sub("logical_volumes")
	g.order = lvs.names
	for _, name := range lvs.names {
		v, err := newLogical(name, lvs.sub(name))
		if err != nil {
			return nil, err
		}
		g.logical[name] = v
	}
	g.snapshots()
	return g, nil
}

func newLogical(name string, s *section) (*logical, error) {
	v := &logical{name: name, uuid: s.text("id"), visible: s.has("status", "VISIBLE"), host: s.text("creation_host")}
	if t := s.number("creation_time"); t != 0 {
		v.created = time.Unix(t, 0).UTC()
	}
	for _, tag := range s.list("tags") {
		if text, ok := tag.(string); ok {
			v.tags = append(v.tags, text)
		}
	}
	for n := int64(1); n <= s.number("segment_count"); n++ {
		seg, ok := s.values[fmt.Sprintf("segment%d", n)].(*section)
		if !ok {
			return nil, corrupt(-1, "metadata: logical volume %q has no segment %d", name, n)
		}
		parsed, err := newSegment(seg)
		if err != nil {
			return nil, fmt.Errorf("logical volume %q: %w", name, err)
		}
		if parsed.first != v.extents {
			return nil, corrupt(-1, "metadata: logical volume %q: segment %d begins at extent %d, and the one before ends at %d", name, n, parsed.first, v.extents)
		}
		v.extents += parsed.count
		v.segments = append(v.segments, parsed)
	}
	return v, nil
}

func newSegment(s *section) (segment, error) {
	seg := segment{first: s.number("start_extent"), count: s.number("extent_count"), kind: s.text("type"), stripe: s.number("stripe_size") * sector}
	if seg.first < 0 || seg.count <= 0 || seg.first > maxExtents || seg.count > maxExtents {
		return seg, corrupt(-1, "metadata: a segment of %d extents at %d", seg.count, seg.first)
	}
	var err error
	switch seg.kind {
	case "striped":
		seg.areas, err = targets(s.list("stripes"))
		if int64(len(seg.areas)) != s.number("stripe_count") {
			return seg, corrupt(-1, "metadata: %d stripes, of which %d are told", s.number("stripe_count"), len(seg.areas))
		}
	case "snapshot":
		seg.origin, seg.store, seg.merging = s.text("origin"), s.text("cow_store"), s.text("merging_store")
	case "mirror":
		seg.areas, err = targets(s.list("mirrors"))
	case "raid1":
		list := s.list("raids")
		for n := 0; n+1 < len(list); n += 2 {
			meta, _ := list[n].(string)
			image, _ := list[n+1].(string)
			seg.meta, seg.areas = append(seg.meta, meta), append(seg.areas, target{name: image})
		}
	}
	return seg, err
}

func targets(list []any) ([]target, error) {
	var all []target
	for ; len(list) >= 2; list = list[2:] {
		name, isName := list[0].(string)
		extent, isNumber := list[1].(int64)
		if !isName || !isNumber || extent < 0 || extent > maxExtents {
			return nil, corrupt(-1, "metadata: a segment on %v at %v", list[0], list[1])
		}
		all = append(all, target{name, extent})
	}
	return all, nil
}

// snapshots marks what takes part in them: that is told by volumes which people are not shown.
func (g *group) snapshots() {
	for _, v := range g.logical {
		for _, seg := range v.segments {
			if store := g.logical[seg.store]; store != nil {
				store.snapshot = true
			}
			if store := g.logical[seg.merging]; store != nil {
				store.snapshot = true
			}
			if origin := g.logical[seg.origin]; origin != nil && seg.merging != "" {
				origin.merging = true
			}
		}
	}
}
