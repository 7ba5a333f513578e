package linux

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Key is a key or keyring that the kernel holds. What it keeps secret is not read.
type Key struct {
	Addr              virt.Addr // of the struct key
	Serial            int32
	Type, Description string
	UID, GID          uint32
	Perm              uint32 // KEY_POS_*, KEY_USR_* …
	Usage             int64
	Expires           time.Time // zero: never
	Flags             uint64    // KEY_FLAG_*
	Quota             uint16    // bytes charged to its owner
}

type keyLayout struct {
	node, serial, kind, kindName, desc, uid, gid, perm, usage, expiry, flags, quota kobj.Field
}

// Keys yields every key of every user, by serial number.
func (s *System) Keys(ctx context.Context) iter.Seq2[*Key, error] {
	return func(yield func(*Key, error) bool) {
		o, err := kobj.LayoutOf(s.Walker, "keys", func(r *kobj.Resolver, o *keyLayout) {
			const t = "key"
			r.Prefetch("key_serial_tree")
			o.node, o.serial = r.Field(t, "serial_node"), r.Field(t, "serial")
			o.kind, o.kindName, o.desc = r.Field(t, "index_key.type"), r.Field("key_type", "name"), r.Field(t, "index_key.description")
			o.uid, o.gid, o.perm = r.Field(t, "uid"), r.Field(t, "gid"), r.Field(t, "perm")
			o.usage, o.expiry = r.Field(t, "usage.refs.counter"), r.Field(t, "expiry")
			o.flags, o.quota = r.Field(t, "flags"), r.Field(t, "quotalen")
		})
		if err != nil {
			yield(nil, err)
			return
		}
		root, err := s.SymbolAddr("key_serial_tree")
		if err != nil {
			yield(nil, fmt.Errorf("keys: %w: %w", kobj.ErrUnsupported, err))
			return
		}
		for node, err := range s.RBTree(ctx, root, 1<<20) {
			var k *Key
			if err == nil {
				k, err = s.key(o, node-virt.Addr(o.node.Offset))
			}
			if err != nil {
				err = fmt.Errorf("keys: %w", err)
			}
			if !yield(k, err) {
				return
			}
		}
	}
}

func (s *System) key(o *keyLayout, a virt.Addr) (_ *Key, err error) {
	r := s.Reader()
	k := &Key{
		Addr: a, Serial: int32(r.Int(a, o.serial)), UID: uint32(r.Uint(a, o.uid)), GID: uint32(r.Uint(a, o.gid)),
		Perm: uint32(r.Uint(a, o.perm)), Usage: r.Int(a, o.usage), Flags: r.Uint(a, o.flags), Quota: uint16(r.Uint(a, o.quota)),
	}
	if kind := r.Pointer(a, o.kind); kind != 0 {
		k.Type = r.CString(r.Pointer(kind, o.kindName), 64)
	}
	if desc := r.Pointer(a, o.desc); desc != 0 {
		k.Description = r.CString(desc, MaxPath)
	}
	const never = 1<<63 - 1 // TIME64_MAX, since 6.8; 0 before
	if t := r.Int(a, o.expiry); t > 0 && t < never {
		k.Expires = time.Unix(t, 0).UTC()
	}
	if r.Err != nil {
		return nil, fmt.Errorf("at %#x: %w", uint64(a), r.Err)
	}
	return k, nil
}
