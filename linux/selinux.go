package linux

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// SELinux keeps a number for a task, its SID. A table of the loaded policy (struct sidtab)
// has the context of each, in numbers again, which the policy has names for.

type selinuxLayout struct {
	taskSID             kobj.Field
	initialized, policy kobj.Field // struct selinux_state
	sidtab, policydb    kobj.Field // struct selinux_policy
	mls, names          kobj.Field // struct policydb
	symbols, nprim      kobj.Field // of which there are as many as kinds of names

	roots, count, isids kobj.Field // struct sidtab
	isidSet, isidEntry  kobj.Field
	entrySize, isidSize uint32

	user, role, typ, length, levels kobj.Field // struct context, in an entry of the table
	sens, categories                kobj.Field // struct mls_level
	levelSize, symbolSize           uint32
	next, maps, startbit            kobj.Field // struct ebitmap_node
}

func (s *System) selinuxLayout() (*selinuxLayout, error) {
	return kobj.LayoutOf(s.Walker, "labels of SELinux", func(r *kobj.Resolver, o *selinuxLayout) {
		r.Prefetch("selinux_blob_sizes", "initial_sid_to_string")
		o.taskSID = r.Optional("cred_security_struct", "sid") // 6.18
		if !o.taskSID.Present() {
			o.taskSID = r.Field("task_security_struct", "sid")
		}
		o.initialized, o.policy = r.Field("selinux_state", "initialized"), r.Field("selinux_state", "policy")
		o.sidtab, o.policydb = r.Field("selinux_policy", "sidtab"), r.Field("selinux_policy", "policydb")
		o.mls, o.names = r.Field("policydb", "mls_enabled"), r.Field("policydb", "sym_val_to_name")
		o.symbols, o.nprim, o.symbolSize = r.Field("policydb", "symtab"), r.Field("symtab", "nprim"), r.Size("symtab")
		o.roots, o.count, o.isids = r.Field("sidtab", "roots"), r.Field("sidtab", "count"), r.Field("sidtab", "isids")
		o.isidSet, o.isidEntry = r.Field("sidtab_isid_entry", "set"), r.Field("sidtab_isid_entry", "entry")
		const e = "sidtab_entry"
		o.entrySize, o.isidSize = r.Size(e), r.Size("sidtab_isid_entry")
		o.user, o.role, o.typ = r.Field(e, "context.user"), r.Field(e, "context.role"), r.Field(e, "context.type")
		o.length, o.levels = r.Field(e, "context.len"), r.Field(e, "context.range.level")
		o.sens, o.categories, o.levelSize = r.Field("mls_level", "sens"), r.Field("mls_level", "cat.node"), r.Size("mls_level")
		o.next, o.maps, o.startbit = r.Field("ebitmap_node", "next"), r.Field("ebitmap_node", "maps"), r.Field("ebitmap_node", "startbit")
	})
}

// The kinds of names of a policy (security/selinux/ss/policydb.h).
const (
	symRoles  = 2
	symTypes  = 3
	symUsers  = 4
	symLevels = 6
	symCats   = 7
)

// Of struct sidtab (security/selinux/ss/sidtab.h).
const (
	sidUnlabeled  = 3       // SECINITSID_UNLABELED
	sidInnerShift = 9       // 512 pointers in a page
	maxSIDLevel   = 3       // SIDTAB_MAX_LEVEL
	maxPolicyName = 1 << 24 // numbers that one kind of names has
	maxCategories = 1 << 14 // words of the bit maps of one context
)

// selinux reads the label of a cred as /proc/PID/attr/current shows it.
func (l *ProcessReader) selinux(cred virt.Addr, o *labelLayout) (string, error) {
	lay, err := l.s.selinuxLayout()
	if err != nil {
		return "", err
	}
	at, err := l.credBlob(cred, o, "selinux_blob_sizes")
	if err != nil {
		return "", err
	}
	state, ok := l.s.Address("selinux_state")
	if !ok {
		return "", fmt.Errorf("symbol selinux_state: %w: %w", kobj.ErrUnsupported, kernel.ErrNoSymbol)
	}
	c := contexts{l: l, selinuxLayout: lay}
	sid := uint32(l.r.Uint(at, lay.taskSID))
	if l.r.Uint(state, lay.initialized) == 0 {
		return c.withoutPolicy(sid)
	}
	policy := l.r.Pointer(state, lay.policy)
	c.policydb = lay.policydb.At(policy)
	entry, err := c.find(l.r.Pointer(policy, lay.sidtab), sid)
	if err != nil {
		return "", err
	}
	return c.text(entry)
}

// contexts puts contexts into the words of a policy.
type contexts struct {
	l *ProcessReader
	*selinuxLayout
	policydb virt.Addr
}

// withoutPolicy is the name of an initial SID, which the kernel has itself.
func (c *contexts) withoutPolicy(sid uint32) (string, error) {
	names, ok := c.l.s.Address("initial_sid_to_string")
	if !ok {
		return "", fmt.Errorf("no policy is loaded, and symbol initial_sid_to_string: %w: %w", kobj.ErrUnsupported, kernel.ErrNoSymbol)
	}
	if sid == 0 || sid > c.initial() {
		return "", fmt.Errorf("%w: SID %d before a policy is loaded", kobj.ErrBroken, sid)
	}
	name, err := c.l.labelText(c.l.r.Ptr(names + virt.Addr(8*sid)))
	if name == "init" { // 6.8 shows what it did before it knew that one
		name = "kernel"
	}
	return name, err
}

// initial is how many SIDs are fixed (SECINITSID_NUM).
func (c *contexts) initial() uint32 { return c.isids.Size / max(1, c.isidSize) }

