package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/outsight-vmi/outsight/disk"
)

// As in docs/interop/qcow2.rst of QEMU 10. Everything is big-endian.
const (
	magic = 0x514649fb // "QFI\xfb"

	headerV2, headerV3 = 72, 104 // bytes
	minBits, maxBits   = 9, 21   // clusters of 512 bytes to 2 MiB
	minExtendedBits    = 14      // of clusters with subclusters
	maxL1              = 32 << 20
	maxSnapshots       = 1 << 16
	maxBackingName     = 1023
	maxFeatures        = 512 // names of features
)

// Incompatible features.
const (
	dirty = 1 << iota
	corrupt
	externalData
	compressionType
	extendedL2

	known = dirty | corrupt | externalData | compressionType | extendedL2
)

// Autoclear features.
const rawData = 1 << 1

// Header extensions.
const (
	extEnd           = 0
	extBackingFormat = 0xe2792aca
	extFeatureNames  = 0x6803f857
	extDataFile      = 0x44415441
)

type compression uint8

const (
	zlib compression = iota
	zstandard
)

func (c compression) String() string {
	if c == zstandard {
		return "zstd"
	}
	return "zlib"
}

// table is an L1 table.
type table struct {
	offset  int64 // bytes, in the image file
	entries int64
}

type header struct {
	version                 int
	size                    int64
	clusterBits, l2Bits     uint
	incompatible, autoclear uint64
	compression             compression
	table                   table
	snapshots               uint32
	snapshotOffset          int64
	backingFile             string
	backingFormat           string
	dataFile                string
}

func (h *header) subclusters() bool { return h.incompatible&extendedL2 != 0 }

func (h *header) clusterSize() int64 { return 1 << h.clusterBits }

// readHeader reads the first cluster, which has all of it.
func readHeader(d disk.Device) (header, error) {
	var h header
	b := make([]byte, min(1<<maxBits, max(d.Size(), 0)))
	n, err := d.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return h, fmt.Errorf("qcow2: read the header: %w", err)
	}
	if b = b[:n]; len(b) < 8 || binary.BigEndian.Uint32(b) != magic {
		return h, fmt.Errorf("qcow2: %w: it does not begin with \"QFI\\xfb\"", disk.ErrUnknown)
	}
	h.version = int(binary.BigEndian.Uint32(b[4:]))
	if h.version != 2 && h.version != 3 {
		return h, fmt.Errorf("qcow2: %w: version %d (2 and 3 are read)", disk.ErrUnsupported, h.version)
	}
	least := headerV2
	if h.version == 3 {
		least = headerV3
	}
	if len(b) < least {
		return h, broken(0, "a header of %d bytes, of which %d are there", least, len(b))
	}
	return h, h.parse(b)
}

func (h *header) parse(b []byte) error {
	be := binary.BigEndian
	clusterBits := be.Uint32(b[20:])
	if clusterBits < minBits || clusterBits > maxBits {
		return broken(20, "clusters of 2^%d bytes (from 2^%d to 2^%d are possible)", clusterBits, minBits, maxBits)
	}
	h.clusterBits = uint(clusterBits)
	b = b[:min(len(b), 1<<clusterBits)]

	length, err := h.parseFeatures(b)
	if err != nil {
		return err
	}
	h.l2Bits = h.clusterBits - 3
	if h.subclusters() {
		h.l2Bits--
	}
	size := be.Uint64(b[24:])
	if size >= 1<<62 {
		return broken(24, "a disk of %#x bytes", size)
	}
	h.size = int64(size)
	h.table = table{int64(be.Uint64(b[40:])), int64(be.Uint32(b[36:]))}
	h.snapshots, h.snapshotOffset = be.Uint32(b[60:]), int64(be.Uint64(b[64:]))
	if h.snapshots > maxSnapshots {
		return broken(60, "%d snapshots (at most %d are possible)", h.snapshots, maxSnapshots)
	}

	end := len(b) // of the header's extensions
	if offset := be.Uint64(b[8:]); offset != 0 {
		n := be.Uint32(b[16:])
		if offset > uint64(len(b)) || n > maxBackingName || uint64(n) > uint64(len(b))-offset {
			return broken(8, "a backing file name of %d bytes at %#x", n, offset)
		}
		h.backingFile = string(b[offset : offset+uint64(n)])
		end = int(offset)
	}
	if err := h.parseExtensions(b, length, end); err != nil {
		return err
	}
	return h.refuse(be.Uint32(b[32:]))
}

