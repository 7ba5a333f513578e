package xfs

import (
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/outsight-vmi/outsight/disk"
)

const (
	// windowSize is what is read at once of metadata: a chunk of 64 inodes of 512 bytes.
	windowSize  = 32 << 10
	maxWindows  = 512 // in the cache, of each of its two generations
	windowShift = 15
)

// cache keeps metadata in aligned windows, which are not changed once they are read: a slice of one may be kept. It has
// two generations: what is used moves to the young one, and what did not when that is full is forgotten.
type cache struct {
	dev       disk.Device
	size      int64
	blockSize int64
	blind     bool             // checksums are not looked at
	overlay   map[int64][]byte // what the log has, by offset of the block; not changed once files are read

	mu         sync.Mutex
	young, old map[int64][]byte
}

func newCache(dev disk.Device, size, blockSize int64) *cache {
	return &cache{dev: dev, size: size, blockSize: blockSize, young: map[int64][]byte{}, old: map[int64][]byte{}}
}

// read gives n bytes at an offset, which are not to be changed.
func (c *cache) read(offset int64, n int) ([]byte, error) {
	if offset < 0 || offset > c.size || int64(n) > c.size-offset {
		return nil, corrupt(offset, "%d bytes are outside of the file system", n)
	}
	first, within := offset>>windowShift, int(offset&(windowSize-1))
	w, err := c.window(first)
	if err != nil {
		return nil, err
	}
	if within+n <= len(w) {
		return w[within : within+n : within+n], nil
	}
	p := make([]byte, n)
	for done := copy(p, w[min(within, len(w)):]); done < n; {
		first++
		if w, err = c.window(first); err != nil {
			return nil, err
		}
		if len(w) == 0 {
			return nil, corrupt(offset, "the device ends before %d bytes", n)
		}
		done += copy(p[done:], w)
	}
	return p, nil
}

func (c *cache) window(number int64) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w, ok := c.young[number]; ok {
		return w, nil
	}
	w, ok := c.old[number]
	if !ok {
		var err error
		if w, err = c.load(number << windowShift); err != nil {
			return nil, err
		}
	}
	if len(c.young) >= maxWindows {
		c.young, c.old = c.old, c.young
		clear(c.young)
	}
	c.young[number] = w
	return w, nil
}

func (c *cache) load(offset int64) ([]byte, error) {
	n := min(windowSize, c.dev.Size()-offset)
	if n <= 0 {
		return nil, fmt.Errorf("xfs: the device ends before byte %#x", offset)
	}
	w := make([]byte, n)
	if err := disk.ReadFull(c.dev, w, offset); err != nil {
		return nil, fmt.Errorf("xfs: %w", err)
	}
	for at := offset &^ (c.blockSize - 1); len(c.overlay) > 0 && at < offset+n; at += c.blockSize {
		if block, ok := c.overlay[at]; ok {
			if at < offset { // a block is larger than a window
				copy(w, block[offset-at:])
			} else {
				copy(w[at-offset:], block)
			}
		}
	}
	return w, nil
}

// replayed says whether the log changed something of a range: its checksums are those from before.
func (c *cache) replayed(offset int64, n int) bool {
	if c.blind || len(c.overlay) == 0 {
		return c.blind
	}
	for at := offset &^ (c.blockSize - 1); at < offset+int64(n); at += c.blockSize {
		if _, ok := c.overlay[at]; ok {
			return true
		}
	}
	return false
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum is the checksum of a structure that has it at an offset, where zeroes count.
func sum(b []byte, at int) uint32 {
	var zero [4]byte
	c := crc32.Update(0, castagnoli, b[:at])
	c = crc32.Update(c, castagnoli, zero[:])
	return crc32.Update(c, castagnoli, b[at+4:])
}

// sumIsRight compares it with the one that the structure has, the only little-endian number of the format.
func sumIsRight(b []byte, at int) bool {
	have := uint32(b[at]) | uint32(b[at+1])<<8 | uint32(b[at+2])<<16 | uint32(b[at+3])<<24
	return sum(b, at) == have
}

// A layout is where a structure of version 5 has what proves it. -1: it has none.
type layout struct {
	name                    string
	crc, address, id, owner int
	wide                    bool // the owner has 8 bytes, else 4 (the number of an allocation group)
}

var (
	agiLayout   = layout{name: "inode header of an allocation group", crc: 312, address: -1, id: 296, owner: -1}
	agfLayout   = layout{name: "free space header of an allocation group", crc: 216, address: -1, id: 64, owner: -1}
	inobtLayout = layout{name: "block of an inode tree", crc: 52, address: 16, id: 32, owner: 48}
	bmbtLayout  = layout{name: "block of an extent tree", crc: 64, address: 24, id: 40, owner: 56, wide: true}
	dirLayout   = layout{name: "directory block", crc: 4, address: 8, id: 24, owner: 40, wide: true}
	daLayout    = layout{name: "attribute block", crc: 12, address: 16, id: 32, owner: 48, wide: true}
	valueLayout = layout{name: "block of an attribute's value", crc: 12, address: 40, id: 16, owner: 32, wide: true}
	linkLayout  = layout{name: "block of a symbolic link", crc: 12, address: 40, id: 16, owner: 32, wide: true}
)

// prove checks a structure of version 5: that it is whole, and the one that belongs there.
func (fs *FS) prove(b []byte, offset int64, l layout, owner uint64) error {
	if !fs.sb.crc || fs.cache.replayed(offset, len(b)) {
		return nil
	}
	if !sumIsRight(b, l.crc) {
		return corrupt(offset, "wrong checksum of a %s", l.name)
	}
	if uuid(b[l.id:l.id+16]) != fs.sb.metaUUID {
		return corrupt(offset, "%s of another file system", l.name)
	}
	if l.address >= 0 {
		if at := be.Uint64(b[l.address:]); at != uint64(offset)/512 {
			return corrupt(offset, "%s that belongs to sector %#x", l.name, at)
		}
	}
	if l.owner < 0 {
		return nil
	}
	have := uint64(be.Uint32(b[l.owner:]))
	if l.wide {
		have = be.Uint64(b[l.owner:])
	}
	if have != owner {
		return corrupt(offset, "%s that belongs to %d, not %d", l.name, have, owner)
	}
	return nil
}
