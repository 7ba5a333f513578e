package network

import (
	"errors"
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// socketWalk walks chains of struct socks made by hand: a family at 0, the hlist_node at 8,
// the struct proto at 24.
func socketWalk(t *testing.T, s *linux.System) (l *socketLister, found *[]virt.Addr, errs *[]error) {
	found, errs = new([]virt.Addr), new([]error)
	word := func(offset uint32) kobj.Field { return kobj.FieldAt(offset, 8) }
	none := kobj.Field{}
	o := &socketLayout{family: kobj.FieldAt(0, 2), node: word(8), prot: word(24)}
	for _, f := range []*kobj.Field{
		&o.state, &o.net, &o.typ, &o.socket, &o.ino, &o.uid, &o.protocol, &o.boundDev, &o.portid, &o.dstPortid, &o.rmem, &o.wmem, &o.filter,
	} {
		*f = none
	}
	w := &socketReader{s: s, o: o, ns: &netNSLayout{inum: none}, r: s.Reader(), names: NewDeviceNames(s), kinds: map[virt.Addr]string{}, nets: map[virt.Addr]uint64{}}
	l = &socketLister{
		s: s, ctx: t.Context(), w: w, owners: &socketOwners{}, aside: &hiddenSockets{}, most: 1000, seen: map[virt.Addr]struct{}{}, tables: map[virt.Addr]struct{}{},
		yield: func(k *Socket, err error) bool {
			if err != nil {
				*errs = append(*errs, err)
			} else {
				*found = append(*found, k.Addr)
			}
			return true
		},
	}
	return l, found, errs
}

func TestSocketChains(t *testing.T) {
	g, s, room := chainGuest(t)
	var socks []virt.Addr
	sock := func(family uint64, link uint64) uint64 { // hung up at link
		a := room(4)
		g.Put64(a, family)
		g.Put64(a+16, link)
		g.Put64(a+24, uint64(s.Text)+0x1000)
		g.Put64(link, a+8)
		return a
	}
	const buckets = 1024
	table := room(buckets)
	link := table + 8*7
	for i := range 5 {
		family := uint64(FamilyNetlink)
		if i == 2 {
			family = 99 // what is none, but hangs where it should, hides nothing
		}
		a := sock(family, link)
		if link = a + 8; i != 2 {
			socks = append(socks, virt.Addr(a))
		}
	}
	l, found, errs := socketWalk(t, s)
	l.chains("netlink", virt.Addr(table), buckets, 8, 0)
	if !slices.Equal(*found, socks) || len(*errs) != 1 || !errors.Is((*errs)[0], kobj.ErrBroken) {
		t.Errorf("found %#x of %#x: %v", *found, socks, *errs)
	}

	// A second chain that leads into the first ends there; one that leads to no socket, and
	// is not pointed back at, is not followed.
	g.Put64(table+8*9, uint64(socks[1])+8)
	stray := room(4)
	g.Put64(table+8*11, stray+8)
	g.Put64(stray+8, uint64(socks[0])+8)
	l, found, errs = socketWalk(t, s)
	l.chains("netlink", virt.Addr(table), buckets, 8, 0)
	if !slices.Equal(*found, socks) || len(*errs) != 2 {
		t.Errorf("crossed: found %#x of %#x: %v", *found, socks, *errs)
	}

	// A table of other memory is left.
	for i := range uint64(buckets) {
		g.Put64(table+8*i, stray+8)
	}
	l, found, errs = socketWalk(t, s)
	before := l.w.r.Left
	l.chains("netlink", virt.Addr(table), buckets, 8, 0)
	if reads := before - l.w.r.Left; len(*found) != 0 || len(*errs) != maxStrayErrs+1 || reads > 4*maxStray {
		t.Errorf("no table: %d sockets, %d errors, %d reads", len(*found), len(*errs), reads)
	}
	if l.chains("netlink", virt.Addr(table)+8, 1023, 8, 0); len(*errs) != maxStrayErrs+2 {
		t.Errorf("1023 buckets: %v", (*errs)[maxStrayErrs+1:])
	}
}

// chainGuest is a guest with room for structures made by hand.
func chainGuest(t testing.TB) (*synth.Guest, *linux.System, func(words int) uint64) {
	t.Helper()
	g := synth.New(synth.Options{})
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g, s, func(words int) uint64 { return g.Alloc(uint64(8*words), 8) }
}
