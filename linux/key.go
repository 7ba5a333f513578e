package linux

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"
	"time"

	"github.com/outsight-vmi/outsight/phys"
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
	node, serial, kind, kindName, desc, uid, gid, perm, usage, expiry, flags, quota Field
}

// Keys yields every key of every user, by serial number.
func (s *System) Keys(ctx context.Context) iter.Seq2[*Key, error] {
	return func(yield func(*Key, error) bool) {
		o, err := layoutOf(s.Walker, "keys", func(r *resolver, o *keyLayout) {
			const t = "key"
			r.symbols("key_serial_tree")
			o.node, o.serial = r.field(t, "serial_node"), r.field(t, "serial")
			o.kind, o.kindName, o.desc = r.field(t, "index_key.type"), r.field("key_type", "name"), r.field(t, "index_key.description")
			o.uid, o.gid, o.perm = r.field(t, "uid"), r.field(t, "gid"), r.field(t, "perm")
			o.usage, o.expiry = r.field(t, "usage.refs.counter"), r.field(t, "expiry")
			o.flags, o.quota = r.field(t, "flags"), r.field(t, "quotalen")
		})
		if err != nil {
			yield(nil, err)
			return
		}
		root, err := s.symbol("key_serial_tree")
		if err != nil {
			yield(nil, fmt.Errorf("keys: %w: %w", ErrUnsupported, err))
			return
		}
		for node, err := range s.rbtree(ctx, root, 1<<20) {
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
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	r := s.reader()
	k := &Key{
		Addr: a, Serial: int32(r.signed(a, o.serial)), UID: uint32(r.num(a, o.uid)), GID: uint32(r.num(a, o.gid)),
		Perm: uint32(r.num(a, o.perm)), Usage: r.signed(a, o.usage), Flags: r.num(a, o.flags), Quota: uint16(r.num(a, o.quota)),
	}
	if kind := r.pointer(a, o.kind); kind != 0 {
		k.Type = r.cString(r.pointer(kind, o.kindName), 64)
	}
	if desc := r.pointer(a, o.desc); desc != 0 {
		k.Description = r.cString(desc, maxPath)
	}
	const never = 1<<63 - 1 // TIME64_MAX, since 6.8; 0 before
	if t := r.signed(a, o.expiry); t > 0 && t < never {
		k.Expires = time.Unix(t, 0).UTC()
	}
	if r.err != nil {
		return nil, fmt.Errorf("at %#x: %w", uint64(a), r.err)
	}
	return k, nil
}
