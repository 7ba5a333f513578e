package netfilter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Set is a set or a map of nf_tables.
type Set struct {
	Table    *Table
	Addr     virt.Addr // of the struct nft_set
	Name     string
	Handle   uint64
	Flags    uint64   // NFT_SET_…: 1 anonymous, 2 constant, 4 interval, 8 map, 16 timeout, 32 dynamic, 64 objects, 128 concatenated
	Key      []string // types of the key's parts, in nft's words
	Data     string   // type of what a map leads to; empty for sets
	Backend  string   // hash, rhash, bitmap, rbtree, pipapo
	Count    int64    // of elements, as the kernel counts them: an interval can count as two
	Elements []string // as nft lists them, at most as many as were asked for
	More     bool     // there are more than that
	Timeout  uint64   // in milliseconds; 0 for none
	Err      error    // why the elements are not all there
}

type nftSetLayout struct {
	list, name, handle, flags, genmask, ktype, dtype, objtype, klen, dlen, nelems, timeout, ops, data kobj.Field
	genmaskExt, offsets                                                                               kobj.Field
	hashTable, hashNode, hashExt                                                                      kobj.Field
	fixedBuckets, fixedTable, fixedNode, fixedExt                                                     kobj.Field
	bitmapList, bitmapHead, bitmapExt                                                                 kobj.Field
	root, rbNode, rbExt                                                                               kobj.Field
	match, fieldCount, fields, rules, mt, pipapoExt                                                   kobj.Field
	fieldSize                                                                                         uint32
	key, keyEnd, value, extFlags, objref                                                              int64
	backends                                                                                          map[virt.Addr]string
}

func nftSetLayoutOf(s *linux.System) (*nftSetLayout, error) {
	return linux.LayoutIn(s, nftModule, "sets of nf_tables", func(r *kobj.Resolver, o *nftSetLayout) {
		const t, p = "nft_set", "nft_pipapo_field"
		o.list, o.name, o.handle, o.flags = r.Field(t, "list"), r.Field(t, "name"), r.Field(t, "handle"), r.Field(t, "flags")
		o.genmask, o.ktype, o.dtype, o.objtype = r.Field(t, "genmask"), r.Field(t, "ktype"), r.Field(t, "dtype"), r.Field(t, "objtype")
		o.klen, o.dlen, o.nelems, o.timeout = r.Field(t, "klen"), r.Field(t, "dlen"), r.Field(t, "nelems"), r.Field(t, "timeout")
		o.ops, o.data = r.Field(t, "ops"), r.Field(t, "data")
		o.genmaskExt, o.offsets = r.Field("nft_set_ext", "genmask"), r.Field("nft_set_ext", "offset")
		o.hashTable, o.hashNode, o.hashExt = r.Field("nft_rhash", "ht"), r.Field("nft_rhash_elem", "node"), r.Field("nft_rhash_elem", "ext")
		o.fixedBuckets, o.fixedTable = r.Field("nft_hash", "buckets"), r.Field("nft_hash", "table")
		o.fixedNode, o.fixedExt = r.Field("nft_hash_elem", "node"), r.Field("nft_hash_elem", "ext")
		o.bitmapList, o.bitmapHead, o.bitmapExt = r.Field("nft_bitmap", "list"), r.Field("nft_bitmap_elem", "head"), r.Field("nft_bitmap_elem", "ext")
		o.root, o.rbNode, o.rbExt = r.Field("nft_rbtree", "root"), r.Field("nft_rbtree_elem", "node"), r.Field("nft_rbtree_elem", "ext")
		o.match, o.fieldCount, o.fields = r.Field("nft_pipapo", "match"), r.Field("nft_pipapo_match", "field_count"), r.Field("nft_pipapo_match", "f")
		o.rules, o.mt, o.fieldSize = r.Field(p, "rules"), r.Field(p, "mt"), r.Size(p)
		o.pipapoExt = r.Field("nft_pipapo_elem", "ext")
		enum := func(name string) int64 {
			v, err := r.Types.EnumValue("nft_set_extensions", name)
			if err != nil || v < 0 || uint32(v) >= o.offsets.Size {
				r.Errs = append(r.Errs, fmt.Errorf("enumerator %s: %w", name, errors.Join(err, kobj.ErrBroken)))
			}
			return v
		}
		o.key, o.value, o.extFlags = enum("NFT_SET_EXT_KEY"), enum("NFT_SET_EXT_DATA"), enum("NFT_SET_EXT_FLAGS")
		o.keyEnd, o.objref = enum("NFT_SET_EXT_KEY_END"), enum("NFT_SET_EXT_OBJREF")
		o.backends = map[virt.Addr]string{}
		for name, backend := range map[string]string{
			"nft_set_rhash_type": "rhash", "nft_set_hash_type": "hash", "nft_set_hash_fast_type": "hash", "nft_set_bitmap_type": "bitmap",
			"nft_set_rbtree_type": "rbtree", "nft_set_pipapo_type": "pipapo", "nft_set_pipapo_avx2_type": "pipapo",
		} {
			// A type begins with its operations.
			if a, ok := s.ModuleSymbol(nftModule, name); ok {
				o.backends[a] = backend
			} else if a, ok := s.Address(name); ok {
				o.backends[a] = backend
			}
		}
	})
}

