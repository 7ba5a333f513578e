package xfs

import (
	"fmt"
	"hash/crc32"

	"github.com/outsight-vmi/outsight/disk"
)

const (
	sector     = 512 // what the log counts in, whatever the device's sectors are
	sectorLog  = 9
	logMagic   = 0xfeedbabe
	logCRC     = 32        // where the checksum of a record is
	maxRecord  = 512 << 10 // bytes; the kernel has at most 256 KiB
	cyclesEach = 64        // words that a header has kept of the sectors behind it
	cycleBytes = cyclesEach * sector
	littleLog  = 1 // h_fmt of a little-endian machine
	// maxLog is the largest that mkfs.xfs makes.
	maxLog = 1<<31 - 1
	// recordsInFlight may be damaged before the head, as the kernel writes so many at once.
	recordsInFlight = 8
)

// logReader reads the log: a ring of records, each of which begins with one or more sectors of headers. The first word of
// every sector is the number of the round in which it was written; what was there is kept in the headers.
type logReader struct {
	dev   disk.Device
	start int64 // bytes
	size  int64 // sectors
	crc   bool
	buf   []byte
}

// record is one, without its headers and with its words back in place.
type record struct {
	block, next int64 // where it and the next one are, in sectors of the log
	cycle       uint32
	tail        uint64 // the log sequence number from where on things may not have reached their places
	ops         int
	format      uint32
	data        []byte // until the next is read
}

func (r *record) lsn() uint64 { return uint64(r.cycle)<<32 | uint64(r.block) }

// newLogReader gives none for a log that is elsewhere.
func (fs *FS) newLogReader() (*logReader, error) {
	if fs.sb.logStart == 0 {
		return nil, nil
	}
	at, ok := fs.sb.linear(fs.sb.logStart, uint64(fs.sb.logBlocks))
	size := int64(fs.sb.logBlocks) << fs.sb.blockLog
	if !ok || size > maxLog || size < 2*sector {
		return nil, corrupt(48, "a log of %d blocks at block %#x", fs.sb.logBlocks, fs.sb.logStart)
	}
	return &logReader{dev: fs.dev, start: at << fs.sb.blockLog, size: size >> sectorLog, crc: fs.sb.crc && !fs.cache.blind}, nil
}

// read fills p with sectors of the ring.
func (l *logReader) read(p []byte, block int64) error {
	for block %= l.size; len(p) > 0; block = 0 {
		n := min(int64(len(p)), (l.size-block)<<sectorLog)
		if err := disk.ReadFull(l.dev, p[:n], l.start+block<<sectorLog); err != nil {
			return fmt.Errorf("xfs: the log: %w", err)
		}
		p = p[n:]
	}
	return nil
}

// cycleAt is the round in which a sector was written.
func (l *logReader) cycleAt(block int64) (uint32, error) {
	var b [8]byte
	if err := disk.ReadFull(l.dev, b[:], l.start+block<<sectorLog); err != nil {
		return 0, fmt.Errorf("xfs: the log: %w", err)
	}
	if be.Uint32(b[:]) == logMagic {
		return be.Uint32(b[4:]), nil
	}
	return be.Uint32(b[:]), nil
}

// head is where the next record would be written. All before it is of the newest round, all from there on of the one before, or
// was never written.
func (l *logReader) head() (int64, error) {
	first, err := l.cycleAt(0)
	if err != nil || first == 0 {
		return -1, err // nothing was ever written
	}
	low, high := int64(0), l.size // the first is of the round, the last is not
	for high-low > 1 {
		middle := (low + high) / 2
		cycle, err := l.cycleAt(middle)
		if err != nil {
			return -1, err
		}
		if cycle == first {
			low = middle
		} else {
			high = middle
		}
	}
	return high, nil
}

// header checks whether a record begins at a sector, and gives its header.
func (l *logReader) header(b []byte, block int64) (r record, headers int, length int, ok bool) {
	if be.Uint32(b) != logMagic {
		return r, 0, 0, false
	}
	r = record{block: block, cycle: be.Uint32(b[4:]), tail: be.Uint64(b[24:]), ops: int(be.Uint32(b[40:])), format: be.Uint32(b[300:])}
	length, headers = int(be.Uint32(b[12:])), 1
	if version, size := be.Uint32(b[8:]), be.Uint32(b[320:]); version&2 != 0 && size > cycleBytes && size <= maxRecord {
		headers = int((size + cycleBytes - 1) / cycleBytes)
	}
	if be.Uint64(b[16:]) != r.lsn() || length <= 0 || length > maxRecord {
		return r, 0, 0, false
	}
	r.next = (block + int64(headers) + int64(length+sector-1)>>sectorLog) % l.size
	return r, headers, length, true
}

