package image

import (
	"encoding/binary"
	"fmt"
)

// VDSO is the image of a vDSO in the kernel: the code that processes of one kind get mapped.
type VDSO struct {
	Name       string // "64", "32", "x32"
	Start, End uint64 // as linked
	Sites      *Sites // of alternatives, the only ones it has
}

// maxVDSO bounds the image of a vDSO. They have two to four pages.
const maxVDSO = 64 << 10

// VDSOs are the images of vDSOs that the kernel has (struct vdso_image, of which the first
// four members have been the same since 3.16): the one that the kernel's symbols name before
// and since 7.0.
func (im *Image) VDSOs() (all []VDSO, err error) {
	kinds := []struct{ name, old, now string }{
		{"64", "vdso_image_64", "vdso64_image"}, {"32", "vdso_image_32", "vdso32_image"}, {"x32", "vdso_image_x32", "vdsox32_image"},
	}
	var names []string
	for _, k := range kinds {
		names = append(names, k.old, k.now)
	}
	at, err := im.Lookup(names...)
	if err != nil {
		return nil, err
	}
	sites := &Sites{}
	if s, ok := im.Section(".text"); ok { // whose tables show the size of an entry
		b := &siteBuilder{im: im, text: s, sites: sites}
		if err := b.alternatives(); err != nil {
			return nil, err
		}
	}
	for _, k := range kinds {
		a := at[k.old]
		if a == 0 {
			a = at[k.now]
		}
		if a == 0 {
			continue
		}
		head := im.linked(a, 32)
		if head == nil {
			return nil, fmt.Errorf("%w: the image of the vDSO for %s: %w", ErrTable, k.name, ErrNotInImage)
		}
		le := binary.LittleEndian
		start, size, alt, n := le.Uint64(head), le.Uint64(head[8:]), le.Uint64(head[16:]), le.Uint64(head[24:])
		if size == 0 || size > maxVDSO || alt > size || n > size-alt || im.linked(start, size) == nil {
			return nil, fmt.Errorf("%w: the vDSO for %s has %d bytes at %#x, alternatives at %#x", ErrTable, k.name, size, start, alt)
		}
		v := VDSO{Name: k.name, Start: start, End: start + size}
		b := &siteBuilder{im: im, text: Section{Addr: start, Size: size}, sites: &Sites{}, kernel: sites, data: true}
		if n > 0 {
			if err := b.alternativesOf(im.linked(start+alt, n), start+alt); err != nil {
				return nil, err
			}
		}
		b.sites.All = sortSites(b.sites.All, b.text)
		v.Sites = b.sites
		all = append(all, v)
	}
	return all, nil
}