// find is the entry of a SID in the table; what has none is unlabeled.
func (c *contexts) find(table virt.Addr, sid uint32) (virt.Addr, error) {
	r := &c.l.r
	entry := virt.Addr(0)
	switch {
	case sid == 0:
	case sid <= c.initial():
		entry = c.fixed(table, sid)
	default:
		entry = c.dynamic(table, sid-c.initial()-1)
	}
	// A context that the policy does not know (any more) has only its text.
	if entry == 0 || r.Uint(entry, c.length) != 0 {
		entry = c.fixed(table, sidUnlabeled)
	}
	if r.Err == nil && entry == 0 {
		return 0, fmt.Errorf("%w: the table of SIDs at %#x has none for %d", kobj.ErrBroken, uint64(table), sid)
	}
	return entry, r.Err
}

func (c *contexts) fixed(table virt.Addr, sid uint32) virt.Addr {
	at := c.isids.At(table) + virt.Addr((sid-1)*c.isidSize)
	if c.l.r.Uint(at, c.isidSet) == 0 {
		return 0
	}
	return c.isidEntry.At(at)
}

// dynamic goes down the tree of pages that the other entries are in.
func (c *contexts) dynamic(table virt.Addr, index uint32) virt.Addr {
	r := &c.l.r
	count := r.Uint(table, c.count)
	leaf := uint64(4096 / max(1, c.entrySize)) // entries of a page
	if uint64(index) >= count || leaf == 0 {
		return 0
	}
	level := 0
	for capacity := leaf; count > capacity && level < maxSIDLevel; level++ {
		capacity <<= sidInnerShift
	}
	node := r.Ptr(c.roots.At(table) + virt.Addr(8*level))
	at := uint64(index) / leaf
	for shift := level * sidInnerShift; shift > 0 && node != 0; {
		shift -= sidInnerShift
		node = r.Ptr(node + virt.Addr(8*(at>>shift)))
		at &= 1<<shift - 1
	}
	if node == 0 {
		return 0
	}
	return node + virt.Addr(uint64(index)%leaf*uint64(c.entrySize))
}

// text is a context in words (context_struct_to_string).
func (c *contexts) text(entry virt.Addr) (string, error) {
	r := &c.l.r
	var b strings.Builder
	for i, part := range [...]struct {
		kind  int
		value kobj.Field
	}{{symUsers, c.user}, {symRoles, c.role}, {symTypes, c.typ}} {
		name, err := c.name(part.kind, r.Uint(entry, part.value))
		if err != nil {
			return "", err
		}
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(name)
	}
	if r.Uint(c.policydb, c.mls) == 0 {
		return b.String(), r.Err
	}
	low, err := c.level(c.levels.At(entry))
	if err != nil {
		return "", err
	}
	high, err := c.level(c.levels.At(entry) + virt.Addr(c.levelSize))
	if err != nil {
		return "", err
	}
	b.WriteString(":" + low)
	if high != low {
		b.WriteString("-" + high)
	}
	if b.Len() > maxLabel {
		return "", fmt.Errorf("%w: longer than %d bytes", kobj.ErrBroken, maxLabel)
	}
	return b.String(), nil
}

// name is what a policy calls a number, of which the first is 1.
func (c *contexts) name(kind int, value uint64) (string, error) {
	r := &c.l.r
	most := r.Uint(c.symbols.At(c.policydb)+virt.Addr(kind)*virt.Addr(c.symbolSize), c.nprim)
	if r.Err == nil && (value == 0 || value > most || most > maxPolicyName) {
		return "", fmt.Errorf("%w: the policy at %#x has %d names of kind %d, and none for %d", kobj.ErrBroken, uint64(c.policydb), most, kind, value)
	}
	all := r.Ptr(c.names.At(c.policydb) + virt.Addr(8*kind))
	return c.l.labelText(r.Ptr(all + virt.Addr(8*(value-1))))
}

// level is a sensitivity with its categories: runs of three and more are written as c1.c3
// (mls_sid_to_context).
func (c *contexts) level(at virt.Addr) (string, error) {
	r := &c.l.r
	text, err := c.name(symLevels, r.Uint(at, c.sens))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(text)
	write := func(separator byte, category int) error {
		name, err := c.name(symCats, uint64(category)+1)
		b.WriteByte(separator)
		b.WriteString(name)
		if b.Len() > maxLabel {
			return fmt.Errorf("%w: longer than %d bytes", kobj.ErrBroken, maxLabel)
		}
		return err
	}
	head, last := -2, -2 // of a run
	endRun := func() error {
		switch {
		case head == last:
			return nil
		case last-head > 1:
			return write('.', last)
		}
		return write(',', last)
	}
	words := int(c.maps.Size / 8)
	left := maxCategories
	for node := r.Pointer(at, c.categories); node != 0 && r.Err == nil; node = r.Pointer(node, c.next) {
		start := int(r.Uint(node, c.startbit))
		for i := range words {
			if left--; left < 0 || start > maxPolicyName {
				return "", fmt.Errorf("%w: categories at %#x have no end", kobj.ErrBroken, uint64(node))
			}
			for word := r.U64(c.maps.At(node) + virt.Addr(8*i)); word != 0; word &= word - 1 {
				category := start + 64*i + bits.TrailingZeros64(word)
				if category-last > 1 {
					separator := byte(',')
					if last < 0 {
						separator = ':'
					}
					if err := endRun(); err != nil {
						return "", err
					}
					if err := write(separator, category); err != nil {
						return "", err
					}
					head = category
				}
				last = category
			}
		}
	}
	if err := endRun(); err != nil {
		return "", err
	}
	return b.String(), r.Err
}
