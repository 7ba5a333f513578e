package ext4

import (
	"encoding/base64"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/disk"
)

// maxDirectory bounds what is read of a directory: 4 GiB have room for 10⁸ names.
const maxDirectory = 4 << 30

// readAhead is how much of a directory is read at once.
const readAhead = 64 << 10

// Types of directory entries.
var entryTypes = [...]uint32{0, disk.TypeRegular, disk.TypeDir, disk.TypeChar, disk.TypeBlock, disk.TypeFIFO, disk.TypeSocket, disk.TypeLink}

// Entries are the names in a directory. An index (dir_index) is made of entries without an inode, and needs no reading.
func (n *node) Entries() iter.Seq2[disk.Entry, error] {
	return func(yield func(disk.Entry, error) bool) {
		if n.stat.Type() != disk.TypeDir {
			yield(disk.Entry{}, fmt.Errorf("ext4: inode %d is no directory", n.stat.Inode))
			return
		}
		if n.flags&flagInline != 0 {
			n.inlineEntries(yield)
			return
		}
		size := n.fs.blockSize
		c := &content{n: n, size: min(n.stat.Size, maxDirectory, n.fs.device.Size())}
		buf := make([]byte, max(readAhead, size))
		for at := int64(0); at+size <= c.size; {
			r, err := n.lookup(uint64(at / size))
			if err != nil {
				yield(disk.Entry{}, err)
				return
			}
			if r.physical == 0 { // one error, however long it is
				if !yield(disk.Entry{}, n.errorf("the directory has a hole at byte %#x", at)) || r.length > uint64(c.size/size) {
					return
				}
				at += int64(r.length) * size
				continue
			}
			part := buf[:min(int64(min(r.length, uint64(len(buf))))*size, int64(len(buf)), (c.size-at)/size*size)]
			if err := disk.ReadFull(n.fs.newest, part, int64(r.physical)*size); err != nil {
				yield(disk.Entry{}, n.errorf("the directory: %w", err))
				return
			}
			for block := int64(0); block < int64(len(part)); block += size {
				if !n.blockEntries(part[block:block+size], at+block, yield) {
					return
				}
			}
			at += int64(len(part))
		}
	}
}

// inlineEntries are those of a directory that is in its inode: the number of its parent, and two lists.
func (n *node) inlineEntries(yield func(disk.Entry, error) bool) {
	b, err := n.inline()
	if err != nil {
		yield(disk.Entry{}, err)
		return
	}
	if !n.blockEntries(b[4:len(n.block)], 4, yield) || len(b) == len(n.block) {
		return
	}
	n.blockEntries(b[len(n.block):], int64(len(n.block)), yield)
}

// blockEntries are the entries of a block; false says that nobody wants more. A damaged entry ends its block.
func (n *node) blockEntries(b []byte, offset int64, yield func(disk.Entry, error) bool) bool {
	for at := 0; at+8 <= len(b); {
		length := entryLength(le.Uint16(b[at+4:]), len(b))
		if length < 8 || length%4 != 0 || at+length > len(b) {
			return yield(disk.Entry{}, n.errorf("an entry at byte %#x of the directory has %d bytes", offset+int64(at), length))
		}
		inode, name := le.Uint32(b[at:]), int(b[at+6])
		kind := b[at+7]
		if n.fs.incompat&incompatFiletype == 0 {
			kind = 0 // it is the upper half of the name's length, and names have 255 bytes at most
		}
		if inode != 0 && name > 0 {
			if 8+name > length {
				return yield(disk.Entry{}, n.errorf("a name at byte %#x of the directory is longer than its entry", offset+int64(at)))
			}
			e := disk.Entry{Name: string(b[at+8 : at+8+name]), Inode: uint64(inode)}
			if int(kind) < len(entryTypes) {
				e.Type = entryTypes[kind]
			}
			if !disk.ValidName(e.Name) {
				if !yield(disk.Entry{}, n.errorf("a name in the directory is %q", e.Name)) {
					return false
				}
			} else if e.Name != "." && e.Name != ".." {
				if n.flags&flagEncrypted != 0 { // as fscrypt shows names without a key: in letters that names may have
					e.Name = base64.RawURLEncoding.EncodeToString([]byte(e.Name))
				}
				if !yield(e, nil) {
					return false
				}
			}
		}
		at += length
	}
	return true
}

// entryLength decodes rec_len, which has 16 bits also where blocks have 64 KiB.
func entryLength(raw uint16, block int) int {
	if block < 64<<10 {
		return int(raw)
	}
	if raw == 0xffff || raw == 0 {
		return block
	}
	return int(raw&0xfffc) | int(raw&3)<<16
}
