package check

import (
	"encoding/binary"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// readExports reads the functions and variables that the kernel exports to modules: no other can a
// module name in its data. Nil where the tables are not known in this form.
func readExports(s *linux.System) map[virt.Addr]bool {
	// struct kernel_symbol with CONFIG_HAVE_ARCH_PREL32_RELOCATIONS: distances to the value, the
	// name and the namespace.
	const entry, maxExports = 12, 1 << 20
	size, err := s.StructSize("kernel_symbol")
	if err != nil || size != entry {
		return nil
	}
	all := map[virt.Addr]bool{}
	for _, t := range [][2]string{{"__start___ksymtab", "__stop___ksymtab"}, {"__start___ksymtab_gpl", "__stop___ksymtab_gpl"}} {
		r := between(s, t[0], t[1])
		if r.end <= r.start || r.end-r.start > entry*maxExports {
			continue // since 7.0 there is one table, if this is the second
		}
		b := make([]byte, r.end-r.start)
		if s.ReadAt(b, r.start) != nil {
			return nil
		}
		for i := 0; i+entry <= len(b); i += entry {
			all[r.start+virt.Addr(i)+virt.Addr(int64(int32(binary.LittleEndian.Uint32(b[i:]))))] = true
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// unexported reports whether a function of the kernel, at its start, is one that no module can
// name.
func (w *opsWalk) unexported(f virt.Addr) bool {
	exports, err := w.s.parts.exports.get(w.s)
	return err == nil && exports != nil && !exports[f] && w.owners.CodeAt(f).Offset == 0
}
