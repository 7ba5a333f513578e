package kobj

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/virt"
)

// ChainKind is a way in which the kernel chains objects.
type ChainKind string

// The kinds. In an XArray and a maple tree are pointers to the objects, in the others members
// of them.
const (
	ChainList   ChainKind = "list"   // struct list_head
	ChainHList  ChainKind = "hlist"  // struct hlist_head and hlist_node
	ChainRBTree ChainKind = "rbtree" // struct rb_root and rb_node
	ChainXArray ChainKind = "xarray" // struct xarray, radix_tree_root, idr
	ChainMaple  ChainKind = "maple"  // struct maple_tree
)

// Link is an element of a chain.
type Link struct {
	Addr virt.Addr // of the member in the object, or what the pointer is
	// Index is where it is in an XArray or a maple tree; in the others it counts.
	Index uint64
}

// maxLinks is how long a chain can be: more elements than the kernel has anywhere.
const maxLinks = 8 << 20

// Chain yields the elements of the chain that begins at head, in its order. A list that is
// broken ends with an error, or goes on from its other end.
func (s *Walker) Chain(ctx context.Context, kind ChainKind, head virt.Addr) iter.Seq2[Link, error] {
	switch kind {
	case ChainList:
		return numbered(s.List(ctx, head, maxLinks))
	case ChainHList:
		return numbered(s.HList(ctx, head, maxLinks))
	case ChainRBTree:
		return numbered(s.RBTree(ctx, head, maxLinks))
	case ChainXArray:
		return func(yield func(Link, error) bool) {
			for e, err := range s.XArray(ctx, head, maxLinks) {
				if !yield(Link{Addr: e.Value, Index: e.Index}, err) {
					return
				}
			}
		}
	case ChainMaple:
		return func(yield func(Link, error) bool) {
			for e, err := range s.Maple(ctx, head, maxLinks) {
				if !yield(Link{Addr: e.Value, Index: e.first}, err) {
					return
				}
			}
		}
	}
	return func(yield func(Link, error) bool) {
		yield(Link{}, fmt.Errorf("no kind of chain %q", kind))
	}
}

func numbered(nodes iter.Seq2[virt.Addr, error]) iter.Seq2[Link, error] {
	return func(yield func(Link, error) bool) {
		n := uint64(0)
		for a, err := range nodes {
			if !yield(Link{Addr: a, Index: n}, err) {
				return
			}
			if err == nil {
				n++
			}
		}
	}
}
