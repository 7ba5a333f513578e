package netfilter

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/virt"
)

// nftDecoder turns the expressions of a rule back into nft's words. Expressions work on
// registers, words of 4 bytes: one loads a field of the packet, one masks it, one compares
// it. The decoder keeps what each register holds, in words, and writes a statement where an
// expression does something with it.
type nftDecoder struct {
	w      *nftWalk
	fields map[string]kobj.Field // by module, structure and member
	from   map[string]kobj.Types // by module
	kinds  map[virt.Addr]nftKind // by the address of the nft_expr_ops
	sets   map[virt.Addr]*Set
	names  *network.DeviceNames

	// Of the rule at hand:
	chain   *Chain
	regs    map[uint64]*nftValue
	stmts   []nftStatement
	l3, l4  string // the protocols that were established so far
	unknown []string
	packets uint64
	bytes   uint64
	counted bool
	depth   int
}

// nftKind is one kind of expression.
type nftKind struct {
	name, ops, module string
	size              uint64
}

// nftValue is what a register holds.
type nftValue struct {
	text      string // "ip saddr"
	typ       string // of its bytes, in nft's words
	size      int    // of the whole field in bytes
	loaded    int    // how many of them were loaded
	mask, xor []byte
	data      []byte // of a constant
	host      bool   // in the processor's order of bytes
	layer     int    // of a payload: 0 link, 1 network, 2 transport
	offset    int
	payload   bool
}

type nftStatement struct {
	text string
	// A match that nft adds by itself when something of a protocol is asked for, and
	// leaves out again: "meta l4proto tcp" before "tcp dport 22".
	implies string // "network" or "transport"
	lower   *nftValue
	bound   string
}

func newNFTDecoder(w *nftWalk) *nftDecoder {
	return &nftDecoder{w: w, fields: map[string]kobj.Field{}, from: map[string]kobj.Types{}, kinds: map[virt.Addr]nftKind{}, sets: map[virt.Addr]*Set{}, names: network.NewDeviceNames(w.s)}
}

func (d *nftDecoder) begin(c *Chain) *nftDecoder {
	d.chain, d.regs, d.stmts, d.unknown = c, map[uint64]*nftValue{}, nil, nil
	d.packets, d.bytes, d.counted, d.depth = 0, 0, false, 0
	d.l4, d.l3 = "", ""
	switch c.Table.Family {
	case "ip", "ip6", "arp":
		d.l3 = c.Table.Family
	}
	return d
}

func (d *nftDecoder) text() string {
	var parts []string
	for _, s := range d.stmts {
		if s.text != "" {
			parts = append(parts, s.text)
		}
	}
	return strings.Join(parts, " ")
}

func (d *nftDecoder) say(format string, args ...any) {
	d.stmts = append(d.stmts, nftStatement{text: fmt.Sprintf(format, args...)})
}

// kind reads what kind of expression has those operations.
func (d *nftDecoder) kind(ops virt.Addr) nftKind {
	if k, ok := d.kinds[ops]; ok {
		return k
	}
	o, r := d.w.o, &d.w.r
	typ := r.Pointer(ops, o.oType)
	k := nftKind{name: r.CString(r.Pointer(typ, o.xName), 32), size: r.Uint(ops, o.oSize), module: nftModule}
	if owner := r.Pointer(typ, o.xOwner); owner != 0 {
		k.module = d.w.s.ModuleNameAt(r, owner)
	}
	if r.Err == nil {
		k.ops = dataSymbol(d.w.s, k.module, ops)
		d.kinds[ops] = k
	}
	return k
}

// dataSymbol is the name of the variable at a, of a module or of the kernel.
func dataSymbol(s *linux.System, module string, a virt.Addr) string {
	if m, err := s.ModuleNamed(module); err == nil && m != nil {
		name, off, ok := m.Symbol(a)
		if ok && off == 0 {
			return name
		}
		return ""
	}
	t, err := s.Table()
	if err != nil {
		return ""
	}
	name, off, ok := t.At(int64(a - s.Text))
	if !ok || off != 0 {
		return ""
	}
	return name
}

