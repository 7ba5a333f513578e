package reference

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/phys/note"
)

// moduleInfo is what a module says of itself. A file of debug information alone says nothing.
type moduleInfo struct{ name, release, buildID string }

func parseModule(b []byte) (m moduleInfo, err error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return m, fmt.Errorf("%w: %w", image.ErrModule, err)
	}
	if f.Type != elf.ET_REL || f.Machine != elf.EM_X86_64 {
		return m, image.ErrModule
	}
	// Data unpacks a section that says that it is packed: these are not.
	section := func(name string) []byte {
		s := f.Section(name)
		if s == nil || s.Type == elf.SHT_NOBITS || s.Offset > uint64(len(b)) || s.FileSize > uint64(len(b))-s.Offset {
			return nil
		}
		return b[s.Offset : s.Offset+s.FileSize]
	}
	for field := range bytes.SplitSeq(section(".modinfo"), []byte{0}) {
		key, value, _ := strings.Cut(string(field[:min(len(field), 1024)]), "=")
		switch key {
		case "name":
			m.name = value
		case "vermagic":
			m.release, _, _ = strings.Cut(value, " ")
		}
	}
	m.buildID = hex.EncodeToString(note.BuildID(section(".note.gnu.build-id"), binary.LittleEndian, 4))
	return m, nil
}
