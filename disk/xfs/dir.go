package xfs

import (
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/disk"
)

// Magics of directory blocks that hold names. Those that hold the hashes of names, from 32 GiB of the directory on, are
// not needed to list it.
const (
	dirBlockV4, dirBlockV5 = 0x58443242, 0x58444233 // "XD2B", "XDB3": names and hashes in one
	dirDataV4, dirDataV5   = 0x58443244, 0x58444433 // "XD2D", "XDD3"

	dirDataEnd = 32 << 30 // bytes of the directory
	freeTag    = 0xffff
)

// dirTypes are by the number that directories have for them.
var dirTypes = [...]uint32{
	1: disk.TypeRegular, 2: disk.TypeDir, 3: disk.TypeChar, 4: disk.TypeBlock, 5: disk.TypeFIFO, 6: disk.TypeSocket,
	7: disk.TypeLink,
	8: disk.TypeChar, // a whiteout
}

func dirType(b byte) uint32 {
	if int(b) < len(dirTypes) {
		return dirTypes[b]
	}
	return 0
}

// Entries are the names in a directory.
func (n *node) Entries() iter.Seq2[disk.Entry, error] {
	return func(yield func(disk.Entry, error) bool) {
		switch form := n.raw[5]; {
		case n.kind() != disk.TypeDir:
			yield(disk.Entry{}, fmt.Errorf("xfs: inode %d is no directory", n.number))
		case form == formLocal:
			n.shortEntries(yield)
		default:
			n.blockEntries(yield)
		}
	}
}

// shortEntries are those in the inode: how many, how many need 8 bytes for their inode, the parent, the entries.
func (n *node) shortEntries(yield func(disk.Entry, error) bool) {
	b := n.dataFork()
	if size := n.size(); size < int64(len(b)) {
		b = b[:size]
	}
	if len(b) < 6 {
		yield(disk.Entry{}, n.wrong("a directory of %d bytes", len(b)))
		return
	}
	count, width := int(b[0]), 4
	if b[1] != 0 {
		count, width = max(count, int(b[1])), 8
	}
	b = b[min(len(b), 2+width):]
	ftype := 0
	if n.fs.sb.ftype {
		ftype = 1
	}
	for range count {
		if len(b) < 1 || len(b) < 3+int(b[0])+ftype+width {
			yield(disk.Entry{}, n.wrong("a directory that ends within an entry"))
			return
		}
		length := int(b[0])
		e := disk.Entry{Name: string(b[3 : 3+length])}
		b = b[3+length:]
		if ftype != 0 {
			e.Type = dirType(b[0])
		}
		if b = b[ftype:]; width == 8 {
			e.Inode = be.Uint64(b)
		} else {
			e.Inode = uint64(be.Uint32(b))
		}
		b = b[width:]
		if !n.hand(e, yield) {
			return
		}
	}
}

// hand yields an entry if it can be one.
func (n *node) hand(e disk.Entry, yield func(disk.Entry, error) bool) bool {
	switch e.Name {
	case ".", "..":
		return true
	case "":
		return yield(disk.Entry{}, n.wrong("a directory entry without a name"))
	}
	for i := range len(e.Name) {
		if e.Name[i] == 0 || e.Name[i] == '/' {
			return yield(disk.Entry{}, n.wrong("a directory entry with the name %q", e.Name))
		}
	}
	return yield(e, nil)
}

// blockEntries are those in directory blocks, each of one or more blocks of the file system.
func (n *node) blockEntries(yield func(disk.Entry, error) bool) {
	sb := &n.fs.sb
	if n.size() <= 0 || n.size() > dirDataEnd {
		yield(disk.Entry{}, n.wrong("a directory of %d bytes", n.size()))
		return
	}
	r := n.dataRuns()
	per := int64(1) << sb.dirBlockLog
	end := (n.size() + int64(sb.blockSize)<<sb.dirBlockLog - 1) >> (sb.blockLog + sb.dirBlockLog) << sb.dirBlockLog
	if r.err != nil && !yield(disk.Entry{}, r.err) {
		return
	}
	next, budget := int64(0), int64(sb.blocks) // a directory has no more blocks than its file system
	for _, run := range r.list {
		if run.logical >= end {
			return
		}
		if run.state == lost {
			next = run.end()
			continue
		}
		for at := max(next, run.logical&^(per-1)); at < min(run.end(), end); at += per {
			next = at + per
			if budget -= per; budget < 0 {
				yield(disk.Entry{}, n.wrong("a directory with more blocks than the file system"))
				return
			}
			b, offset, err := n.blocks(r, at, int(per))
			if err == nil {
				err = n.dirBlock(b, offset)
			}
			if err != nil {
				if !yield(disk.Entry{}, err) {
					return
				}
				continue
			}
			if !n.dirNames(b, offset, yield) {
				return
			}
		}
	}
}

func (n *node) dirBlock(b []byte, offset int64) error {
	magic := be.Uint32(b)
	switch {
	case n.fs.sb.crc && (magic == dirBlockV5 || magic == dirDataV5):
		return n.fs.prove(b, offset, dirLayout, n.number)
	case !n.fs.sb.crc && (magic == dirBlockV4 || magic == dirDataV4):
		return nil
	}
	return corrupt(offset, "inode %d: no directory block", n.number)
}

// dirNames walks a directory block: entries and free space in a row, each of a multiple of 8 bytes.
func (n *node) dirNames(b []byte, offset int64, yield func(disk.Entry, error) bool) bool {
	at, ftype, end := 16, 0, len(b)
	if n.fs.sb.crc {
		at = 64
	}
	if n.fs.sb.ftype {
		ftype = 1
	}
	if magic := be.Uint32(b); magic == dirBlockV4 || magic == dirBlockV5 {
		hashes := int64(be.Uint32(b[end-8:])) // of all names, before the last 8 bytes
		if hashes*8+8 > int64(len(b)-at) {
			return yield(disk.Entry{}, corrupt(offset, "inode %d: a directory block with %d names", n.number, hashes))
		}
		end -= int(hashes)*8 + 8
	}
	for at < end {
		rest := b[at:end]
		if len(rest) < 8 {
			return yield(disk.Entry{}, corrupt(offset+int64(at), "inode %d: a directory block that ends within an entry", n.number))
		}
		if be.Uint16(rest) == freeTag {
			length := int(be.Uint16(rest[2:]))
			if length == 0 || length%8 != 0 {
				return yield(disk.Entry{}, corrupt(offset+int64(at), "inode %d: %d free bytes in a directory block", n.number, length))
			}
			at += length
			continue
		}
		length := 0
		if len(rest) > 8 {
			length = int(rest[8])
		}
		size := (9 + length + ftype + 2 + 7) &^ 7
		if length == 0 || size > len(rest) {
			return yield(disk.Entry{}, corrupt(offset+int64(at), "inode %d: a directory entry of %d bytes", n.number, length))
		}
		e := disk.Entry{Name: string(rest[9 : 9+length]), Inode: be.Uint64(rest)}
		if ftype != 0 {
			e.Type = dirType(rest[9+length])
		}
		at += size
		if !n.hand(e, yield) {
			return false
		}
	}
	return true
}
