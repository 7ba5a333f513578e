package text

import (
	"encoding/binary"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
)

// maxFeatures bounds the words of processor features: 22 and two of bugs in 7.2.
const maxFeatures = 64

// readFeatures reads what the kernel believes of its first processor (boot_cpu_has).
func (st *state) readFeatures(s *linux.System) {
	st.features = st.features[:0]
	a, ok := s.Address("boot_cpu_data")
	if !ok {
		return
	}
	f, err := s.Member("cpuinfo_x86", "x86_capability")
	if err != nil || f.Size > 4*maxFeatures {
		return
	}
	b := make([]byte, f.Size)
	if _, err := s.Space.ReadAt(b, f.At(a)); err != nil {
		return
	}
	for ; len(b) >= 4; b = b[4:] {
		st.features = append(st.features, binary.LittleEndian.Uint32(b))
	}
}

// applies reports whether the kernel takes an alternative on this processor.
func (st *state) applies(a *image.AltInstr) bool {
	word := int(a.Feature / 32)
	has := word < len(st.features) && st.features[word]>>(a.Feature%32)&1 != 0
	return has != (a.Flags&image.AltNot != 0)
}
