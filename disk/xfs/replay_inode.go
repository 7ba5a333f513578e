package xfs

// What is logged of an inode.
const (
	logDataLocal   = 1 << 1
	logDataExtents = 1 << 2
	logDataRoot    = 1 << 3
	logDevice      = 1 << 4
	logAttrLocal   = 1 << 6
	logAttrExtents = 1 << 7
	logAttrRoot    = 1 << 8

	logInodeV2 = 96 // bytes of a logged inode
)

// inode replays one: its description, the core in the log's byte order, its forks.
func (r *replay) inode(i *logItem, lsn uint64) error {
	d := i.regions[0]
	var place []byte // sector, sectors, byte
	var number uint64
	var device []byte
	switch {
	case len(d) >= 56:
		number, place, device = le.Uint64(d[16:]), d[40:], d[24:28]
	case len(d) >= 52: // of a 32-bit machine, without padding
		number, place, device = le.Uint64(d[12:]), d[36:], d[20:24]
	default:
		return corrupt(-1, "the log has an inode described with %d bytes", len(d))
	}
	id := bufferID{int64(le.Uint64(place)), int(le.Uint32(place[8:]))}
	if r.cancelled[id] > 0 {
		return nil
	}
	at := int64(le.Uint32(place[12:]))
	offset, ok := r.fs.sb.place(number)
	if !ok || id.sector < 0 || id.sector > r.fs.sb.bytes()/sector || id.sector*sector+at != offset {
		return corrupt(-1, "the log has inode %d at sector %#x", number, id.sector)
	}
	if len(i.regions) < 2 || len(i.regions[1]) < logInodeV2 {
		return corrupt(-1, "the log has inode %d without its core", number)
	}
	inode, err := r.peek(offset, int(r.fs.sb.inodeSize))
	if err != nil {
		return err
	}
	core := i.regions[1]
	if newer := r.newer(inode, core, lsn); newer {
		return nil
	}
	if err := r.core(inode, core, lsn, number); err != nil {
		return err
	}
	if err := r.forks(inode, i, le.Uint32(d[4:]), device, number); err != nil {
		return err
	}
	return r.write(offset, inode)
}

// newer says whether the device has an inode that was written after it was logged.
func (r *replay) newer(inode, core []byte, lsn uint64) bool {
	if be.Uint16(inode) != inodeMagic {
		return false
	}
	if r.fs.sb.crc {
		at := be.Uint64(inode[112:])
		return at != 0 && at != ^uint64(0) && at > lsn
	}
	// How often it was written: a number that comes to its end.
	onDisk, logged := be.Uint16(inode[30:]), le.Uint16(core[30:])
	return logged < onDisk && (onDisk != 0xffff || logged >= 0xffff/2)
}

// swap turns a number around.
func swap(to, from []byte, at, size int) {
	for i := range size {
		to[at+i] = from[at+size-1-i]
	}
}

// core makes of a logged one that of the device.
func (r *replay) core(inode, core []byte, lsn, number uint64) error {
	if le.Uint16(core) != inodeMagic {
		return corrupt(-1, "the log has inode %d without its magic", number)
	}
	v3 := core[4] == 3
	if v3 != r.fs.sb.crc || v3 && len(core) < coreV3 {
		return corrupt(-1, "the log has inode %d of version %d", number, core[4])
	}
	flags2 := uint64(0)
	if v3 {
		flags2 = le.Uint64(core[120:])
	}
	for _, n := range []int{0, 2, 6, 20, 22, 80, 88, 90} {
		swap(inode, core, n, 2)
	}
	copy(inode[4:6], core[4:6])
	copy(inode[82:84], core[82:84])
	for _, n := range []int{8, 12, 16, 72, 76, 84, 92} {
		swap(inode, core, n, 4)
	}
	for _, n := range []int{56, 64} {
		swap(inode, core, n, 8)
	}
	times := []int{32, 40, 48}
	clear(inode[24:32]) // padding, and how often it was written
	if v3 {
		times = append(times, 144)
		for _, n := range []int{104, 120, 152} {
			swap(inode, core, n, 8)
		}
		swap(inode, core, 128, 4)
		be.PutUint64(inode[112:], lsn)
		copy(inode[160:176], core[160:176])
		if flags2&flag2Nrext64 != 0 {
			swap(inode, core, 24, 8)
		}
	}
	for _, n := range times {
		if flags2&flag2BigTime != 0 {
			swap(inode, core, n, 8)
		} else {
			swap(inode, core, n, 4)
			swap(inode, core, n+4, 4)
		}
	}
	return nil
}

