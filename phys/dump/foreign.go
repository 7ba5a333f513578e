package dump

import (
	"bytes"
	"compress/zlib"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
)

// FormatError says that a file is of a known format that cannot be read.
type FormatError struct {
	Format string // for people: "a qcow2 disk image"
	Do     string // what to do about it
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("it is %s, which cannot be read: %s", e.Format, e.Do)
}

// Remedies of a [FormatError].
const (
	giveDump   = "give a memory dump or a running machine"
	decompress = "decompress it first"
)

// foreign are the first bytes of files that are not memory dumps, or none that can
// be read.
var foreign = []struct {
	magic, format, do string
}{
	{"QFI\xfb", "a qcow2 disk image", "its saved states, if it has any, can be loaded into a QEMU and dumped from there"},
	{"LibvirtQemudPart", "an unfinished libvirt save file", "save the machine again"},
	{"\x1f\x8b", "a gzip-compressed file", decompress},
	{"\xfd7zXZ\x00", "an xz-compressed file", decompress},
	{zstdMagic, "a zstd-compressed file without an index of its frames", decompress + " (zstd -d), or write it with outsight dump --zstd"},
	{"BZh", "a bzip2-compressed file", decompress},
	{"\x89LZO\x00", "an lzop-compressed file", decompress},
	{"\x04\x22\x4d\x18", "an lz4-compressed file", decompress},
	{"PK\x03\x04", "a zip archive", "unpack it first"},
	{"PAGEDU64", "a Windows crash dump", giveDump + " of a Linux guest"},
	{"PAGEDUMP", "a Windows crash dump", giveDump + " of a Linux guest"},
	{"MDMP", "a Windows minidump", giveDump + " of a Linux guest"},
	{"KDMV", "a VMware disk image", giveDump},
	{"\xd0\xbe\xd0\xbe", "the state of a VMware machine of 32 bits", giveDump},
	{"\xd0\xbe\xd2\xbe", "the state of a VMware machine of 32 bits", giveDump},
	{"\x00\x00\x64\x86\x84\x19\x10\x07", "the state of a Firecracker snapshot without its memory", "give the snapshot's memory file"},
	{"#!", "a script", giveDump},
	{"MZ", "a DOS or Windows executable (or a kernel image)", giveDump},
}

const (
	zstdMagic = "\x28\xb5\x2f\xfd"
)

// recogniseForeign is the error for what cannot be read, by its first bytes; nil
// when they say nothing, as in raw memory.
func recogniseForeign(head []byte) error {
	if bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return &FormatError{Format: elfKind(head), Do: giveDump}
	}
	if isPackedLime(head) {
		return &FormatError{Format: "a LiME dump that LiME compressed (compress=1)", Do: decompress + ", as a zlib stream (zlib-flate -uncompress)"}
	}
	for _, m := range foreign {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return &FormatError{Format: m.format, Do: m.do}
		}
	}
	return nil
}

// isPackedLime reports whether head is a zlib stream of a LiME dump.
func isPackedLime(head []byte) bool {
	if len(head) == 0 || head[0] != 0x78 { // as zlib streams begin, and memory hardly does
		return false
	}
	r, err := zlib.NewReader(bytes.NewReader(head))
	if err != nil {
		return false
	}
	var magic [4]byte
	_, err = io.ReadFull(r, magic[:])
	return err == nil && string(magic[:]) == "EMiL"
}

// isELFCore reports whether head begins an ELF core dump that may be read: the machine that
// it names is a hint.
func isELFCore(head []byte) bool {
	return len(head) >= 20 && bytes.HasPrefix(head, []byte(elf.ELFMAG)) &&
		elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2LSB &&
		elf.Type(binary.LittleEndian.Uint16(head[16:])) == elf.ET_CORE
}

func elfKind(head []byte) string {
	if len(head) < 20 {
		return "an ELF file that was cut off"
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	kind := "an ELF file"
	switch elf.Type(order.Uint16(head[16:])) {
	case elf.ET_CORE:
		kind = "an ELF core dump"
	case elf.ET_EXEC, elf.ET_DYN:
		kind = "an executable (ELF)"
	case elf.ET_REL:
		kind = "an object file or kernel module (ELF)"
	}
	return fmt.Sprintf("%s for %s", kind, machine(elf.Machine(order.Uint16(head[18:]))))
}

func machine(m elf.Machine) string {
	other := ", another architecture than x86-64"
	switch m {
	case elf.EM_X86_64:
		return "x86-64"
	case elf.EM_AARCH64:
		return "arm64" + other
	case elf.EM_386:
		return "32-bit x86" + other
	case elf.EM_ARM:
		return "32-bit arm" + other
	case elf.EM_RISCV:
		return "riscv" + other
	case elf.EM_PPC64:
		return "ppc64" + other
	case elf.EM_S390:
		return "s390x" + other
	}
	return fmt.Sprintf("%s%s", m, other)
}
