package ext4

import (
	"iter"

	"github.com/outsight-vmi/outsight/disk"
)

// Indices of the prefixes of names (fs/ext4/xattr.h).
const (
	indexSystem     = 7
	indexEncryption = 9
)

var prefixes = map[byte]string{1: "user.", 2: aclAccess, 3: aclDefault, 4: "trusted.", 6: "security.", indexSystem: "system.", 8: "system.richacl", 10: "gnu."}

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

func attributeName(index byte, name string) string { return prefixes[index] + name }

const (
	attributeMagic = 0xea020000
	maxValue       = 64 << 10 // XATTR_SIZE_MAX
	blockHeader    = 32
)

// An attribute is an entry of a list, which has its value somewhere else.
type attribute struct {
	index byte
	name  string
	inode uint32 // that has the value, or 0
	size  uint32
	value []byte // where it is in the list's own memory
}

// attributes are those in the inode, and those in its block.
func (n *node) attributes() iter.Seq2[attribute, error] {
	return func(yield func(attribute, error) bool) {
		if len(n.extra) >= 4 && le.Uint32(n.extra) == attributeMagic {
			if !n.list(n.extra[4:], 0, yield) {
				return
			}
		}
		if n.acl == 0 {
			return
		}
		if n.acl >= n.fs.blocks {
			yield(attribute{}, n.errorf("its attributes are in block %d of %d", n.acl, n.fs.blocks))
			return
		}
		b, err := n.fs.blockView(n.acl)
		if err != nil {
			yield(attribute{}, n.errorf("its attributes: %w", err))
			return
		}
		if le.Uint32(b) != attributeMagic {
			yield(attribute{}, n.errorf("block %d has no attributes", n.acl))
			return
		}
		n.list(b, blockHeader, yield)
	}
}

// list goes through the entries in b, which begin at a byte of it; their values are counted from the beginning of b. False says
// that nobody wants more.
func (n *node) list(b []byte, at int, yield func(attribute, error) bool) bool {
	for at+4 <= len(b) && le.Uint32(b[at:]) != 0 {
		if at+16 > len(b) || at+16+int(b[at]) > len(b) {
			return yield(attribute{}, n.errorf("its attributes have no end"))
		}
		a := attribute{index: b[at+1], name: string(b[at+16 : at+16+int(b[at])]), inode: le.Uint32(b[at+4:]), size: le.Uint32(b[at+8:])}
		var err error
		if from := int(le.Uint16(b[at+2:])); a.inode == 0 {
			if int64(from)+int64(a.size) > int64(len(b)) {
				err = n.errorf("the value of attribute %q is outside", attributeName(a.index, a.name))
			} else {
				a.value = b[from : from+int(a.size)]
			}
		}
		if !yield(a, err) {
			return false
		}
		at += (16 + int(b[at]) + 3) &^ 3
	}
	return true
}

// value is an attribute's value, as Linux shows it.
func (n *node) value(a attribute) ([]byte, error) {
	v := append([]byte(nil), a.value...)
	if a.inode != 0 {
		if a.size > maxValue {
			return nil, n.errorf("the value of attribute %q has %d bytes", attributeName(a.index, a.name), a.size)
		}
		holder, err := n.fs.node(uint64(a.inode))
		if err != nil {
			return nil, n.errorf("the value of attribute %q: %w", attributeName(a.index, a.name), err)
		}
		v = make([]byte, a.size)
		if err := disk.ReadFull(&content{n: holder, from: n.fs.newest, size: holder.stat.Size}, v, 0); err != nil {
			return nil, n.errorf("the value of attribute %q: %w", attributeName(a.index, a.name), err)
		}
	}
	switch attributeName(a.index, a.name) {
	case aclAccess, aclDefault:
		return n.acls(v)
	}
	return v, nil
}

// acls writes an access control list as Linux' system calls do: on disk it is version 1, where only some entries have an ID.
func (n *node) acls(b []byte) ([]byte, error) {
	const user, group = 0x02, 0x08
	if len(b) < 4 || le.Uint32(b) != 1 {
		return nil, n.errorf("an access control list of an unknown version")
	}
	out := le.AppendUint32(nil, 2)
	for b = b[4:]; len(b) > 0; {
		if len(b) < 4 {
			return nil, n.errorf("an access control list ends in an entry")
		}
		out = append(out, b[:4]...)
		id := uint32(0xffffffff)
		size := 4
		if tag := le.Uint16(b); tag == user || tag == group {
			if len(b) < 8 {
				return nil, n.errorf("an access control list ends in an entry")
			}
			id, size = le.Uint32(b[4:]), 8
		}
		out = le.AppendUint32(out, id)
		b = b[size:]
	}
	return out, nil
}
