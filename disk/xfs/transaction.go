package xfs

import "encoding/binary"

const (
	opHeader = 12 // bytes of an operation's header: transaction, length, client, flags

	opStart     = 0x01
	opCommit    = 0x02
	opContinue  = 0x04 // its region goes on in the next record
	opContinued = 0x08 // it is the rest of a region
	opEnd       = 0x10
	opUnmount   = 0x20

	transactionMagic  = 0x5452414e // "TRAN"
	transactionHeader = 16
	maxRegions        = 2304 // of an item; the kernel's limit
)

// The log has the byte order of the machine that wrote it. Only such of little-endian ones are replayed.
var le = binary.LittleEndian

// logItem is a change of one thing: a description, and what belongs to it.
type logItem struct {
	want    int // regions
	regions [][]byte
}

func (i *logItem) kind() uint16 { return le.Uint16(i.regions[0]) }

// transaction is a number of items that count only together.
type transaction struct {
	lsn    uint64 // of the record where it began: what is written to its place is stamped with it
	header []byte
	items  []*logItem
}

// assembler puts transactions together from the operations in records.
type assembler struct {
	open   map[uint32]*transaction
	commit func(*transaction) error
}

// record takes the operations of one.
func (a *assembler) record(r *record) error {
	b := r.data
	for range r.ops {
		if len(b) < opHeader {
			return corrupt(-1, "the log has a record at sector %d that ends within an operation", r.block)
		}
		id, length, flags := be.Uint32(b), be.Uint32(b[4:]), b[9]
		b = b[opHeader:]
		if uint64(length) > uint64(len(b)) {
			return corrupt(-1, "the log has a record at sector %d with an operation of %d bytes", r.block, length)
		}
		if err := a.operation(r, id, flags, b[:length]); err != nil {
			return err
		}
		b = b[length:]
	}
	return nil
}

func (a *assembler) operation(r *record, id uint32, flags byte, b []byte) error {
	t := a.open[id]
	if t == nil {
		if flags&opStart != 0 {
			a.open[id] = &transaction{lsn: r.lsn()}
		}
		return nil // else it began before the tail: all of it is in its place
	}
	flags &^= opEnd
	if flags&opContinued != 0 {
		flags &^= opContinue
	}
	switch flags {
	case 0, opContinue:
		return t.add(b)
	case opContinued:
		return t.extend(b)
	case opCommit:
		delete(a.open, id)
		return a.commit(t)
	case opUnmount:
		delete(a.open, id)
		return nil
	}
	return corrupt(-1, "the log has a record at sector %d with an operation of flags %#x", r.block, flags)
}

// add takes a region: the header of the transaction, the description of an item, or one of its parts.
func (t *transaction) add(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	b = append([]byte(nil), b...)
	if t.header == nil {
		if len(b) < 4 || le.Uint32(b) != transactionMagic || len(b) > transactionHeader {
			return corrupt(-1, "the log has a transaction without a header")
		}
		t.header = b
		return nil
	}
	last := len(t.items) - 1
	if last < 0 || len(t.items[last].regions) == t.items[last].want {
		if len(b) < 4 {
			return corrupt(-1, "the log has an item of %d bytes", len(b))
		}
		want := int(le.Uint16(b[2:]))
		if want == 0 || want > maxRegions {
			return corrupt(-1, "the log has an item of %d regions", want)
		}
		t.items = append(t.items, &logItem{want: want})
		last++
	}
	t.items[last].regions = append(t.items[last].regions, b)
	return nil
}

// extend takes the rest of a region.
func (t *transaction) extend(b []byte) error {
	if len(t.items) == 0 {
		if t.header == nil || len(t.header)+len(b) > transactionHeader {
			return corrupt(-1, "the log has a transaction whose header does not end")
		}
		t.header = append(t.header, b...)
		return nil
	}
	i := t.items[len(t.items)-1]
	last := len(i.regions) - 1
	i.regions[last] = append(i.regions[last], b...)
	return nil
}