const (
	nftSetAnonymous, nftSetMap = 1, 8
	maxNFTSets                 = 1 << 16
	maxNFTElements             = 1 << 20
	maxNFTInline               = 1 << 12 // elements of an anonymous set, in a rule's text
)

// Sets yields the sets and maps of all tables of nf_tables, anonymous ones with them,
// each with at most so many elements.
func Sets(ctx context.Context, s *linux.System, elements int) iter.Seq2[*Set, error] {
	return func(yield func(*Set, error) bool) {
		w := newNFTWalk(s)
		w.tables(ctx, func(t *Table, gen uint, err error) bool {
			if err != nil {
				return yield(nil, err)
			}
			o, err := nftSetLayoutOf(s)
			if err != nil {
				return yield(nil, err)
			}
			for node, err := range s.List(ctx, w.o.tSets.At(t.Addr), maxNFTSets) {
				var set *Set
				active := true
				if err == nil {
					a := node - virt.Addr(o.list.Offset)
					set, err = kobj.Read(&w.r, func() *Set {
						active = w.r.Uint(a, o.genmask)&(1<<gen) == 0
						return w.set(ctx, o, t, a, gen, elements)
					})
				}
				if err != nil {
					set, err = nil, fmt.Errorf("nf_tables: table %s %s: sets: %w", t.Family, t.Name, err)
				}
				if active && !yield(set, err) {
					return false
				}
			}
			return true
		})
	}
}

// nftElement is one element, before it is put into words.
type nftElement struct {
	key, end []byte
	data     string
	last     bool // the end of an interval, which does not belong to it
}

func (w *nftWalk) set(ctx context.Context, o *nftSetLayout, t *Table, a virt.Addr, gen uint, limit int) *Set {
	r := &w.r
	set := &Set{
		Table: t, Addr: a, Name: r.CString(r.Pointer(a, o.name), maxNFTName), Handle: r.Uint(a, o.handle), Flags: r.Uint(a, o.flags),
		Key: nftTypeParts(uint32(r.Uint(a, o.ktype))), Backend: o.backends[r.Pointer(a, o.ops)], Count: r.Int(a, o.nelems),
		Timeout: r.Uint(a, o.timeout),
	}
	if set.Flags&nftSetMap != 0 {
		const verdict = 0xffffff00 // NFT_DATA_VERDICT
		if set.Data = "verdict"; r.Uint(a, o.dtype) != verdict {
			set.Data = strings.Join(nftTypeParts(uint32(r.Uint(a, o.dtype))), " . ")
		}
	}
	var all []nftElement
	read := func(ext virt.Addr) bool {
		e, ok := w.element(o, set, a, ext, gen)
		if ok {
			all = append(all, e)
		}
		if len(all) > 2*limit+2 {
			set.More = true
		}
		return !set.More && r.Err == nil
	}
	set.Err = w.elements(ctx, o, set, o.data.At(a), read)
	set.Elements = nftElementTexts(set, all)
	if len(set.Elements) > limit {
		set.Elements, set.More = set.Elements[:limit], true
	}
	return set
}

