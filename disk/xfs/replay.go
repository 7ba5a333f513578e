package xfs

import (
	"errors"
	"fmt"
	"strings"
)

// Kinds of items in the log.
const (
	itemEFI, itemEFD       = 0x1236, 0x1237
	itemInode              = 0x123b
	itemBuffer             = 0x123c
	itemCreate             = 0x123f
	itemRUI, itemRUD       = 0x1240, 0x1241
	itemCUI, itemCUD       = 0x1242, 0x1243
	itemBUI, itemBUD       = 0x1244, 0x1245
	itemAttrI, itemAttrD   = 0x1246, 0x1247
	itemXMI, itemXMD       = 0x1248, 0x1249
	bufferInodes           = 1 << 0 // of inodes, of which only the links between unlinked ones are logged so
	bufferCancel           = 1 << 1 // it is free: what was logged of it before does not count
	bufferQuota            = 1<<2 | 1<<3 | 1<<4
	bufferChunk            = 128 // bytes that a bit of its map stands for
	maxOverlay             = 512 << 20
	nextUnlinkedAt         = 96
	maxBuffer              = 64 << 10
	bufferMapAt            = 20
	createdInodes, intents = 28, 16 // bytes of what is read of their descriptions
)

// A bufferID is where a buffer is, in sectors, and how many it has.
type bufferID struct {
	sector int64
	length int
}

// replay is the log applied to blocks in memory.
type replay struct {
	fs        *FS
	blocks    map[int64][]byte // by offset on the device
	cancelled map[bufferID]int
	freed     map[int64]bool    // sectors where buffers were cancelled
	pending   map[uint64]uint16 // what was begun and not ended
	count     int
}

// errLogTooLarge ends a replay.
var errLogTooLarge = errors.New("xfs: the log changes more than is kept of it")

// replayLog applies the log, and gives the blocks that it changes. What cannot be applied is said in the notes: the file
// system can be read without it.
func (fs *FS) replayLog() map[int64][]byte {
	log, err := fs.newLogReader()
	if err == nil && log == nil {
		return nil
	}
	var from, to int64
	var dirty bool
	if err == nil {
		from, to, dirty, err = log.dirty()
	}
	if err != nil {
		fs.note("the log cannot be read, and changes in it are not shown: %v", err)
		return nil
	}
	if !dirty {
		return nil
	}
	r := &replay{fs: fs, blocks: map[int64][]byte{}, cancelled: map[bufferID]int{}, freed: map[int64]bool{}, pending: map[uint64]uint16{}}
	if err := r.run(log, from, to); err != nil {
		fs.note("the log has changes that are not shown: %v", err)
	}
	if r.count > 0 {
		fs.elsewhere = append(fs.elsewhere, fmt.Sprintf("%d transactions of the log are not in their places yet", r.count))
	}
	r.notePending()
	return r.blocks
}

func (fs *FS) note(what string, args ...any) { fs.notes = append(fs.notes, fmt.Sprintf(what, args...)) }

