package xfs

// buffer is an item that has parts of a buffer.
type buffer struct {
	id    bufferID
	flags uint16
	bits  []byte // which chunks
	parts [][]byte
}

// bufferOf decodes a description: kind, regions, flags, sectors, place, words of the map, map.
func bufferOf(i *logItem) (b buffer, ok bool) {
	d := i.regions[0]
	if i.kind() != itemBuffer || len(d) < bufferMapAt {
		return b, false
	}
	b = buffer{
		id:    bufferID{int64(le.Uint64(d[8:])), int(le.Uint16(d[6:]))},
		flags: le.Uint16(d[4:]),
		bits:  d[bufferMapAt:],
		parts: i.regions[1:],
	}
	if words := uint64(le.Uint32(d[16:])); words*4 < uint64(len(b.bits)) {
		b.bits = b.bits[:words*4]
	}
	return b, true
}

func (b *buffer) has(chunk int) bool {
	return chunk>>3 < len(b.bits) && b.bits[chunk>>3]>>(chunk&7)&1 != 0
}

// chunks calls f for every row of chunks: each of them is one region.
func (b *buffer) chunks(f func(offset int64, part []byte) error) error {
	part := 0
	for chunk := 0; chunk < len(b.bits)*8; {
		if !b.has(chunk) {
			chunk++
			continue
		}
		n := 1
		for b.has(chunk + n) {
			n++
		}
		if part >= len(b.parts) {
			return corrupt(-1, "the log has a buffer at sector %#x with too few regions", b.id.sector)
		}
		if n = min(n, len(b.parts[part])/bufferChunk); n == 0 {
			return corrupt(-1, "the log has a buffer at sector %#x with a region of %d bytes", b.id.sector, len(b.parts[part]))
		}
		if (chunk+n)*bufferChunk > b.id.length*sector {
			return corrupt(-1, "the log has a buffer at sector %#x with bytes after its end", b.id.sector)
		}
		if err := f(int64(chunk)*bufferChunk, b.parts[part][:n*bufferChunk]); err != nil {
			return err
		}
		part++
		chunk += n
	}
	return nil
}

// buffer replays one, unless it was freed later, or the device has a newer one.
func (r *replay) buffer(b buffer, lsn uint64) error {
	if r.cancelled[b.id] > 0 || b.flags&bufferQuota != 0 {
		return nil
	}
	length := int64(b.id.length) * sector
	if b.id.sector < 0 || b.id.sector > r.fs.sb.bytes()/sector || length > r.fs.sb.bytes()-b.id.sector*sector || length > maxBuffer {
		return corrupt(-1, "the log has a buffer of %d bytes at sector %#x", length, b.id.sector)
	}
	start := b.id.sector * sector
	if b.flags&bufferInodes != 0 {
		return b.chunks(func(offset int64, part []byte) error { return r.unlinkedLinks(start, offset, part) })
	}
	if r.fs.sb.crc {
		have, err := r.peek(start, int(length))
		if err != nil {
			return err
		}
		if at := r.fs.stampOf(have); at != 0 && at != ^uint64(0) && at >= lsn {
			return nil
		}
	}
	return b.chunks(func(offset int64, part []byte) error { return r.write(start+offset, part) })
}

// unlinkedLinks takes of a logged row of inodes the only thing that is logged so: which unlinked one is next.
func (r *replay) unlinkedLinks(start, offset int64, part []byte) error {
	size := int64(r.fs.sb.inodeSize)
	for at := offset/size*size + nextUnlinkedAt; at < offset+int64(len(part)); at += size {
		if at < offset || at+4 > offset+int64(len(part)) {
			continue
		}
		if err := r.write(start+at, part[at-offset:at-offset+4]); err != nil {
			return err
		}
	}
	return nil
}

// stamps are where structures of version 5 have the log sequence number with which they were written, and their file system.
var stamps = map[uint32][2]int{
	0x41423342: {24, 32}, 0x41423343: {24, 32}, // "AB3B", "AB3C": free space
	0x524d4233: {24, 32}, 0x52334643: {24, 32}, // "RMB3", "R3FC": owners and sharers
	inobtMagicV5: {24, 32}, 0x46494233: {24, 32}, // "FIB3"
	treeMagicV5: {32, 40},
	agfMagic:    {208, 64},
	0x5841464c:  {24, 8}, // "XAFL"
	agiMagic:    {320, 296},
	linkMagic:   {48, 16},
	dirBlockV5:  {16, 24}, dirDataV5: {16, 24}, 0x58444633: {16, 24}, // "XDF3"
	superMagic: {240, 32},
}

// stampOf is that number; 0 where there is none, as in what the log has before the device does.
func (fs *FS) stampOf(b []byte) uint64 {
	at, ok := stamps[be.Uint32(b)]
	if !ok {
		switch be.Uint16(b[8:]) {
		case 0x3df1, 0x3dff, daV5, leafV5: // hashes of a directory's names, and attributes
			at = [2]int{24, 32}
		default:
			return 0
		}
	}
	if len(b) < sector {
		return 0
	}
	want := fs.sb.metaUUID
	if be.Uint32(b) == superMagic {
		want = fs.sb.uuid
	}
	if uuid(b[at[1]:at[1]+16]) != want {
		return 0
	}
	return be.Uint64(b[at[0]:])
}