// elements calls read with the nft_set_ext of every element until it returns false.
func (w *nftWalk) elements(ctx context.Context, o *nftSetLayout, set *Set, priv virt.Addr, read func(virt.Addr) bool) error {
	s, r := w.s, &w.r
	from := func(seq iter.Seq2[virt.Addr, error], node, ext kobj.Field) error {
		for n, err := range seq {
			if err != nil {
				return err
			}
			if !read(n - virt.Addr(node.Offset) + virt.Addr(ext.Offset)) {
				return nil
			}
		}
		return nil
	}
	switch set.Backend {
	case "rhash":
		return from(s.RHashTable(ctx, o.hashTable.At(priv), maxNFTElements), o.hashNode, o.hashExt)
	case "bitmap":
		return from(s.List(ctx, o.bitmapList.At(priv), maxNFTElements), o.bitmapHead, o.bitmapExt)
	case "rbtree":
		return from(s.RBTree(ctx, o.root.At(priv), maxNFTElements), o.rbNode, o.rbExt)
	case "hash":
		n := r.Uint(priv, o.fixedBuckets)
		if n > maxNFTElements {
			return fmt.Errorf("%w: %d buckets", kobj.ErrBroken, n)
		}
		for i := range n {
			if err := from(s.HList(ctx, o.fixedTable.At(priv)+virt.Addr(8*i), maxNFTElements), o.fixedNode, o.fixedExt); err != nil || set.More {
				return err
			}
		}
		return nil
	case "pipapo":
		match := r.Pointer(priv, o.match)
		n := r.Uint(match, o.fieldCount)
		const most = 16 // NFT_REG32_COUNT
		if n == 0 || n > most {
			return fmt.Errorf("%w: %d fields", kobj.ErrBroken, n)
		}
		last := o.fields.At(match) + virt.Addr((n-1)*uint64(o.fieldSize))
		rules, mt := r.Uint(last, o.rules), r.Pointer(last, o.mt)
		var before virt.Addr
		for i := uint64(0); i < min(rules, maxNFTElements) && r.Err == nil; i++ {
			// Ranges take several rules, which lead to the same element.
			e := r.Ptr(mt + virt.Addr(8*i))
			if e != before && !read(o.pipapoExt.At(e)) {
				break
			}
			before = e
		}
		return nil
	}
	return fmt.Errorf("%w: the elements are kept in a way that is not known", kobj.ErrUnsupported)
}

// element reads one; ok is false for one that is not in force.
func (w *nftWalk) element(o *nftSetLayout, set *Set, a, ext virt.Addr, gen uint) (e nftElement, ok bool) {
	r := &w.r
	const dead = 1 << 3
	if m := r.Uint(ext, o.genmaskExt); m&(1<<gen) != 0 || m&dead != 0 {
		return e, false
	}
	var offsets [16]byte
	copy(offsets[:], r.Bytes(o.offsets.At(ext), int(min(o.offsets.Size, 16))))
	part := func(id int64) virt.Addr {
		if offsets[id] == 0 {
			return 0
		}
		return ext + virt.Addr(offsets[id])
	}
	n := int(min(r.Uint(a, o.klen), 64))
	if p := part(o.key); p != 0 {
		e.key = slices.Clone(r.Bytes(p, n))
	}
	if p := part(o.keyEnd); p != 0 {
		e.end = slices.Clone(r.Bytes(p, n))
	}
	if p := part(o.extFlags); p != 0 {
		e.last = r.Bytes(p, 1)[0]&1 != 0 // NFT_SET_ELEM_INTERVAL_END
	}
	if p := part(o.value); p != 0 && set.Data != "" {
		if set.Data == "verdict" {
			code := int32(r.U32(p))
			e.data, _ = w.dec.verdict(code, r.Ptr(p+8))
		} else {
			b := slices.Clone(r.Bytes(p, int(min(r.Uint(a, o.dlen), 64))))
			e.data = nftKeyText(strings.Split(set.Data, " . "), b, nil)
		}
	}
	return e, r.Err == nil
}

// nftKeySize is how many bytes a part of a key takes.
func nftKeySize(typ string) int {
	switch typ {
	case "ipv6_addr", "ifname", "string":
		return 16
	case "ether_addr":
		return 6
	case "inet_service", "ether_type", "iface_type", "arp_op":
		return 2
	case "inet_proto", "nf_proto", "icmp_type", "icmpv6_type", "tcp_flag", "pkt_type", "icmp_code", "icmpv6_code", "dscp", "ecn", "ct_dir", "boolean":
		return 1
	}
	return 4
}

// nftKeyText writes a key, or a range of keys.
func nftKeyText(types []string, key, end []byte) string {
	var parts []string
	for _, typ := range types {
		n := min(nftKeySize(typ), len(key))
		if len(types) == 1 {
			n = len(key)
		}
		v := &nftValue{typ: typ, host: nftHostTypes[typ]}
		text := nftFormat(v, key[:n])
		if end != nil && len(end) >= n && !bytes.Equal(key[:n], end[:n]) {
			text = nftInterval(v, key[:n], end[:n])
		}
		parts = append(parts, text)
		step := (n + 3) &^ 3
		key = key[min(step, len(key)):]
		if end != nil {
			end = end[min(step, len(end)):]
		}
	}
	return strings.Join(parts, " . ")
}

// nftInterval writes a range of which both ends belong to it: as a prefix where it is one.
func nftInterval(v *nftValue, low, high []byte) string {
	if nftPrefixType(v.typ) {
		mask := make([]byte, len(low))
		for i := range low {
			mask[i] = ^(low[i] ^ high[i])
		}
		if bits, ok := prefixBits(mask, false); ok {
			whole := true
			for i := range low {
				whole = whole && low[i]&^mask[i] == 0 && high[i]|mask[i] == 0xff
			}
			if whole {
				return fmt.Sprintf("%s/%d", nftFormat(v, low), bits)
			}
		}
	}
	return nftFormat(v, low) + "-" + nftFormat(v, high)
}

