package peek

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Object is one object on a chain.
type Object struct {
	Index uint64 // its place; in an XArray or a maple tree, its index there
	Addr  uint64
}

// Chain is how objects of a type are chained: by a member of theirs, or by pointers.
type Chain struct {
	m      *Memory
	kind   kobj.ChainKind // empty: the member points to the next object
	offset uint64         // of the member
}

// links are the types of members that chain objects.
var links = map[string]kobj.ChainKind{
	"struct list_head": kobj.ChainList, "struct hlist_node": kobj.ChainHList, "struct rb_node": kobj.ChainRBTree,
}

// Chain is how the objects that link names are chained: "module.list" is a member in which
// lists, trees or other objects of that type meet; a type alone ("task_struct") is that of the objects
// to which an XArray or a maple tree points, as kind says.
func (m *Memory) Chain(link string, kind kobj.ChainKind) (*Chain, error) {
	t, err := m.Type(link)
	if err != nil {
		return nil, err
	}
	if kind != "" {
		return &Chain{m: m, kind: kind, offset: t.base}, nil
	}
	c := &Chain{m: m, kind: links[t.String()], offset: t.base}
	if _, typ, ok := t.spec.Strip(t.id); c.kind == "" && (!ok || typ.Kind() != btf.KindPtr || t.path == "") {
		return nil, fmt.Errorf("%s is %s, which chains nothing: name a list_head, hlist_node, rb_node or pointer in the type, or say that it is an xarray or a maple tree", link, t)
	}
	return c, nil
}

// Objects yields the objects on the chain that begins at head: at a list_head, hlist_head,
// rb_root, xarray or maple_tree, or, of objects that point to the next one, at a pointer to
// the first.
func (c *Chain) Objects(ctx context.Context, head uint64) iter.Seq2[Object, error] {
	if c.kind == "" {
		return func(yield func(Object, error) bool) { c.pointers(ctx, head, yield) }
	}
	return func(yield func(Object, error) bool) {
		for l, err := range c.m.s.Chain(ctx, c.kind, virt.Addr(head)) {
			if !yield(Object{Index: l.Index, Addr: uint64(l.Addr) - c.offset}, err) {
				return
			}
		}
	}
}

func (c *Chain) pointers(ctx context.Context, head uint64, yield func(Object, error) bool) {
	const most = 8 << 20
	seen := map[uint64]struct{}{}
	for n, at := uint64(0), head; ; n++ {
		var b [8]byte
		_, err := c.m.ReadAt(b[:], at)
		switch {
		case err != nil:
			err = fmt.Errorf("pointer at %#x: %w", at, err)
		case n > most:
			err = fmt.Errorf("pointer at %#x: %w: more than %d objects", at, kobj.ErrBroken, most)
		default:
			err = ctx.Err()
		}
		if err != nil {
			yield(Object{}, err)
			return
		}
		object := word(b[:], [2]uint8{})
		if _, twice := seen[object]; object == 0 || twice { // the end, or a ring
			return
		}
		seen[object] = struct{}{}
		if !yield(Object{Index: n, Addr: object}, nil) {
			return
		}
		at = object + c.offset
	}
}
