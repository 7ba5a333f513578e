package disk

import (
	"bytes"
	"encoding/binary"
)

// A sign is bytes by which a format is known.
type sign struct {
	kind   string
	offset int64
	bytes  string
}

// signs are of formats that are not read, and of those that are found by more than a number. Where one can be within another, the outer comes
// first.
var signs = []sign{
	{"LUKS", 0, "LUKS\xba\xbe"},
	{"BitLocker", 3, "-FVE-FS-"},
	{"LVM2 physical volume", 512, "LABELONE"},
	{"LVM2 physical volume", 0, "LABELONE"},
	{"LVM2 physical volume", 1024, "LABELONE"},
	{"LVM2 physical volume", 1536, "LABELONE"},
	{"xfs", 0, "XFSB"},
	{"squashfs", 0, "hsqs"},
	{"btrfs", 0x10040, "_BHRfS_M"},
	{"bcachefs", 0x1018, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	{"f2fs", 1024, "\x10\x20\xf5\xf2"},
	{"erofs", 1024, "\xe2\xe1\xf5\xe0"},
	{"NTFS", 3, "NTFS    "},
	{"exFAT", 3, "EXFAT   "},
	{"FAT", 0x36, "FAT1"},
	{"FAT", 0x52, "FAT32"},
	{"ISO 9660", 0x8001, "CD001"},
	{"swap", 4096 - 10, "SWAPSPACE2"},
	{"swap", 65536 - 10, "SWAPSPACE2"},
	{"hibernation image", 4096 - 10, "S1SUSPEND"},
	{"JFS", 0x8000, "JFS1"},
	{"ReiserFS", 0x10034, "ReIsEr"},
}

// Identify is what a device holds, by its first bytes, in the usual words; "" if nothing is known of it. It says what it looks like,
// and proves nothing.
func Identify(d Device) string {
	head := make([]byte, min(0x10100, max(d.Size(), 0)))
	n, _ := d.ReadAt(head, 0) // what cannot be read has no sign
	head = head[:n]
	for _, s := range signs {
		if int64(len(head)) >= s.offset+int64(len(s.bytes)) && string(head[s.offset:s.offset+int64(len(s.bytes))]) == s.bytes {
			return s.kind
		}
	}
	if len(head) >= 2048 && binary.LittleEndian.Uint16(head[1024+0x38:]) == 0xef53 {
		return "ext"
	}
	if zfs(d) {
		return "zfs"
	}
	return ""
}

// zfs looks for an uberblock: the labels have a ring of them behind 128 KiB.
func zfs(d Device) bool {
	b := make([]byte, 128<<10)
	if ReadFull(d, b, 128<<10) != nil {
		return false
	}
	for at := 0; at < len(b); at += 1024 {
		if bytes.HasPrefix(b[at:], []byte{0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0}) {
			return true
		}
	}
	return false
}
