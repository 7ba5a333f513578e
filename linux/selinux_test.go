package linux

import (
	"errors"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// policyMemory builds what SELinux keeps, at places of no real kernel.
type policyMemory struct {
	*synth.Guest
	o selinuxLayout
}

func newPolicy() *policyMemory {
	at := kobj.FieldAt
	return &policyMemory{synth.New(synth.Options{}), selinuxLayout{
		mls: at(4, 4), names: at(256, 64), symbols: at(8, 8*24), nprim: at(16, 4), symbolSize: 24,
		roots: at(0, 32), count: at(32, 4), isids: at(40, 4*128), isidSet: at(0, 4), isidEntry: at(8, 120),
		entrySize: 120, isidSize: 128,
		user: at(8, 4), role: at(12, 4), typ: at(16, 4), length: at(20, 4), levels: at(24, 48),
		sens: at(0, 4), categories: at(8, 8), levelSize: 24,
		next: at(0, 8), maps: at(8, 16), startbit: at(24, 4),
	}}
}

func (p *policyMemory) put32(a uint64, v uint32) {
	p.Put(a, []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)})
}

// policy makes a policy with names.
func (p *policyMemory) policy(mls uint32, names map[int][]string) uint64 {
	db := p.Alloc(512, 8)
	p.put32(db+4, mls)
	for kind, all := range names {
		p.put32(db+8+24*uint64(kind)+16, uint32(len(all)))
		list := p.Alloc(8*uint64(len(all)), 8)
		for i, name := range all {
			p.Put64(list+8*uint64(i), p.CString(name))
		}
		p.Put64(db+256+8*uint64(kind), list)
	}
	return db
}

// level is a sensitivity with categories in nodes of 128.
func (p *policyMemory) level(at uint64, sens uint32, categories ...int) {
	p.put32(at, sens)
	link := at + 8
	for start := 0; start < 1024; start += 128 {
		var words [2]uint64
		for _, c := range categories {
			if c >= start && c < start+128 {
				words[(c-start)/64] |= 1 << (c % 64)
			}
		}
		if words == [2]uint64{} {
			continue
		}
		node := p.Alloc(32, 8)
		p.Put64(node+8, words[0])
		p.Put64(node+16, words[1])
		p.put32(node+24, uint32(start))
		p.Put64(link, node)
		link = node
	}
}

func (p *policyMemory) entry(at uint64, user, role, typ uint32, low, high []int) uint64 {
	for i, v := range []uint32{user, role, typ} {
		p.put32(at+8+4*uint64(i), v)
	}
	p.level(at+24, 1, low...)
	p.level(at+48, 1, high...)
	return at
}

func run(from, to int) (all []int) {
	for i := from; i <= to; i++ {
		all = append(all, i)
	}
	return all
}

