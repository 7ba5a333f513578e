package qcow2

import (
	"sync"
)

// DefaultCache is the size of a cache that nobody asked for, in bytes. It has the tables of 100 GB of disk in clusters
// of 64 KiB, and some clusters.
const DefaultCache = 16 << 20

// A Cache keeps pieces of tables and clusters that were decompressed. The images of a chain share one, so that a long chain
// needs no more memory than a short one. It is safe for concurrent use; what is kept is read without allocation.
type Cache struct {
	mu     sync.Mutex
	kept   map[key]*kept
	newest kept // a ring: newest.next is what was used last, newest.previous longest ago
	used   int  // bytes
	limit  int  // bytes
}

// key is a piece of tables (entry 0) at a place of an image, or the compressed cluster that has an L2 entry.
type key struct {
	core  *core
	piece int64
	entry uint64
}

type kept struct {
	key            key
	data           []byte
	err            error
	users          int        // who reads it; then it is not reused
	filling        sync.Mutex // held by who reads it from the image
	next, previous *kept
}

// NewCache keeps at most limit bytes, and at least what is in use.
func NewCache(limit int) *Cache {
	c := &Cache{kept: map[key]*kept{}, limit: limit}
	c.newest.next, c.newest.previous = &c.newest, &c.newest
	return c
}

// get gives what is at a key; put gives it back.
func (c *Cache) get(k key) (*kept, error) {
	c.mu.Lock()
	if e := c.kept[k]; e != nil {
		e.users++
		c.toFront(e)
		c.mu.Unlock()
		e.filling.Lock() // waits for who fills it
		err := e.err
		e.filling.Unlock()
		if err != nil {
			c.put(e)
			return nil, err
		}
		return e, nil
	}
	e := c.free(k.size())
	e.key, e.users, e.err = k, 1, nil
	c.kept[k] = e
	c.toFront(e)
	e.filling.Lock()
	c.mu.Unlock()

	e.data, e.err = k.core.load(k, e.data)
	err := e.err
	e.filling.Unlock()
	if err != nil {
		c.mu.Lock()
		c.forget(e)
		c.mu.Unlock()
		return nil, err
	}
	return e, nil
}

func (c *Cache) put(e *kept) {
	c.mu.Lock()
	e.users--
	c.mu.Unlock()
}

// free makes room, and gives an entry whose data has size bytes: one that nobody uses, if it can be.
func (c *Cache) free(size int) *kept {
	var reuse *kept
	for e := c.newest.previous; e != &c.newest && c.used+size > c.limit; {
		previous := e.previous
		if e.users == 0 {
			c.forget(e)
			if cap(e.data) == size {
				reuse = e
			}
		}
		e = previous
	}
	c.used += size
	if reuse != nil {
		reuse.data = reuse.data[:size]
		return reuse
	}
	return &kept{data: make([]byte, size)}
}

// forget takes an entry out; who still uses it goes on with it.
func (c *Cache) forget(e *kept) {
	delete(c.kept, e.key)
	e.previous.next, e.next.previous = e.next, e.previous
	e.next, e.previous = nil, nil
	c.used -= cap(e.data)
}

func (c *Cache) toFront(e *kept) {
	if e.next != nil {
		e.previous.next, e.next.previous = e.next, e.previous
	}
	first := c.newest.next
	e.previous, e.next = &c.newest, first
	c.newest.next, first.previous = e, e
}