// parseFeatures gives the header's length, and reads what only version 3 has.
func (h *header) parseFeatures(b []byte) (int, error) {
	if h.version == 2 {
		return headerV2, nil
	}
	if len(b) < headerV3 {
		return 0, broken(20, "clusters of %d bytes, which the header is longer than", len(b))
	}
	be := binary.BigEndian
	h.incompatible, h.autoclear = be.Uint64(b[72:]), be.Uint64(b[88:])
	length := be.Uint32(b[100:])
	if length < headerV3 || uint64(length) > uint64(len(b)) {
		return 0, broken(100, "a header of %d bytes", length)
	}
	var kind byte
	if length > headerV3 {
		kind = b[headerV3]
	}
	if (kind != 0) != (h.incompatible&compressionType != 0) {
		return 0, broken(headerV3, "compression type %d, which contradicts the feature bits %#x", kind, h.incompatible)
	}
	if h.compression = compression(kind); h.compression > zstandard {
		return 0, fmt.Errorf("qcow2: %w: compression type %d (zlib and zstd are read)", disk.ErrUnsupported, kind)
	}
	if h.subclusters() && h.clusterBits < minExtendedBits {
		return 0, broken(20, "clusters of 2^%d bytes with subclusters (at least 2^%d)", h.clusterBits, minExtendedBits)
	}
	return int(length), nil
}

func (h *header) parseExtensions(b []byte, at, end int) error {
	var features []byte
	for end-at >= 8 {
		kind, n := binary.BigEndian.Uint32(b[at:]), int(binary.BigEndian.Uint32(b[at+4:]))
		if kind == extEnd {
			break
		}
		if n > end-at-8 {
			return broken(int64(at), "a header extension %#x of %d bytes, where %d are left", kind, n, end-at-8)
		}
		content := b[at+8 : at+8+n]
		switch kind {
		case extBackingFormat:
			h.backingFormat = string(content)
		case extDataFile:
			h.dataFile = string(content)
		case extFeatureNames:
			features = content
		}
		at += 8 + (n+7)&^7
	}
	if unknown := h.incompatible &^ known; unknown != 0 {
		bit := bits.TrailingZeros64(unknown)
		return fmt.Errorf("qcow2: %w: incompatible feature bit %d (%q)", disk.ErrUnsupported, bit, featureName(features, 0, byte(bit)))
	}
	return nil
}

// featureName is what the image calls a feature bit.
func featureName(features []byte, kind, bit byte) string {
	const entry = 48
	for n := 0; len(features) >= entry && n < maxFeatures; n++ {
		if features[0] == kind && features[1] == bit {
			name, _, _ := bytes.Cut(features[2:entry], []byte{0})
			return string(name)
		}
		features = features[entry:]
	}
	return "without a name"
}

func (h *header) refuse(encryption uint32) error {
	switch encryption {
	case 0:
	case 1:
		return fmt.Errorf("qcow2: %w: AES encryption", disk.ErrUnsupported)
	case 2:
		return fmt.Errorf("qcow2: %w: LUKS encryption", disk.ErrUnsupported)
	default:
		return fmt.Errorf("qcow2: %w: encryption method %d", disk.ErrUnsupported, encryption)
	}
	if h.autoclear&rawData != 0 && h.incompatible&externalData == 0 {
		h.autoclear &^= rawData // as QEMU does: the bit is of whoever wrote it
	}
	return nil
}

// check says whether an L1 table can be one of a disk of that many bytes.
func (c *core) check(t table, size int64) error {
	if t.entries > maxL1/8 {
		return broken(36, "an L1 table of %d entries (at most %d are possible)", t.entries, maxL1/8)
	}
	shift := c.clusterBits + c.l2Bits
	if need := (size + 1<<shift - 1) >> shift; t.entries < need {
		return broken(36, "an L1 table of %d entries, and a disk of %d bytes needs %d", t.entries, size, need)
	}
	if t.entries == 0 {
		return nil
	}
	if t.offset <= 0 || t.offset&(c.clusterSize()-1) != 0 {
		return broken(40, "an L1 table at %#x, where no cluster begins", uint64(t.offset))
	}
	if end := c.device.Size(); t.offset > end || t.entries*8 > end-t.offset {
		return broken(40, "an L1 table of %d bytes at %#x, and the image has %#x: it was cut off", t.entries*8, t.offset, end)
	}
	return nil
}