// TestSELinuxText: contexts as mls_sid_to_context of 6.12 writes them.
func TestSELinuxText(t *testing.T) {
	p := newPolicy()
	var cats []string
	for i := range 300 {
		cats = append(cats, "c"+strings.Repeat("'", i/100)+string(rune('0'+i/10%10))+string(rune('0'+i%10)))
	}
	db := p.policy(1, map[int][]string{symUsers: {"u"}, symRoles: {"object_r", "r"}, symTypes: {"a_t", "b_t", "c_t"}, symLevels: {"s0"}, symCats: cats})
	plain := p.policy(0, map[int][]string{symUsers: {"u"}, symRoles: {"r"}, symTypes: {"t"}})
	l := open(t, p.Guest).NewProcessReader()
	text := func(db, entry uint64) (string, error) {
		l.r.Err = nil
		c := contexts{l: l, selinuxLayout: &p.o, policydb: virt.Addr(db)}
		return c.text(virt.Addr(entry))
	}
	for want, entry := range map[string]uint64{
		"u:r:b_t:s0":                           p.entry(p.Alloc(120, 8), 1, 2, 2, nil, nil),
		"u:r:b_t:s0:c00":                       p.entry(p.Alloc(120, 8), 1, 2, 2, run(0, 0), run(0, 0)),
		"u:object_r:c_t:s0:c01,c02":            p.entry(p.Alloc(120, 8), 1, 1, 3, run(1, 2), run(1, 2)),
		"u:r:a_t:s0-s0:c01.c03":                p.entry(p.Alloc(120, 8), 1, 2, 1, nil, run(1, 3)),
		"u:r:a_t:s0:c05-s0:c00.c''99":          p.entry(p.Alloc(120, 8), 1, 2, 1, run(5, 5), run(0, 299)),
		"u:r:a_t:s0:c01,c02,c63.c65,c'27,c'28": p.entry(p.Alloc(120, 8), 1, 2, 1, append(append(run(1, 2), run(63, 65)...), run(127, 128)...), append(append(run(1, 2), run(63, 65)...), run(127, 128)...)),
	} {
		if got, err := text(db, entry); got != want || err != nil {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	if got, err := text(plain, p.entry(p.Alloc(120, 8), 1, 1, 1, nil, nil)); got != "u:r:t" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	circle := p.entry(p.Alloc(120, 8), 1, 1, 1, run(1, 1), nil)
	node := p.Alloc(32, 8)
	p.Put64(node, node)
	p.Put64(circle+24+8, node)
	for name, entry := range map[string]uint64{
		"no user":   p.entry(p.Alloc(120, 8), 0, 1, 1, nil, nil),
		"no type":   p.entry(p.Alloc(120, 8), 1, 1, 9, nil, nil),
		"a circle":  circle,
		"no memory": 0xffff_c900_dead_0000,
	} {
		if got, err := text(db, entry); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestSIDTable: entries are where sidtab_do_lookup finds them.
func TestSIDTable(t *testing.T) {
	p := newPolicy()
	page := func() uint64 { return p.Alloc(4096, 4096) }
	table := p.Alloc(40+4*128, 8)
	for i := range uint64(3) { // the fourth is not set
		p.put32(table+40+128*i, 1)
	}
	leaf0, leaf1, last, inner, deep, deeper := page(), page(), page(), page(), page(), page()
	p.Put64(table, leaf0)
	p.Put64(table+8, inner)
	p.Put64(inner, leaf0)
	p.Put64(inner+8, leaf1)
	p.Put64(table+16, deeper)
	p.Put64(deeper, inner)
	p.Put64(deeper+8*2, deep)
	p.Put64(deep+8*5, last)
	p.put32(leaf0+120*7+20, 9) // one that the policy does not know
	const leaf = 4096 / 120
	l := open(t, p.Guest).NewProcessReader()
	unlabeled := table + 40 + 128*2 + 8
	for _, c := range []struct {
		count, sid uint32
		want       uint64
	}{
		{10, 1, table + 40 + 8},
		{10, 3, unlabeled},
		{10, 4, unlabeled},
		{10, 0, unlabeled},
		{10, 5, leaf0},
		{10, 6, leaf0 + 120},
		{10, 5 + 7, unlabeled},
		{10, 5 + 10, unlabeled},
		{leaf, 5 + leaf - 1, leaf0 + 120*(leaf-1)},
		{leaf + 1, 5 + leaf, leaf1},
		{leaf + 2, 5, leaf0},
		{leaf * 513, 5 + leaf + 3, leaf1 + 120*3},
		{leaf * 512 * 3, 5 + leaf*(512*2+5) + 1, last + 120},
	} {
		l.r.Err = nil
		p.put32(table+32, c.count)
		s := contexts{l: l, selinuxLayout: &p.o}
		if got, err := s.find(virt.Addr(table), c.sid); err != nil || uint64(got) != c.want {
			t.Errorf("SID %d of %d: %#x, %v; want %#x", c.sid, c.count, uint64(got), err, c.want)
		}
	}
	l.r.Err = nil
	p.put32(table+40+128*2, 0)
	s := contexts{l: l, selinuxLayout: &p.o}
	if _, err := s.find(virt.Addr(table), 4); !errors.Is(err, kobj.ErrBroken) {
		t.Errorf("not even unlabeled: %v", err)
	}
}
