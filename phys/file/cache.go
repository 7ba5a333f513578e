package file

import (
	"fmt"
	"sync"
)

// Cache keeps what was unpacked last: blocks of one size, which cost much to
// unpack and are looked at in small parts. It is safe for concurrent use, and a
// read of what is kept allocates nothing.
type Cache struct {
	sets   []cacheSet
	unpack func(key uint64, p []byte) ([]byte, error)
}

const cacheWays = 4

type cacheSet struct {
	mu    sync.Mutex
	clock uint32
	ways  [cacheWays]cached
}

type cached struct {
	valid bool
	key   uint64
	used  uint32
	data  []byte
}

// NewCache keeps about size bytes of blocks that are at most block bytes long.
// unpack makes the block that has a key, in p if that has room for it; p may be
// empty. It is called by several goroutines at a time, for different keys.
func NewCache(size, block int, unpack func(key uint64, p []byte) ([]byte, error)) *Cache {
	const least = 4 << 10 // or else there were more sets than blocks are worth
	return &Cache{sets: make([]cacheSet, max(1, size/max(block, least)/cacheWays)), unpack: unpack}
}

// ReadAt fills p from offset off of the block that has a key.
func (c *Cache) ReadAt(p []byte, key, off uint64) error {
	const golden = 0x9e37_79b9_7f4a_7c15 // spreads neighbours over the sets
	s := &c.sets[key*golden>>32%uint64(len(c.sets))]
	s.mu.Lock()
	defer s.mu.Unlock()
	w, err := s.get(key, c.unpack)
	if err != nil {
		return err
	}
	if off > uint64(len(w.data)) || uint64(len(p)) > uint64(len(w.data))-off {
		return fmt.Errorf("a block unpacked to %d bytes, and %d at %d were asked for", len(w.data), len(p), off)
	}
	copy(p, w.data[off:])
	return nil
}

func (s *cacheSet) get(key uint64, unpack func(uint64, []byte) ([]byte, error)) (*cached, error) {
	s.clock++
	oldest := &s.ways[0]
	for i := range s.ways {
		w := &s.ways[i]
		if w.valid && w.key == key {
			w.used = s.clock
			return w, nil
		}
		if !w.valid || oldest.valid && s.clock-w.used > s.clock-oldest.used {
			oldest = w
		}
	}
	// While it is unpacked it must not be taken for what it was.
	oldest.valid = false
	b, err := unpack(key, oldest.data)
	if err != nil {
		return nil, err
	}
	*oldest = cached{valid: true, key: key, used: s.clock, data: b}
	return oldest, nil
}
