package linux

import (
	"errors"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// confinement builds what AppArmor keeps, at places of no real kernel.
type confinement struct {
	*synth.Guest
	o labelLayout
}

func newConfinement() *confinement {
	at := func(offset uint32) kobj.Field { return kobj.FieldAt(offset, 8) }
	c := &confinement{Guest: synth.New(synth.Options{}), o: labelLayout{
		blobCred: kobj.FieldAt(4, 4), security: at(16),
		flags: at(8), size: kobj.FieldAt(20, 4), vec: at(40), proxy: at(24), proxyLabel: at(8),
		mode: at(32), name: at(8), ns: at(16), nsName: at(8), parent: at(16), unconfined: at(24),
	}}
	c.Put(c.Address("apparmor_initialized"), []byte{1, 0, 0, 0})
	c.Put(c.Address("apparmor_blob_sizes")+4, []byte{24, 0, 0, 0})
	return c
}

// ns makes a namespace with its unconfined profile.
func (c *confinement) ns(name string, parent uint64) (ns, unconfined uint64) {
	ns = c.Alloc(64, 8)
	c.Put64(ns+8, c.CString(name))
	c.Put64(ns+16, parent)
	unconfined = c.profile(ns, "unconfined", 3)
	c.Put64(ns+24, unconfined)
	return ns, unconfined
}

func (c *confinement) profile(ns uint64, name string, mode uint64) uint64 {
	p := c.Alloc(64, 8)
	c.Put64(p+8, c.CString(name))
	c.Put64(p+16, ns)
	c.Put64(p+32, mode)
	return p
}

func (c *confinement) label(profiles ...uint64) uint64 {
	l := c.Alloc(40+8*uint64(len(profiles)+1), 8)
	c.Put(l+20, []byte{byte(len(profiles)), 0, 0, 0})
	for i, p := range profiles {
		c.Put64(l+40+8*uint64(i), p)
	}
	return l
}

func (c *confinement) cred(label uint64) virt.Addr {
	cred, blob := c.Alloc(64, 8), c.Alloc(64, 8)
	c.Put64(cred+16, blob)
	c.Put64(blob+24, label)
	return virt.Addr(cred)
}

// TestLabels: labels as aa_label_snxprint of 6.12 writes them for the root namespace.
func TestLabels(t *testing.T) {
	const enforce, complain, kill, unconfined = 0, 1, 2, 3
	c := newConfinement()
	root, none := c.ns("root", 0)
	inner, innerNone := c.ns("root//inner", root)
	deep, _ := c.ns("root//inner//deep", inner)
	a, b := c.profile(root, "h1_a", enforce), c.profile(root, "h1_b", enforce)
	ca := c.profile(root, "h1_c", complain)
	in1, in2 := c.profile(inner, "in1", enforce), c.profile(inner, "in2//hat", enforce)
	loose := c.profile(root, "flatpak", unconfined)
	replaced := c.label(a)
	proxy := c.Alloc(16, 8)
	c.Put64(proxy+8, c.label(ca))
	c.Put64(replaced+8, 0x800)
	c.Put64(replaced+24, proxy)

	l := open(t, c.Guest).NewProcessReader()
	for want, label := range map[string]uint64{
		"unconfined":                                 c.label(none),
		"h1_a (enforce)":                             c.label(a),
		"h1_c (complain)":                            replaced,
		"flatpak (unconfined)":                       c.label(loose),
		"/bin/x (kill)":                              c.label(c.profile(root, "/bin/x", kill)),
		"new (mode 9)":                               c.label(c.profile(root, "new", 9)),
		"h1_a//&h1_b (enforce)":                      c.label(a, b),
		"h1_a//&h1_c (mixed)":                        c.label(a, ca),
		"h1_a//&unconfined (enforce)":                c.label(a, none),
		":inner:in1 (enforce)":                       c.label(in1),
		":inner:unconfined":                          c.label(innerNone),
		"h1_a//&:inner:in1//&in2//hat (enforce)":     c.label(a, in1, in2),
		"h1_a//&:inner:unconfined (enforce)":         c.label(a, innerNone),
		":inner//deep:d (complain)":                  c.label(c.profile(deep, "d", complain)),
		":inner:in1//&h1_c//&:inner//deep:d (mixed)": c.label(in1, ca, c.profile(deep, "d", enforce)),
	} {
		if got, err := l.label(c.cred(label), &c.o); got != want || err != nil {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}

	// What cannot be read is an error, never an empty label.
	long := c.label(c.profile(root, strings.Repeat("n", 5000), enforce))
	many := c.label(a)
	c.Put(many+20, []byte{0, 1, 0, 0})
	for name, cred := range map[string]virt.Addr{
		"no label":           c.cred(0),
		"label nowhere":      c.cred(0xffff_c900_dead_0000),
		"no profiles":        c.cred(c.label()),
		"too many":           c.cred(many),
		"profile nowhere":    c.cred(c.label(a, 0xffff_c900_dead_0000)),
		"no profile":         c.cred(c.label(0)),
		"no end":             c.cred(long),
		"namespace nameless": c.cred(c.label(c.profile(c.nameless(root), "x", enforce))),
		"no blob":            virt.Addr(c.Alloc(64, 8)),
	} {
		if got, err := l.label(cred, &c.o); got != "" || err == nil || !strings.Contains(err.Error(), "AppArmor") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if l.r.Err != nil {
			t.Fatalf("%s: the reader keeps %v", name, l.r.Err)
		}
	}
	lacks := c.o
	lacks.vec = kobj.Field{}
	if got, err := l.label(c.cred(c.label(a)), &lacks); got != "" || !errors.Is(err, kobj.ErrUnsupported) {
		t.Errorf("without aa_label.vec: %q, %v", got, err)
	}
	// The table of symbols may name functions only: then it says which is missing.
	lacks = c.o
	lacks.smack = kobj.FieldAt(0, 8)
	c.Put(c.Address("apparmor_initialized"), make([]byte, 4))
	if got, err := l.label(c.cred(0), &c.o); got != "" || err != nil {
		t.Errorf("without modules: %q, %v", got, err)
	}
	if got, err := l.label(c.cred(0), &lacks); got != "" || !errors.Is(err, kernel.ErrNoSymbol) || !strings.Contains(err.Error(), "smack_enabled") {
		t.Errorf("without a symbol: %q, %v", got, err)
	}
}

func (c *confinement) nameless(parent uint64) uint64 {
	ns, _ := c.ns("inner", parent)
	return ns
}
