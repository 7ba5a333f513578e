package raw

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
)

// What a file can be instead of a dump.
var (
	ErrDirectory  = errors.New("it is a directory, not a memory dump: name a file in it")
	ErrNotRegular = errors.New("it is not a regular file, and a memory dump is one")
	ErrEmpty      = errors.New("the file is empty: the dump was not written, or not finished")
	ErrTooSmall   = errors.New("the file is too small to be a memory dump (1 MiB at least): it was cut off, or it is something else")
)

const (
	minSize  = 1 << 20
	headSize = 4096
)

// FormatError says that a file is of a known format other than raw memory.
type FormatError struct {
	Format string // for people: "an ELF core dump (x86-64)"
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("it is %s, which is not supported yet: give a raw dump of guest RAM (QEMU: pmemsave) or a running machine", e.Format)
}

// magics are the first bytes of formats that are not raw memory.
var magics = []struct {
	magic, format string
}{
	{"KDUMP   ", "a kdump (makedumpfile) dump"},
	{"DISKDUMP", "a diskdump (makedumpfile) dump"},
	{"makedumpfile", "a flattened makedumpfile dump"},
	{"EMiL", "a LiME dump"},
	{"LiME", "a LiME dump"},
	{"AVML", "an AVML dump"},
	{"LVMA", "an AVML dump"},
	{"QFI\xfb", "a qcow2 disk image"},
	{"QEVM", "a QEMU save-state (migration) file"},
	{"LibvirtQemudSave", "a libvirt save file"},
	{"LibvirtQemudPart", "an unfinished libvirt save file"},
	{"\x1f\x8b", "a gzip-compressed file"},
	{"\xfd7zXZ\x00", "an xz-compressed file"},
	{"\x28\xb5\x2f\xfd", "a zstd-compressed file"},
	{"BZh", "a bzip2-compressed file"},
	{"\x04\x22\x4d\x18", "an lz4-compressed file"},
	{"PK\x03\x04", "a zip archive"},
	{"PAGEDU64", "a Windows crash dump"},
	{"PAGEDUMP", "a Windows crash dump"},
	{"MDMP", "a Windows minidump"},
	{"KDMV", "a VMware disk image"},
	{"\xd2\xbe\xd2\xbe", "a VMware snapshot (vmss, vmsn)"},
	{"#!", "a script"},
	{"MZ", "a DOS or Windows executable (or a kernel image)"},
}

// Recognise names the format of a file by its first bytes, "" when they tell
// nothing, as in raw memory.
func Recognise(head []byte) string {
	if bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return recogniseELF(head)
	}
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.format
		}
	}
	return ""
}

func recogniseELF(head []byte) string {
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
	return fmt.Sprintf("%s for %s", kind, machine(elf.Machine(order.Uint16(head[18:])), elf.Class(head[elf.EI_CLASS])))
}

func machine(m elf.Machine, class elf.Class) string {
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
	return fmt.Sprintf("%s (%s)%s", m, class, other)
}

func kindOf(m fs.FileMode) string {
	switch {
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case m&fs.ModeCharDevice != 0:
		return "a character device"
	case m&fs.ModeDevice != 0:
		return "a block device"
	}
	return "of an unknown kind"
}