// expressions decodes size bytes of expressions at a.
func (d *nftDecoder) expressions(a virt.Addr, size uint64) {
	r := &d.w.r
	for off := uint64(0); off < size && r.Err == nil; {
		e := a + virt.Addr(off)
		n := d.expression(e)
		if r.Err == nil && (n < uint64(d.w.o.eData.Offset) || n > size-off) {
			r.Err = fmt.Errorf("expression at %#x: %w: %d bytes of %d", uint64(e), kobj.ErrBroken, n, size-off)
		}
		off += n
	}
}

// expression decodes one and gives its size.
func (d *nftDecoder) expression(e virt.Addr) uint64 {
	r := &d.w.r
	k := d.kind(r.Ptr(e))
	if r.Err != nil {
		return 0
	}
	x := nftExpr{d: d, kind: k, priv: d.w.o.eData.At(e)}
	decode, known := nftExprs[k.ops]
	if !known {
		decode, known = nftExprs[k.name]
	}
	if !known || !decode(x) {
		d.unknown = append(d.unknown, k.name)
		n := min(max(k.size, 8)-8, 64)
		d.say("[ %s %s ]", k.name, hex.EncodeToString(r.Bytes(x.priv, int(n))))
	}
	return k.size
}

// nftExpr is an expression while it is decoded.
type nftExpr struct {
	d    *nftDecoder
	kind nftKind
	priv virt.Addr
}

// field finds a member of a structure of the expression's module.
func (x nftExpr) field(structure, path string) kobj.Field {
	d := x.d
	key := x.kind.module + " " + structure + "." + path
	if f, ok := d.fields[key]; ok {
		return f
	}
	from, ok := d.from[x.kind.module]
	if !ok {
		from = typesIn(d.w.s, x.kind.module)
		d.from[x.kind.module] = from
	}
	var f kobj.Field
	if known, err := from.Field(structure, path); err == nil {
		f = kobj.FieldOf(known)
	}
	d.fields[key] = f
	return f
}

// num reads a member of the expression's data.
func (x nftExpr) num(structure, path string) uint64 {
	return x.d.w.r.Uint(x.priv, x.field(structure, path))
}

func (x nftExpr) has(structure, path string) bool { return x.field(structure, path).Present() }

func (x nftExpr) bytes(structure, path string, n int) []byte {
	f := x.field(structure, path)
	if !f.Present() {
		return nil
	}
	return slices.Clone(x.d.w.r.Bytes(f.At(x.priv), min(n, int(f.Size))))
}

// typesIn are a module's types, or the kernel's where it has none of its own.
func typesIn(s *linux.System, module string) kobj.Types {
	m, _ := s.ModuleTypesNamed(module)
	if m == nil {
		return s.Profile
	}
	k, err := s.ModuleSpec(m)
	if err != nil {
		return s.Profile
	}
	return k.Spec
}

// set puts a value into a register, and its name over those that follow.
func (d *nftDecoder) set(reg uint64, v *nftValue) { d.regs[reg] = v }

// get is what a register holds.
func (d *nftDecoder) get(reg uint64) *nftValue {
	if v := d.regs[reg]; v != nil {
		return v
	}
	return &nftValue{text: fmt.Sprintf("reg %d", reg), typ: "integer", host: false}
}

// concat is the fields that lie in n bytes of registers, in their order.
func (d *nftDecoder) concat(reg uint64, n int) (vs []*nftValue) {
	const most = 16
	for used := 0; used < n && len(vs) < most; {
		v := d.regs[reg]
		if v == nil {
			break
		}
		vs = append(vs, v)
		words := max((v.loaded+3)/4, 1)
		reg, used = reg+uint64(words), used+4*words
	}
	return vs
}