// last finds the last record that begins before a sector.
func (l *logReader) last(head int64) (record, bool, error) {
	const window = 64 // sectors
	b := make([]byte, window*sector)
	for done := int64(0); done < min(l.size, 4*maxRecord>>sectorLog); done += window {
		from := ((head-done-window)%l.size + l.size) % l.size
		if err := l.read(b, from); err != nil {
			return record{}, false, err
		}
		for i := int64(window - 1); i >= 0; i-- {
			if r, _, _, ok := l.header(b[i*sector:(i+1)*sector], (from+i)%l.size); ok {
				return r, true, nil
			}
		}
	}
	return record{}, false, nil
}

// record reads one, if it is whole.
func (l *logReader) record(block int64) (r record, ok bool, err error) {
	var first [sector]byte
	if err := l.read(first[:], block); err != nil {
		return r, false, err
	}
	r, headers, length, ok := l.header(first[:], block)
	if !ok {
		return r, false, nil
	}
	n := headers*sector + (length+sector-1)&^(sector-1)
	if n>>sectorLog >= int(l.size) {
		return r, false, nil
	}
	if cap(l.buf) < n {
		l.buf = make([]byte, n)
	}
	b := l.buf[:n]
	if err := l.read(b, block); err != nil {
		return r, false, err
	}
	head, data := b[:headers*sector], b[headers*sector:]
	if l.crc && !recordIsWhole(head, data[:length]) {
		return r, false, nil
	}
	for i := range len(data) >> sectorLog {
		// Without checksums, this is what a record shows that was not written to its end. Behind the end of the ring a round
		// has begun anew.
		cycle := r.cycle
		if block%l.size+int64(headers+i) >= l.size {
			if cycle++; cycle == logMagic {
				cycle++
			}
		}
		if be.Uint32(data[i*sector:]) != cycle {
			return r, false, nil
		}
		at := 44 + i*4
		if i >= cyclesEach {
			at = i/cyclesEach*sector + 4 + i%cyclesEach*4
		}
		if at+4 > len(head) {
			return r, false, nil
		}
		copy(data[i*sector:i*sector+4], head[at:at+4])
	}
	r.data = data[:length]
	return r, true, nil
}

// recordIsWhole compares the checksum, which is of xlog_rec_header without its padding or with it (324 bytes on i386, 328
// elsewhere), the used parts of further headers, and the data.
func recordIsWhole(head, data []byte) bool {
	want := uint32(head[logCRC]) | uint32(head[logCRC+1])<<8 | uint32(head[logCRC+2])<<16 | uint32(head[logCRC+3])<<24
	if want == 0 {
		return true // written by mkfs.xfs or xfs_repair
	}
	for _, size := range []int{328, 324} {
		var zero [4]byte
		c := crc32.Update(0, castagnoli, head[:logCRC])
		c = crc32.Update(c, castagnoli, zero[:])
		c = crc32.Update(c, castagnoli, head[logCRC+4:size])
		for at := sector; at < len(head); at += sector {
			c = crc32.Update(c, castagnoli, head[at:at+4+cyclesEach*4])
		}
		if crc32.Update(c, castagnoli, data) == want {
			return true
		}
	}
	return false
}

// dirty is the part of the log that may not have reached its place: from a record on to a sector. None: the file system was
// unmounted.
func (l *logReader) dirty() (from, to int64, dirty bool, err error) {
	head, err := l.head()
	if err != nil || head < 0 {
		return 0, 0, false, err
	}
	for range recordsInFlight + 1 {
		last, ok, err := l.last(head)
		if err != nil {
			return 0, 0, false, err
		}
		if !ok {
			return 0, 0, false, corrupt(l.start, "no record in the log before its sector %d", head)
		}
		tail := int64(last.tail & (1<<32 - 1))
		if tail >= l.size {
			return 0, 0, false, corrupt(l.start+last.block<<sectorLog, "a record of the log with its tail at sector %d", tail)
		}
		stop, err := l.walk(tail, last.block, nil)
		if err != nil {
			return 0, 0, false, err
		}
		if stop != last.next { // one of them is not whole: it was being written
			head = stop
			continue
		}
		whole, _, err := l.record(last.block)
		if err != nil {
			return 0, 0, false, err
		}
		return tail, last.next, !unmounted(&whole), nil
	}
	return 0, 0, false, corrupt(l.start, "no whole record before the head of the log")
}

// unmounted says whether a record has the only operation with which the kernel ends a log.
func unmounted(r *record) bool {
	return r.ops == 1 && len(r.data) >= opHeader && r.data[9]&opUnmount != 0
}

// walk reads the records from one to another, which it includes, and gives where it stopped.
func (l *logReader) walk(from, last int64, each func(*record) error) (stop int64, err error) {
	for at, budget := from, l.size; budget > 0; {
		r, ok, err := l.record(at)
		if err != nil || !ok {
			return at, err
		}
		if each != nil {
			if err := each(&r); err != nil {
				return at, err
			}
		}
		if at == last {
			return r.next, nil
		}
		budget -= (r.next - at + l.size) % l.size
		at = r.next
	}
	return -1, corrupt(l.start, "the records of the log do not end at sector %d", last)
}
