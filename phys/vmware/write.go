package vmware

import (
	"encoding/binary"

	"github.com/outsight-vmi/outsight/phys/note"
)

// Append appends a state of 64 bits to b, which must be empty: as a suspended machine's,
// as far as [Read] reads it. Where memory is embedded, its bytes are to follow: size
// of them, behind what is appended.
func Append(b []byte, s *State, size uint64) []byte {
	groups := []struct {
		name string
		tags []byte
	}{{"cpu", cpuTags(s.CPUs)}, {"memory", memoryTags(s)}}
	const padding = 0
	at := uint64(headerSize + len(groups)*groupSize)
	b = append(b, Magics[0]...)
	b = binary.LittleEndian.AppendUint32(b, 8)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(groups)))
	for _, g := range groups {
		var name [groupName]byte
		copy(name[:], g.name)
		b = append(b, name[:]...)
		b = binary.LittleEndian.AppendUint64(b, at)
		b = binary.LittleEndian.AppendUint64(b, uint64(len(g.tags)))
		at += uint64(len(g.tags))
	}
	for _, g := range groups {
		b = append(b, g.tags...)
	}
	if s.Embedded { // in place of what ends the last group
		b = appendHead(b[:len(b)-tagHead], memoryBlock, tagBlock, 0, 0)
		b = binary.LittleEndian.AppendUint64(b, size)
		b = binary.LittleEndian.AppendUint64(b, size)
		b = binary.LittleEndian.AppendUint16(b, padding)
	}
	return b
}

func memoryTags(s *State) (b []byte) {
	b = appendTag(b, "align_mask", 4, pageSize-1)
	b = appendTag(b, "regionsCount", 4, uint64(len(s.Regions)))
	for i, r := range s.Regions {
		n := uint32(i)
		b = appendTag(b, "regionPageNum", 4, r.Offset/pageSize, n)
		b = appendTag(b, "regionPPN", 4, uint64(r.Range.Start)/pageSize, n)
		b = appendTag(b, "regionSize", 4, r.Range.Size()/pageSize, n)
	}
	return append(b, 0, 0)
}

func cpuTags(cpus []note.CPU) (b []byte) {
	b = appendTag(b, "cpu:numVCPUs", 4, uint64(len(cpus)))
	for i, c := range cpus {
		n := uint32(i)
		for k, name := range generalNames {
			v := c.General[generalOrder[k]]
			if generalOrder[k] == generalRSP {
				v = c.RSP
			}
			b = appendTag(b, name, 8, v, n)
		}
		b = appendTag(b, "rip", 8, c.RIP, n)
		b = appendTag(b, "eflags", 4, c.RFLAGS, n)
		for k, v := range []uint64{c.CR0, 0, c.CR2, c.CR3, c.CR4} {
			b = appendTag(b, "CR64", 8, v, n, uint32(k))
		}
		b = appendTag(b, "IDTR", 4, c.IDT, n, 1)
		b = appendTag(b, "IDTR", 4, c.IDT>>32, n, 2)
		for k, to := range selectors {
			b = appendTag(b, "S", 4, uint64(c.Selectors[to]), n, uint32(k))
		}
		for k, v := range map[uint32]uint64{segFS: c.FSBase, segGS: c.GSBase, segLDTR: c.LDT, segTR: c.TR} {
			b = appendTag(b, "S.base64", 8, v, n, k)
		}
	}
	return append(b, 0, 0)
}

func appendHead(b []byte, name string, kind int, index ...uint32) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(name)<<8|len(index)<<6|kind))
	b = append(b, name...)
	for _, i := range index {
		b = binary.LittleEndian.AppendUint32(b, i)
	}
	return b
}

func appendTag(b []byte, name string, size int, v uint64, index ...uint32) []byte {
	b = appendHead(b, name, size, index...)
	var value [8]byte
	binary.LittleEndian.PutUint64(value[:], v)
	return append(b, value[:size]...)
}
