package xfs

import "encoding/binary"

// aclNames are the attributes that Linux shows with names and in a format of its own.
var aclNames = map[string]string{
	"SGI_ACL_FILE":    "system.posix_acl_access",
	"SGI_ACL_DEFAULT": "system.posix_acl_default",
}

const (
	aclEntry          = 12 // bytes
	aclUser, aclGroup = 0x02, 0x08
	noID              = 0xffffffff
)

// posixACL makes of an access control list of XFS (a count; tag, id and permissions of each, big-endian) the one that
// getxattr gives (version 2; tag, permissions and id of each, little-endian).
func posixACL(b []byte) ([]byte, bool) {
	if len(b) < 4 || uint64(be.Uint32(b))*aclEntry != uint64(len(b)-4) {
		return nil, false
	}
	le := binary.LittleEndian
	out := le.AppendUint32(make([]byte, 0, 4+len(b)), 2)
	for b = b[4:]; len(b) > 0; b = b[aclEntry:] {
		tag, id := be.Uint32(b), be.Uint32(b[4:])
		if tag != aclUser && tag != aclGroup {
			id = noID
		}
		out = le.AppendUint16(out, uint16(tag))
		out = le.AppendUint16(out, be.Uint16(b[8:]))
		out = le.AppendUint32(out, id)
	}
	return out, true
}
