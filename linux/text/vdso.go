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
	regions, err := ref.vdsoImages()
	if err != nil {
		return nil, nil, err
	}
	var all []VDSO
	offset := uint64(s.Text) - ref.start
	for _, r := range regions {
		all = append(all, VDSO{r.vdso, virt.Addr(r.start + offset), virt.Addr(r.end + offset)})
	}
	return over(ref, s, regions...), all, nil
}

// vdsoRegions are the images of the vDSO.
func (r *Reference) vdsoRegions() (all []*region, err error) {
	images, err := r.vdsos()
	if err != nil {
		return nil, err
	}
	for _, v := range images {
		one := &region{
			start: v.Start, end: v.End, code: true, kept: &verdicts{}, vdso: v.Name, sites: v.Sites, tops: outermost(v.Sites.All, nil),
			read: r.Image.ReadAt, symbol: r.symbol, callSites: func() []uint64 { return nil },
		}
		one.index()
		all = append(all, one)
	}
	return all, nil
}