// nftElementTexts writes the elements in order of their keys. Trees keep an interval as
// two elements: where it begins, and where what follows begins.
func nftElementTexts(set *Set, all []nftElement) (texts []string) {
	slices.SortStableFunc(all, func(a, b nftElement) int {
		if c := bytes.Compare(a.key, b.key); c != 0 {
			return c
		}
		return map[bool]int{true: -1, false: 1}[a.last && !b.last]
	})
	for i, e := range all {
		if e.last {
			continue
		}
		end := e.end
		if set.Backend == "rbtree" && set.Flags&4 != 0 {
			end = bytes.Repeat([]byte{0xff}, len(e.key))
			if i+1 < len(all) {
				end = nftBefore(all[i+1].key)
			}
		}
		text := nftKeyText(set.Key, e.key, end)
		if e.data != "" {
			text += " : " + e.data
		}
		texts = append(texts, text)
	}
	return texts
}

// nftBefore is the key before that one.
func nftBefore(key []byte) []byte {
	b := slices.Clone(key)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return b
}

// inline is a set in a rule: its name, or its elements if it has none.
func (d *nftDecoder) inline(a virt.Addr) (string, *Set, bool) {
	set, known := d.sets[a]
	if !known {
		o, err := nftSetLayoutOf(d.w.s)
		if err != nil {
			return "", nil, false
		}
		limit := 0
		if d.w.r.Uint(a, o.flags)&nftSetAnonymous != 0 {
			limit = maxNFTInline
		}
		set = d.w.set(context.Background(), o, d.chain.Table, a, d.chain.gen, limit)
		if d.w.r.Err != nil {
			return "", nil, false
		}
		d.sets[a] = set
	}
	if set.Flags&nftSetAnonymous == 0 {
		return "@" + set.Name, set, set.Name != ""
	}
	return "{ " + strings.Join(set.Elements, ", ") + " }", set, set.Err == nil
}

func nftLookup(x nftExpr) bool {
	const s = "nft_lookup"
	text, set, ok := x.d.inline(virt.Addr(x.num(s, "set")))
	if !ok {
		return false
	}
	lhs, ok := x.d.lookedUp(x.num(s, "sreg"), set)
	if !ok {
		return false
	}
	if set.Flags&nftSetMap == 0 {
		if x.num(s, "invert") != 0 {
			lhs += " !="
		}
		x.d.say("%s %s", lhs, text)
		return true
	}
	if reg := x.num(s, "dreg"); reg != 0 {
		x.d.set(reg, &nftValue{text: lhs + " map " + text, typ: set.Data, host: nftHostTypes[set.Data], size: 4, loaded: 4})
		return true
	}
	x.d.say("%s vmap %s", lhs, text)
	return true
}

// lookedUp is what is looked up in a set: the fields in the registers from reg on.
func (d *nftDecoder) lookedUp(reg uint64, set *Set) (string, bool) {
	n := 0
	for _, typ := range set.Key {
		n += (nftKeySize(typ) + 3) &^ 3
	}
	var parts []string
	for _, v := range d.concat(reg, n) {
		if v.mask != nil {
			return "", false
		}
		many := nftAdjacent(v, d.l3, d.l4)
		if many == nil {
			many = []*nftValue{v}
		}
		for _, v := range many {
			d.use(v)
			parts = append(parts, v.text)
		}
	}
	return strings.Join(parts, " . "), len(parts) > 0
}

func nftDynset(x nftExpr) bool {
	const s = "nft_dynset"
	text, set, ok := x.d.inline(virt.Addr(x.num(s, "set")))
	op := x.num(s, "op")
	if !ok || op > 2 || set.Flags&nftSetMap != 0 {
		return false
	}
	lhs, ok := x.d.lookedUp(x.num(s, "sreg_key"), set)
	if !ok {
		return false
	}
	inner := lhs
	if n := x.num(s, "num_exprs"); n > 0 && x.d.depth == 0 {
		x.d.depth++
		outer := x.d.stmts
		x.d.stmts = nil
		for i := range min(n, 2) {
			x.d.expression(x.d.w.r.Ptr(x.field(s, "expr_array").At(x.priv) + virt.Addr(8*i)))
		}
		inner += " " + x.d.text()
		x.d.stmts = outer
		x.d.depth--
	}
	if t := x.num(s, "timeout"); t != 0 {
		return false
	}
	x.d.say("%s %s { %s }", []string{"add", "update", "delete"}[op], text, inner)
	return true
}
