package xfs

import (
	"fmt"

	"github.com/outsight-vmi/outsight/disk"
)

const (
	maxTarget  = 1024
	linkMagic  = 0x58534c4d // "XSLM"
	linkHeader = 56
)

// Target is where a symbolic link leads: in the inode, or in up to three extents, each of which begins with a header in
// version 5.
func (n *node) Target() (string, error) {
	if n.kind() != disk.TypeLink {
		return "", fmt.Errorf("xfs: inode %d is no symbolic link", n.number)
	}
	size := n.size()
	if size == 0 || size > maxTarget {
		return "", n.wrong("a symbolic link of %d bytes", size)
	}
	if n.raw[5] == formLocal {
		b := n.dataFork()
		if size > int64(len(b)) {
			return "", n.wrong("a symbolic link of %d bytes in %d", size, len(b))
		}
		return string(b[:size]), nil
	}
	target, r := make([]byte, 0, size), n.dataRuns()
	for next := int64(0); len(target) < int(size); {
		i, ok := r.at(next)
		if !ok || r.list[i].state != written || r.list[i].logical != next {
			if r.err != nil {
				return "", r.err
			}
			return "", n.wrong("a symbolic link without its block %d", next)
		}
		// Its buffer has all of the extent; that is more than a target needs only if somebody made it so.
		count := min(r.list[i].count, int64(maxTarget/n.fs.sb.blockSize)+2)
		b, offset, err := n.blocks(r, next, int(count))
		if err != nil {
			return "", err
		}
		if b, err = n.linkPart(b, offset, len(target)); err != nil {
			return "", err
		}
		target = append(target, b[:min(len(b), int(size)-len(target))]...)
		next += count
	}
	return string(target), nil
}

func (n *node) linkPart(b []byte, offset int64, before int) ([]byte, error) {
	if !n.fs.sb.crc {
		return b, nil
	}
	if be.Uint32(b) != linkMagic {
		return nil, corrupt(offset, "inode %d: no block of a symbolic link", n.number)
	}
	if err := n.fs.prove(b, offset, linkLayout, n.number); err != nil {
		return nil, err
	}
	at, length := be.Uint32(b[4:]), be.Uint32(b[8:])
	if int64(at) != int64(before) || length == 0 || int64(length) > int64(len(b)-linkHeader) {
		return nil, corrupt(offset, "inode %d: bytes %d to %d of a symbolic link", n.number, at, int64(at)+int64(length))
	}
	return b[linkHeader : linkHeader+length], nil
}
