package disk

import (
	"container/list"
	"io"
	"sync"
)

// A Cache reads a device in pages and keeps the ones used last. It is for metadata, which is read again and again in small pieces: what
// is in files goes past it. It may be used by several goroutines.
type Cache struct {
	d        Device
	pageSize int64
	limit    int

	mu    sync.Mutex
	pages map[int64]*list.Element // of *page
	used  *list.List              // the one used last is in front
}

type page struct {
	number int64
	data   []byte
}

// NewCache keeps at most limit pages of pageSize bytes each.
func NewCache(d Device, pageSize int64, limit int) *Cache {
	return &Cache{d: d, pageSize: pageSize, limit: max(limit, 1), pages: make(map[int64]*list.Element), used: list.New()}
}

// Size is that of the device.
func (c *Cache) Size() int64 { return c.d.Size() }

// ReadAt reads through the cache.
func (c *Cache) ReadAt(p []byte, offset int64) (int, error) {
	done := 0
	for done < len(p) {
		if offset < 0 || offset >= c.d.Size() {
			return done, io.EOF
		}
		data, err := c.page(offset / c.pageSize)
		if err != nil {
			return done, err
		}
		at := offset % c.pageSize
		if at >= int64(len(data)) {
			return done, io.EOF
		}
		n := copy(p[done:], data[at:])
		done += n
		offset += int64(n)
	}
	return done, nil
}

// View is size bytes at offset, which are not to be changed. It copies nothing if they are in one page.
func (c *Cache) View(offset int64, size int) ([]byte, error) {
	if at := offset % c.pageSize; offset >= 0 && offset < c.d.Size() && at+int64(size) <= c.pageSize {
		data, err := c.page(offset / c.pageSize)
		if err != nil {
			return nil, err
		}
		if at+int64(size) <= int64(len(data)) {
			return data[at : at+int64(size) : at+int64(size)], nil
		}
	}
	b := make([]byte, size)
	return b, ReadFull(c, b, offset)
}

// page is a page's bytes, which nobody changes.
func (c *Cache) page(number int64) ([]byte, error) {
	c.mu.Lock()
	if e, ok := c.pages[number]; ok {
		c.used.MoveToFront(e)
		c.mu.Unlock()
		return e.Value.(*page).data, nil
	}
	c.mu.Unlock()
	data := make([]byte, min(c.pageSize, c.d.Size()-number*c.pageSize))
	if err := ReadFull(c.d, data, number*c.pageSize); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.pages[number]; ok { // another was faster
		return e.Value.(*page).data, nil
	}
	c.pages[number] = c.used.PushFront(&page{number, data})
	if c.used.Len() > c.limit {
		last := c.used.Remove(c.used.Back()).(*page)
		delete(c.pages, last.number)
	}
	return data, nil
}
