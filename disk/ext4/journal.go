package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/outsight-vmi/outsight/disk"
)

// The journal (jbd2) is big-endian.
var be = binary.BigEndian

const (
	journalMagic = 0xc03b3998

	blockDescriptor = 1
	blockCommit     = 2
	blockSuper1     = 3
	blockSuper2     = 4
	blockRevoke     = 5

	journal64Bit      = 0x2
	journalAsync      = 0x4
	journalCsum2      = 0x8
	journalCsum3      = 0x10
	journalFastCommit = 0x20
	journalKnown      = 0x1 | journal64Bit | journalAsync | journalCsum2 | journalCsum3 | journalFastCommit

	tagEscaped  = 0x1
	tagSameUUID = 0x2
	tagLast     = 0x8

	// minJournalBlocks is what is left of a journal at least, before fast commits get a part of it.
	minJournalBlocks   = 1024
	defaultFastCommits = 256
	journalHeader      = 12
	maxJournalBlocks   = 10_240_000 // what mke2fs makes at most
)

// A journal is what was committed to it and is not in its place yet.
type journal struct {
	blockSize int64
	// blocks are the newest copies: from a block of the file system to where the journal has it.
	blocks           map[uint64]journalled
	notes, elsewhere []string

	content             *content
	incompat            uint32
	first, last, length uint64 // blocks: of the log, and behind it
	start               uint64
	sequence            uint32
	seed                uint32
	revoked             map[uint64]uint32
	damaged             int
}

