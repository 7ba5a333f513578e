package xfs

import (
	"iter"

	"github.com/outsight-vmi/outsight/disk"
)

// Bits of an attribute's flags.
const (
	attrLocal      = 0x01 // the value is beside the name
	attrRoot       = 0x02
	attrSecure     = 0x04
	attrParent     = 0x08 // a pointer to the parent directory, from Linux 6.10
	attrIncomplete = 0x80 // it is being set or removed
)

// Magics of attribute blocks, and of those of values.
const (
	leafV4, leafV5 = 0xfbee, 0x3bee
	daV4, daV5     = 0xfebe, 0x3ebe // inner nodes
	valueMagic     = 0x5841524d     // "XARM"
	valueHeader    = 56

	maxValue = 64 << 10
)

// Attributes are the extended attributes, without parent pointers and what is half written.
func (n *node) Attributes() iter.Seq2[disk.Attribute, error] {
	return func(yield func(disk.Attribute, error) bool) {
		fork := n.attrFork()
		if len(fork) == 0 || n.mode() == 0 {
			return
		}
		_, count := n.extentCounts()
		switch form := n.raw[83]; {
		case form == formLocal:
			n.shortAttributes(fork, yield)
		case form == formExtents && count == 0: // a fork that nothing was put in yet
		default:
			n.treeAttributes(yield)
		}
	}
}

// shortAttributes are those in the inode.
func (n *node) shortAttributes(b []byte, yield func(disk.Attribute, error) bool) {
	if len(b) < 4 || int(be.Uint16(b)) < 4 || int(be.Uint16(b)) > len(b) {
		yield(disk.Attribute{}, n.wrong("attributes of %d bytes", len(b)))
		return
	}
	count := int(b[2])
	b = b[4:be.Uint16(b)]
	for range count {
		if len(b) < 3 || len(b) < 3+int(b[0])+int(b[1]) {
			yield(disk.Attribute{}, n.wrong("attributes that end within one"))
			return
		}
		name, flags := b[3:3+b[0]], b[2]
		value := b[3+len(name) : 3+len(name)+int(b[1])]
		b = b[3+len(name)+len(value):]
		if !n.handAttribute(name, value, flags, yield) {
			return
		}
	}
}

// handAttribute yields an attribute with its name as Linux has it.
func (n *node) handAttribute(name, value []byte, flags byte, yield func(disk.Attribute, error) bool) bool {
	if flags&(attrParent|attrIncomplete) != 0 {
		return true
	}
	a := disk.Attribute{Value: append([]byte(nil), value...)}
	switch {
	case len(name) == 0:
		return yield(disk.Attribute{}, n.wrong("an attribute without a name"))
	case flags&attrSecure != 0:
		a.Name = "security." + string(name)
	case flags&attrRoot == 0:
		a.Name = "user." + string(name)
	default:
		a.Name = "trusted." + string(name)
		if posix := aclNames[string(name)]; posix != "" {
			acl, ok := posixACL(value)
			if !ok {
				return yield(disk.Attribute{}, n.wrong("an access control list of %d bytes in %q", len(value), name))
			}
			a.Name, a.Value = posix, acl
		}
	}
	return yield(a, nil)
}

