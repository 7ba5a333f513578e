package plugin

import (
	"bytes"
	"errors"
	"fmt"
)

const recordSize = 32

// Record is what a probe's program fetched.
type Record struct {
	Probe    uint16
	Flags    uint16
	VCPU     int
	Sequence uint64 // over all vCPUs, without gaps
	Ticks    uint64
	words    []byte
	items    []byte
}

// RecordSize is how many bytes a record has before its words.
const RecordSize = recordSize

// Parse takes b apart, which is exactly one record that something else than the plugin made in the same form. It refers to b.
func (r *Record) Parse(b []byte) error { return r.parse(b) }

// Trimmed marks an item, in the byte behind its status, as text of a fixed size: it ends at its first zero.
const Trimmed = 1

var errRecord = errors.New("a record of the plugin's is damaged")

// parse takes b, which is exactly one record, apart. It refers to b.
func (r *Record) parse(b []byte) error {
	if len(b) < recordSize {
		return fmt.Errorf("%w: %d bytes", errRecord, len(b))
	}
	r.Probe, r.Flags = le.Uint16(b[4:]), le.Uint16(b[6:])
	r.Sequence, r.Ticks = le.Uint64(b[8:]), le.Uint64(b[16:])
	n := uint64(le.Uint32(b[24:])) * 8
	if n > uint64(len(b)-recordSize) {
		return fmt.Errorf("%w: %d words in %d bytes", errRecord, n/8, len(b))
	}
	r.words, r.items = b[recordSize:recordSize+n], b[recordSize+n:]
	return nil
}

// Words is how many words the record has.
func (r *Record) Words() int { return len(r.words) / 8 }

// Word returns word i; 0 if there are fewer.
func (r *Record) Word(i int) uint64 {
	if i >= r.Words() {
		return 0
	}
	return le.Uint64(r.words[8*i:])
}

// Item is a piece of guest memory in a record.
type Item struct {
	Tag    uint8
	Status Status
	Data   []byte // valid as long as the record
}

// Items is where a reader of items stands.
type Items struct{ rest []byte }

// Items returns the record's items.
func (r *Record) Items() Items { return Items{r.items} }

// Next returns the next item.
func (i *Items) Next() (item Item, ok bool) {
	if len(i.rest) < 8 {
		return item, false
	}
	n := uint64(le.Uint32(i.rest))
	item.Tag, item.Status = i.rest[4], Status(i.rest[5])
	body := i.rest[8:]
	if n > uint64(len(body)) {
		n, item.Status = uint64(len(body)), Unreadable
	}
	item.Data = body[:n:n]
	if i.rest[6]&Trimmed != 0 {
		if end := bytes.IndexByte(item.Data, 0); end >= 0 {
			item.Data = item.Data[:end:end]
		}
	}
	i.rest = body[min((n+7)&^7, uint64(len(body))):]
	return item, true
}