type journalled struct {
	physical int64 // in bytes, on the device
	escaped  bool  // it begins with the journal's own number, which was taken out
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c is the kernel's: without the inversions at both ends.
func crc32c(seed uint32, b []byte) uint32 { return ^crc32.Update(^seed, castagnoli, b) }

func readJournal(f *FS) (*journal, error) {
	n, err := f.node(uint64(f.journalInode))
	if err != nil {
		return nil, err
	}
	j := &journal{blockSize: f.blockSize, blocks: map[uint64]journalled{}, revoked: map[uint64]uint32{}, content: &content{n: n, from: f.device, size: n.stat.Size}}
	b := make([]byte, 1024)
	if err := disk.ReadFull(j.content, b, 0); err != nil {
		return nil, err
	}
	if be.Uint32(b) != journalMagic || be.Uint32(b[4:]) != blockSuper1 && be.Uint32(b[4:]) != blockSuper2 {
		return nil, n.errorf("it does not begin as a journal")
	}
	if size := be.Uint32(b[0xc:]); int64(size) != f.blockSize {
		return nil, n.errorf("the journal's blocks have %d bytes", size)
	}
	j.length, j.first = uint64(be.Uint32(b[0x10:])), uint64(be.Uint32(b[0x14:]))
	j.sequence, j.start = be.Uint32(b[0x18:]), uint64(be.Uint32(b[0x1c:]))
	if be.Uint32(b[4:]) == blockSuper2 {
		j.incompat = be.Uint32(b[0x28:])
	}
	if unknown := j.incompat &^ journalKnown; unknown != 0 {
		return nil, fmt.Errorf("ext4: features %#x of the journal: %w", unknown, disk.ErrUnsupported)
	}
	j.seed = crc32c(^uint32(0), b[0x30:0x40])
	if j.length > min(uint64(n.stat.Size/f.blockSize), maxJournalBlocks) || j.first == 0 || j.first >= j.length {
		return nil, n.errorf("the journal has %d blocks from %d on", j.length, j.first)
	}
	j.last = j.length
	if j.incompat&journalFastCommit != 0 {
		fast := uint64(be.Uint32(b[0x54:]))
		if fast == 0 {
			fast = defaultFastCommits
		}
		if j.last >= fast+minJournalBlocks {
			j.last -= fast
		}
	}
	if j.start == 0 {
		return j, j.fastCommits()
	}
	if j.start < j.first || j.start >= j.last {
		return nil, n.errorf("the journal's log begins in block %d of %d", j.start, j.last)
	}
	return j, j.replay()
}

// replay finds the transactions that were committed, then what they revoke, then their blocks.
func (j *journal) replay() error {
	end, err := j.pass(j.sequence, 0, nil)
	if err != nil {
		return err
	}
	if end != j.sequence {
		if _, err := j.pass(j.sequence, end, (*journal).revoke); err != nil {
			return err
		}
		if _, err := j.pass(j.sequence, end, (*journal).take); err != nil {
			return err
		}
		j.elsewhere = append(j.elsewhere, fmt.Sprintf("%d blocks are shown as the journal has them: %d transactions are not in their places yet", len(j.blocks), end-j.sequence))
	}
	if j.damaged > 0 {
		j.notes = append(j.notes, fmt.Sprintf("%d blocks in the journal are damaged, and were left out", j.damaged))
	}
	j.revoked = nil
	j.sequence = end
	return j.fastCommits()
}

// pass goes through the log from a transaction on, until one is not complete, or until end if visit is set, and shows it each block of
// tags or of revocations. It gives the number behind the last complete transaction.
func (j *journal) pass(sequence, end uint32, visit func(j *journal, kind uint32, sequence uint32, block uint64, b []byte) error) (uint32, error) {
	b := make([]byte, j.blockSize)
	at := j.start
	for seen := uint64(0); seen < j.length; seen++ {
		if visit != nil && sequence == end {
			break
		}
		if err := disk.ReadFull(j.content, b, int64(at)*j.blockSize); err != nil {
			return sequence, err
		}
		if be.Uint32(b) != journalMagic || be.Uint32(b[8:]) != sequence {
			break
		}
		kind := be.Uint32(b[4:])
		if !j.proven(kind, b) {
			break // written in part: this transaction was never committed
		}
		step := uint64(1)
		switch kind {
		case blockDescriptor:
			tags := 0
			if err := j.tags(b, func(uint64, uint32, uint32) error { tags++; return nil }); err != nil {
				return sequence, err
			}
			step += uint64(tags)
			seen += uint64(tags)
		case blockCommit:
			sequence++
		case blockRevoke:
		default:
			return sequence, nil
		}
		if visit != nil && kind != blockCommit {
			if err := visit(j, kind, sequence, at, b); err != nil {
				return sequence, err
			}
		}
		at = j.wrap(at + step)
	}
	return sequence, nil
}

func (j *journal) wrap(block uint64) uint64 {
	if block >= j.last {
		return block - j.last + j.first
	}
	return block
}

// proven says that the checksum of a block of the journal's own is right, if it has one.
func (j *journal) proven(kind uint32, b []byte) bool {
	if j.incompat&(journalCsum2|journalCsum3) == 0 {
		return true
	}
	at := len(b) - 4
	if kind == blockCommit {
		at = 16
	}
	stored := be.Uint32(b[at:])
	be.PutUint32(b[at:], 0)
	sum := crc32c(j.seed, b)
	be.PutUint32(b[at:], stored)
	return sum == stored
}

// tags shows each block that a descriptor says follows it, with its flags and its checksum.
func (j *journal) tags(b []byte, visit func(block uint64, flags, sum uint32) error) error {
	end := len(b)
	if j.incompat&(journalCsum2|journalCsum3) != 0 {
		end -= 4
	}
	size := 8
	switch {
	case j.incompat&journalCsum3 != 0:
		size = 16
	default:
		if j.incompat&journal64Bit != 0 {
			size += 4
		}
		if j.incompat&journalCsum2 != 0 {
			size += 2
		}
	}
	for at := journalHeader; at+size <= end; at += size {
		block := uint64(be.Uint32(b[at:]))
		var flags, sum uint32
		if j.incompat&journalCsum3 != 0 {
			flags, sum = be.Uint32(b[at+4:]), be.Uint32(b[at+12:])
		} else {
			sum, flags = uint32(be.Uint16(b[at+4:])), uint32(be.Uint16(b[at+6:]))
		}
		if j.incompat&journal64Bit != 0 {
			block |= uint64(be.Uint32(b[at+8:])) << 32
		}
		if err := visit(block, flags, sum); err != nil {
			return err
		}
		if flags&tagSameUUID == 0 {
			at += 16
		}
		if flags&tagLast != 0 {
			break
		}
	}
	return nil
}

// revoke notes that older copies of blocks are not to be put back.
func (j *journal) revoke(kind, sequence uint32, _ uint64, b []byte) error {
	if kind != blockRevoke {
		return nil
	}
	size := 4
	if j.incompat&journal64Bit != 0 {
		size = 8
	}
	for at, end := 16, min(int(be.Uint32(b[12:])), len(b)); at+size <= end; at += size {
		block := uint64(be.Uint32(b[at:]))
		if size == 8 {
			block = be.Uint64(b[at:])
		}
		if last, ok := j.revoked[block]; !ok || int32(sequence-last) > 0 {
			j.revoked[block] = sequence
		}
	}
	return nil
}

// take notes where the copies of a descriptor's blocks are.
func (j *journal) take(kind, sequence uint32, at uint64, b []byte) error {
	if kind != blockDescriptor {
		return nil
	}
	data := make([]byte, j.blockSize)
	return j.tags(b, func(block uint64, flags, sum uint32) error {
		at = j.wrap(at + 1)
		if last, ok := j.revoked[block]; ok && int32(sequence-last) <= 0 {
			return nil
		}
		r, err := j.content.n.lookup(at)
		if err != nil {
			return err
		}
		if r.physical == 0 || block >= uint64(j.content.n.fs.device.Size()/j.blockSize) || len(j.blocks) >= maxJournalBlocks {
			j.damaged++
			return nil
		}
		if j.incompat&(journalCsum2|journalCsum3) != 0 {
			if err := disk.ReadFull(j.content, data, int64(at)*j.blockSize); err != nil {
				return err
			}
			var number [4]byte
			be.PutUint32(number[:], sequence)
			is := crc32c(crc32c(j.seed, number[:]), data)
			if j.incompat&journalCsum3 == 0 {
				is &= 0xffff
			}
			if is != sum {
				j.damaged++
				return nil
			}
		}
		j.blocks[block] = journalled{int64(r.physical) * j.blockSize, flags&tagEscaped != 0}
		return nil
	})
}

// fastCommits sees whether there are fast commits behind the log, which describe changes instead of having the blocks.
func (j *journal) fastCommits() error {
	if j.incompat&journalFastCommit == 0 || j.last+1 >= j.length {
		return nil
	}
	var b [16]byte
	if err := disk.ReadFull(j.content, b[:], int64(j.last+1)*j.blockSize); err != nil {
		return err
	}
	// The first is one block behind the log (j_fc_first). struct ext4_fc_tl and ext4_fc_head (fs/ext4/fast_commit.h): tag, length, features, and the transaction that it follows.
	const tagHead = 9
	if le.Uint16(b[:]) == tagHead && le.Uint16(b[2:]) == 8 && le.Uint32(b[8:]) == j.sequence {
		j.notes = append(j.notes, "there are fast commits in the journal: what they change, in the last seconds, is not shown")
	}
	return nil
}

// over is the device with what the journal has in its place.
func (j *journal) over(d disk.Device) disk.Device { return &overlay{d, j} }

type overlay struct {
	disk.Device
	j *journal
}

// ReadAt reads runs of blocks that are in their places at once.
func (o *overlay) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, errors.New("ext4: negative offset")
	}
	size, done := o.j.blockSize, 0
	for done < len(p) {
		at := offset + int64(done)
		within := at % size
		copied, ok := o.j.blocks[uint64(at/size)]
		end := at - within + size
		for !ok && end < offset+int64(len(p)) {
			if _, next := o.j.blocks[uint64(end/size)]; next {
				break
			}
			end += size
		}
		part := p[done:min(int64(len(p)), end-offset)]
		from := at
		if ok {
			from = copied.physical + within
		}
		n, err := o.Device.ReadAt(part, from)
		if ok && copied.escaped {
			for i := within; i < 4 && i-within < int64(n); i++ {
				part[i-within] = byte(uint32(journalMagic) >> (24 - 8*i))
			}
		}
		done += n
		if err != nil && n < len(part) {
			return done, err
		}
	}
	return done, nil
}