// use takes out the match that a field of a protocol implies.
func (d *nftDecoder) use(v *nftValue) {
	if !v.payload {
		return
	}
	layer := [...]string{"link", "network", "transport"}[v.layer]
	icmp := strings.HasPrefix(v.text, "icmp")
	for i := range d.stmts {
		// An ICMP belongs to one network protocol alone.
		if d.stmts[i].implies == layer || icmp && d.stmts[i].implies == "network" {
			d.stmts[i].text, d.stmts[i].implies = "", ""
		}
	}
}

// compare writes a match.
func (d *nftDecoder) compare(v *nftValue, op string, data []byte) {
	if v.payload && op == "" && v.mask == nil && len(data) > 0 {
		if parts := nftAdjacent(v, d.l3, d.l4); len(parts) > 1 {
			for _, p := range parts {
				d.compare(p, op, data[:p.loaded])
				data = data[p.loaded:]
			}
			return
		}
	}
	s := nftStatement{}
	d.use(v)
	value := d.format(v, data)
	sep := " "
	if op != "" {
		sep = " " + op + " "
	}
	switch {
	case v.mask != nil && nftFlagType(v.typ):
		mask := nftFormat(&nftValue{typ: v.typ, host: v.host}, v.mask)
		switch {
		case allZero(data) && op == "!=":
			s.text = v.text + " " + mask
		case allZero(data) && op == "":
			s.text = v.text + " ! " + mask
		case op == "" && bytes.Equal(data, v.mask):
			s.text = v.text + " " + value + " / " + mask
		default:
			s.text = v.text + sep + value + " / " + mask
		}
	case v.mask != nil:
		if bits, ok := prefixBits(v.mask, v.host); ok && nftPrefixType(v.typ) {
			s.text = fmt.Sprintf("%s%s%s/%d", v.text, sep, value, bits)
			break
		}
		if op == "" {
			sep = " == "
		}
		s.text = v.text + " & " + nftFormat(&nftValue{typ: v.typ, host: v.host}, v.mask) + sep + value
	case nftFlagType(v.typ) && op == "":
		s.text = v.text + " == " + value
	case v.payload && v.loaded < v.size && nftPrefixType(v.typ):
		s.text = fmt.Sprintf("%s%s%s/%d", v.text, sep, nftFormat(&nftValue{typ: v.typ}, append(slices.Clone(data), make([]byte, v.size-v.loaded)...)), 8*v.loaded)
	default:
		s.text = v.text + sep + value
	}
	// "a >= 1" and "a <= 5" together are a range.
	if n := len(d.stmts); op == "<=" && n > 0 && d.stmts[n-1].lower == v {
		d.stmts[n-1] = nftStatement{text: v.text + " " + d.stmts[n-1].bound + "-" + value}
		return
	}
	if op == ">=" {
		s.lower, s.bound = v, value
	}
	if op == "" && v.mask == nil {
		d.establish(v, value, &s)
	}
	d.stmts = append(d.stmts, s)
}

// establish notes which protocol a match lets through.
func (d *nftDecoder) establish(v *nftValue, value string, s *nftStatement) {
	switch v.text {
	case "meta nfproto":
		d.l3 = map[string]string{"ipv4": "ip", "ipv6": "ip6"}[value]
		if d.chain.Table.Family == "inet" {
			s.implies = "network"
		}
	case "meta protocol", "ether type":
		d.l3 = value
		if d.chain.Table.Family == "bridge" || d.chain.Table.Family == "netdev" {
			s.implies = "network"
		}
	case "meta l4proto", "ip protocol", "ip6 nexthdr":
		d.l4, s.implies = value, "transport"
	}
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// prefixBits is how many leading bits a mask has, if it has no others.
func prefixBits(mask []byte, host bool) (n int, ok bool) {
	if host {
		mask = slices.Clone(mask)
		slices.Reverse(mask)
	}
	ended := false
	for _, b := range mask {
		for bit := 7; bit >= 0; bit-- {
			switch set := b&(1<<bit) != 0; {
			case set && ended:
				return 0, false
			case set:
				n++
			default:
				ended = true
			}
		}
	}
	return n, true
}
