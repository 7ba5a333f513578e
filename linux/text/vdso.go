package text

import (
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// VDSO is the image of a vDSO in a guest's kernel.
type VDSO struct {
	Name       string // "64", "32", "x32"
	Start, End virt.Addr
}

// NewVDSOs compares the images of the vDSO that a kernel has with those of its boot image:
// the kernel itself patches them for the processor (.altinstructions in them).
func NewVDSOs(s *linux.System, ref *Reference) (*Text, []VDSO, error) {
	if err := ref.isOf(s); err != nil {
		return nil, nil, err
	}
	images, err := ref.vdsos()
	if err != nil {
		return nil, nil, err
	}
	var regions []*region
	var all []VDSO
	offset := uint64(s.Text) - ref.start
	for _, v := range images {
		r := &region{
			start: v.Start, end: v.End, code: true, vdso: v.Name, sites: v.Sites, tops: outermost(v.Sites.All, nil),
			read: ref.Image.ReadAt, symbol: ref.symbol, callSites: func() []uint64 { return nil },
		}
		r.index()
		regions = append(regions, r)
		all = append(all, VDSO{v.Name, virt.Addr(v.Start + offset), virt.Addr(v.End + offset)})
	}
	return over(ref, s, regions...), all, nil
}