// forks copies what is logged of them.
func (r *replay) forks(inode []byte, i *logItem, fields uint32, device []byte, number uint64) error {
	start, split := coreV2, int(inode[82])*8
	if r.fs.sb.crc {
		start = coreV3
	}
	if start+split > len(inode) {
		return corrupt(-1, "the log has inode %d with attributes at byte %d", number, start+split)
	}
	data, attr := inode[start:], []byte(nil)
	if split != 0 {
		data, attr = inode[start:start+split], inode[start+split:]
	}
	if fields&logDevice != 0 {
		be.PutUint32(data, le.Uint32(device))
	}
	regions := i.regions[2:]
	for _, f := range []struct {
		to          []byte
		plain, root uint32
	}{
		{data, logDataLocal | logDataExtents, logDataRoot},
		{attr, logAttrLocal | logAttrExtents, logAttrRoot},
	} {
		if fields&(f.plain|f.root) == 0 {
			continue
		}
		if len(regions) == 0 {
			return corrupt(-1, "the log has inode %d with too few regions", number)
		}
		from := regions[0]
		regions = regions[1:]
		if fields&f.root != 0 {
			if !r.root(f.to, from) {
				return corrupt(-1, "the log has inode %d with the root of an extent tree of %d bytes", number, len(from))
			}
			continue
		}
		if len(from) > len(f.to) {
			return corrupt(-1, "the log has inode %d with a fork of %d bytes", number, len(from))
		}
		copy(f.to, from)
	}
	return nil
}

// root makes of the root of an extent tree as it is in memory, and in the log, that of an inode: it has the header of any other block.
func (r *replay) root(to, from []byte) bool {
	header := 24
	if r.fs.sb.crc {
		header = 72
	}
	if len(from) < header || len(to) < 4 {
		return false
	}
	records, room, have := int(be.Uint16(from[6:])), (len(to)-4)/extentSize, (len(from)-header)/extentSize
	if records > room || records > have {
		return false
	}
	copy(to, from[4:8])
	copy(to[4:], from[header:header+records*8])
	copy(to[4+room*8:], from[header+have*8:header+have*8+records*8])
	return true
}

// create replays that a chunk of inodes was made: they are as none has been used yet.
func (r *replay) create(i *logItem) error {
	d := i.regions[0]
	if len(d) < createdInodes {
		return corrupt(-1, "the log has created inodes described with %d bytes", len(d))
	}
	sb := &r.fs.sb
	ag, block, count, size, length, generation := be.Uint32(d[4:]), be.Uint32(d[8:]), be.Uint32(d[12:]), be.Uint32(d[16:]), be.Uint32(d[20:]), be.Uint32(d[24:])
	if ag >= sb.agCount || size != sb.inodeSize || count == 0 || count > 4*inodesPerRecord && count > 1<<sb.inodesPerBlockLog ||
		uint64(length) != (uint64(count)+1<<sb.inodesPerBlockLog-1)>>sb.inodesPerBlockLog || uint64(block)+uint64(length) > sb.groupBlocks(ag) {
		return corrupt(-1, "the log has %d created inodes at block %#x of allocation group %d", count, block, ag)
	}
	start := sb.groupOffset(ag) + int64(block)<<sb.blockLog
	for k := range int64(length) { // their buffers were freed with them, later
		if r.freed[(start+k<<sb.blockLog)/sector] {
			return nil
		}
	}
	fresh := make([]byte, sb.inodeSize)
	for k := range count {
		number := (uint64(ag)<<sb.agBlockLog|uint64(block))<<sb.inodesPerBlockLog + uint64(k)
		clear(fresh)
		be.PutUint16(fresh, inodeMagic)
		fresh[4] = 2
		be.PutUint32(fresh[92:], generation)
		be.PutUint32(fresh[nextUnlinkedAt:], unlinkedEnd)
		if sb.crc {
			fresh[4] = 3
			be.PutUint64(fresh[152:], number)
			copy(fresh[160:], sb.metaUUID[:])
		}
		if err := r.write(start+int64(k)*int64(sb.inodeSize), fresh); err != nil {
			return err
		}
	}
	return nil
}
