package qemustate

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/phys/file"
)

// LibvirtMagic is what a file of "virsh save" begins with.
const LibvirtMagic = "LibvirtQemudSave"

// libvirtHead is the length of libvirt's header (virQEMUSaveHeader), in bytes.
const libvirtHead = 92

// Unwrap returns the stream that "virsh save" keeps behind its header and the
// machine's description, and takes src over.
func Unwrap(src file.Source) (file.Source, error) {
	var h [libvirtHead]byte
	if err := file.ReadFull(src, h[:], 0); err != nil {
		return nil, fmt.Errorf("header of the libvirt save file: %w", err)
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(h[at:]) }
	if v := u32(16); v == 0 || v > 2 {
		return nil, fmt.Errorf("a libvirt save file of version %d, which is not supported: save with the format raw", v)
	}
	packing := []string{"", "gzip", "bzip2", "xz", "lzop", "zstd"}
	if c := u32(28); c >= uint32(len(packing)) {
		return nil, errors.New("a libvirt save file that is packed in an unknown way: set save_image_format to raw")
	} else if c != 0 {
		return nil, fmt.Errorf("a libvirt save file packed with %s, which cannot be read in place: unpack what follows the first %d bytes with it, and give that", packing[c], libvirtHead+uint64(u32(20)))
	}
	return file.Rest(src, libvirtHead+uint64(u32(20)))
}