// treeAttributes are those in blocks: the leaves of a tree, which are a list too.
func (n *node) treeAttributes(yield func(disk.Attribute, error) bool) {
	r := n.attrRuns()
	if r.err != nil && !yield(disk.Attribute{}, r.err) {
		return
	}
	block, seen := int64(0), map[int64]bool{}
	for down := true; ; {
		if seen[block] {
			yield(disk.Attribute{}, n.wrong("attribute block %d twice", block))
			return
		}
		seen[block] = true
		b, offset, err := n.blocks(r, block, 1)
		if err != nil {
			yield(disk.Attribute{}, err)
			return
		}
		magic := be.Uint16(b[8:])
		isNode := magic == daV4 && !n.fs.sb.crc || magic == daV5 && n.fs.sb.crc
		isLeaf := magic == leafV4 && !n.fs.sb.crc || magic == leafV5 && n.fs.sb.crc
		if !isLeaf && (!isNode || !down) {
			yield(disk.Attribute{}, corrupt(offset, "inode %d: no attribute block", n.number))
			return
		}
		// The links between damaged blocks are followed: they lead to others that are whole, or to such that are not of this inode.
		if err := n.fs.prove(b, offset, daLayout, n.number); err != nil && !yield(disk.Attribute{}, err) {
			return
		} else if err == nil && isLeaf && !n.leafAttributes(r, b, offset, yield) {
			return
		}
		if isNode {
			at := 16
			if n.fs.sb.crc {
				at = 64
			}
			block = int64(be.Uint32(b[at+4:]))
			continue
		}
		down = false
		if block = int64(be.Uint32(b)); block == 0 {
			return
		}
	}
}

func (n *node) leafAttributes(r *runs, b []byte, offset int64, yield func(disk.Attribute, error) bool) bool {
	at, count := 32, int(be.Uint16(b[12:]))
	if n.fs.sb.crc {
		at, count = 80, int(be.Uint16(b[56:]))
	}
	if count > (len(b)-at)/8 {
		return yield(disk.Attribute{}, corrupt(offset, "inode %d: %d attributes in a block", n.number, count))
	}
	for i := range count {
		e := b[at+i*8:]
		where, flags := int(be.Uint16(e[4:])), e[6]
		if flags&(attrParent|attrIncomplete) != 0 {
			continue
		}
		name, value, err := n.leafAttribute(r, b, where, flags)
		if err != nil {
			if !yield(disk.Attribute{}, err) {
				return false
			}
			continue
		}
		if !n.handAttribute(name, value, flags, yield) {
			return false
		}
	}
	return true
}

// leafAttribute is the name and the value at a place in a leaf.
func (n *node) leafAttribute(r *runs, b []byte, where int, flags byte) (name, value []byte, err error) {
	if where > len(b)-3 {
		return nil, nil, n.wrong("an attribute at byte %d of its block", where)
	}
	e := b[where:]
	if flags&attrLocal != 0 {
		end := 3 + int(e[2])
		if length := int(be.Uint16(e)); end+length <= len(e) {
			return e[3:end], e[end : end+length], nil
		}
		return nil, nil, n.wrong("an attribute that ends after its block")
	}
	if len(e) < 9 {
		return nil, nil, n.wrong("an attribute at byte %d of its block", where)
	}
	block, length := int64(be.Uint32(e)), int64(be.Uint32(e[4:]))
	if 9+int(e[8]) > len(e) || length > maxValue {
		return nil, nil, n.wrong("an attribute of %d bytes", length)
	}
	value, err = n.remoteValue(r, block, int(length))
	return e[9 : 9+int(e[8])], value, err
}

// remoteValue is a value in blocks of its own. In version 5 each of them has a header, which takes away from its room.
func (n *node) remoteValue(r *runs, block int64, length int) ([]byte, error) {
	value := make([]byte, 0, length)
	for ; len(value) < length; block++ {
		b, offset, err := n.blocks(r, block, 1)
		if err != nil {
			return nil, err
		}
		if n.fs.sb.crc {
			if be.Uint32(b) != valueMagic {
				return nil, corrupt(offset, "inode %d: no block of an attribute's value", n.number)
			}
			if err := n.fs.prove(b, offset, valueLayout, n.number); err != nil {
				return nil, err
			}
			at, bytes := int(be.Uint32(b[4:])), int64(be.Uint32(b[8:]))
			if at != len(value) || bytes == 0 || bytes > int64(len(b)-valueHeader) {
				return nil, corrupt(offset, "inode %d: %d bytes from %d of an attribute's value", n.number, bytes, at)
			}
			b = b[valueHeader : valueHeader+bytes]
		}
		value = append(value, b[:min(len(b), length-len(value))]...)
	}
	return value, nil
}