// run goes through the log twice: what is freed at the end has to be known from the beginning, as its blocks may have got
// another use that is not in the log.
func (r *replay) run(log *logReader, from, to int64) error {
	for _, commit := range []func(*transaction) error{r.cancel, r.apply} {
		a := assembler{open: map[uint32]*transaction{}, commit: commit}
		stop, err := log.walk(from, -1, func(rec *record) error {
			if rec.format != littleLog {
				return unsupported("a log of format %d", rec.format)
			}
			if err := a.record(rec); err != nil {
				return err
			}
			if rec.next == to {
				return errEnd
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnd) {
			return err
		}
		if err == nil {
			return corrupt(-1, "the log has no whole record at sector %d", stop)
		}
	}
	return nil
}

var errEnd = errors.New("end of the log")

// cancel notes the buffers that a transaction frees.
func (r *replay) cancel(t *transaction) error {
	for _, i := range t.items {
		if b, ok := bufferOf(i); ok && b.flags&bufferCancel != 0 {
			r.cancelled[b.id]++
			r.freed[b.id.sector] = true
		}
	}
	return nil
}

// apply changes what a transaction changed: buffers first, then inodes, which may be in them, then the links between unlinked
// inodes, then what is freed. The kernel has the same order.
func (r *replay) apply(t *transaction) error {
	r.count++
	var late, cancels []buffer
	var items []*logItem
	for _, i := range t.items {
		if len(i.regions) != i.want {
			return corrupt(-1, "the log has an item of kind %#x with %d of %d regions", i.kind(), len(i.regions), i.want)
		}
		b, ok := bufferOf(i)
		switch {
		case i.kind() == itemBuffer && !ok:
			return corrupt(-1, "the log has a buffer that cannot be one")
		case ok && b.flags&bufferCancel != 0:
			cancels = append(cancels, b)
		case ok && b.flags&bufferInodes != 0:
			late = append(late, b)
		case ok:
			if err := r.buffer(b, t.lsn); err != nil {
				return err
			}
		case i.kind() == itemCreate:
			if err := r.create(i); err != nil {
				return err
			}
		default:
			items = append(items, i)
		}
	}
	for _, i := range items {
		if i.kind() == itemInode {
			if err := r.inode(i, t.lsn); err != nil {
				return err
			}
			continue
		}
		r.intent(i)
	}
	for _, b := range late {
		if err := r.buffer(b, t.lsn); err != nil {
			return err
		}
	}
	for _, b := range cancels {
		if r.cancelled[b.id]--; r.cancelled[b.id] <= 0 {
			delete(r.cancelled, b.id)
		}
	}
	return nil
}

// intents have an end of the next number; both have the same identity.
var intentNames = map[uint16]string{
	itemBUI: "mapping of extents", itemAttrI: "setting of attributes", itemXMI: "exchange of ranges",
	itemEFI: "", itemRUI: "", itemCUI: "", // free space, its owners and sharers: no file shows them
}

func (r *replay) intent(i *logItem) {
	b := i.regions[0]
	if len(b) < intents {
		return
	}
	id := le.Uint64(b[8:])
	switch kind := i.kind(); kind {
	case itemEFI, itemRUI, itemCUI, itemBUI, itemAttrI, itemXMI:
		r.pending[id] = kind
	case itemEFD, itemRUD, itemCUD, itemBUD, itemAttrD, itemXMD:
		delete(r.pending, id)
	}
}

func (r *replay) notePending() {
	counts := map[string]int{}
	for _, kind := range r.pending {
		counts[intentNames[kind]]++
	}
	var what []string
	for _, kind := range []uint16{itemBUI, itemAttrI, itemXMI} {
		if n := counts[intentNames[kind]]; n > 0 {
			what = append(what, fmt.Sprintf("%s (%d)", intentNames[kind], n))
		}
	}
	if len(what) > 0 {
		r.fs.note("the log has operations that were not ended, and are not shown: %s", strings.Join(what, ", "))
	}
}

// block is the block of the overlay that has a byte of the device.
func (r *replay) block(offset int64) ([]byte, int64, error) {
	size := int64(r.fs.sb.blockSize)
	at := offset &^ (size - 1)
	if b, ok := r.blocks[at]; ok {
		return b, at, nil
	}
	if int64(len(r.blocks)+1)*size > maxOverlay {
		return nil, 0, errLogTooLarge
	}
	b, err := r.fs.cache.read(at, int(size))
	if err != nil {
		return nil, 0, err
	}
	b = append([]byte(nil), b...)
	r.blocks[at] = b
	return b, at, nil
}

// write changes bytes.
func (r *replay) write(offset int64, p []byte) error {
	for len(p) > 0 {
		b, at, err := r.block(offset)
		if err != nil {
			return err
		}
		n := copy(b[offset-at:], p)
		p, offset = p[n:], offset+int64(n)
	}
	return nil
}

// peek reads bytes as they are after what was replayed so far.
func (r *replay) peek(offset int64, n int) ([]byte, error) {
	b := make([]byte, 0, n)
	for len(b) < n {
		at := offset + int64(len(b))
		start := at &^ (int64(r.fs.sb.blockSize) - 1)
		part, ok := r.blocks[start]
		if !ok {
			var err error
			if part, err = r.fs.cache.read(start, int(r.fs.sb.blockSize)); err != nil {
				return nil, err
			}
		}
		part = part[at-start:]
		b = append(b, part[:min(len(part), n-len(b))]...)
	}
	return b, nil
}
