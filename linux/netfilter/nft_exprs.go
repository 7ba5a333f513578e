package netfilter

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/virt"
)

// nftExprs decode the expressions, by the name of their operations where one kind has
// several, else by their own. They return false for what they do not understand.
var nftExprs = map[string]func(nftExpr) bool{}

func init() {
	for name, f := range map[string]func(nftExpr) bool{
		"immediate": nftImmediate, "cmp": nftCmp, "nft_cmp_fast_ops": nftCmpFast, "nft_cmp16_fast_ops": nftCmp16,
		"bitwise": nftBitwise, "nft_bitwise_fast_ops": nftBitwiseFast, "byteorder": nftByteorder, "range": nftRange,
		"payload": nftLoad, "nft_payload_set_ops": nftPayloadSet,
		"meta": nftMetaGet, "nft_meta_set_ops": nftMetaSet, "nft_meta_bridge_set_ops": nftMetaSet,
		"ct": nftCTGet, "nft_ct_set_ops": nftCTSet, "nft_ct_set_zone_ops": nftCTSet, "notrack": func(x nftExpr) bool { x.d.say("notrack"); return true },
		"lookup": nftLookup, "counter": nftCounter, "log": nftLog, "reject": nftReject, "limit": nftLimit, "nft_limit_bytes_ops": nftLimitBytes,
		"nat": nftNAT, "masq": nftMasq, "redir": nftRedir, "objref": nftObjref, "fib": nftFib, "quota": nftQuota, "rt": nftRT,
		"numgen": nftNumgen, "dynset": nftDynset, "connlimit": nftConnlimit, "flow_offload": nftFlow, "queue": nftQueue, "last": func(x nftExpr) bool { x.d.say("last"); return true },
	} {
		nftExprs[name] = f
	}
	// Other forms of some kinds, which are not decoded.
	for _, ops := range []string{"nft_objref_map_ops", "nft_queue_sreg_ops"} {
		nftExprs[ops] = func(nftExpr) bool { return false }
	}
}

var nftOps = []string{"", "!=", "<", "<=", ">", ">="} // enum nft_cmp_ops

// verdict is a verdict in words; chain the struct nft_chain that it names.
func (d *nftDecoder) verdict(code int32, chain virt.Addr) (string, bool) {
	switch code {
	case 0:
		return "drop", true
	case 1:
		return "accept", true
	case -1:
		return "continue", true
	case -2:
		return "break", true
	case -5:
		return "return", true
	case -3, -4:
		name := d.w.r.CString(d.w.r.Pointer(chain, d.w.o.cName), maxNFTName)
		return map[int32]string{-3: "jump ", -4: "goto "}[code] + name, true
	}
	return "", false
}

func nftImmediate(x nftExpr) bool {
	const s = "nft_immediate_expr"
	reg, size := x.num(s, "dreg"), int(x.num(s, "dlen"))
	if reg != 0 {
		x.d.set(reg, &nftValue{data: x.bytes(s, "data", size), loaded: size, typ: "integer"})
		return true
	}
	v, ok := x.d.verdict(int32(x.num(s, "data.verdict.code")), virt.Addr(x.num(s, "data.verdict.chain")))
	if ok {
		x.d.say("%s", v)
	}
	return ok
}

func nftCmp(x nftExpr) bool {
	const s = "nft_cmp_expr"
	op, size := x.num(s, "op"), int(x.num(s, "len"))
	if op >= uint64(len(nftOps)) || !x.has(s, "data") {
		return false
	}
	x.d.compareAll(x.num(s, "sreg"), nftOps[op], x.bytes(s, "data", size))
	return true
}

func nftInverted(inv uint64) string {
	if inv != 0 {
		return "!="
	}
	return ""
}

// nftCmpFast compares up to a word, of which it masks what is not compared.
func nftCmpFast(x nftExpr) bool {
	const s = "nft_cmp_fast_expr"
	bits := int(x.num(s, "len")) // in bits
	if x.has(s, "mask") {
		bits = nftOnes(uint32(x.num(s, "mask")))
	}
	b := binary.LittleEndian.AppendUint32(nil, uint32(x.num(s, "data")))
	x.d.compareAll(x.num(s, "sreg"), nftInverted(x.num(s, "inv")), b[:min(bits/8, 4)])
	return true
}

func nftOnes(mask uint32) (n int) {
	for ; mask != 0; mask &= mask - 1 {
		n++
	}
	return n
}

func nftCmp16(x nftExpr) bool {
	const s = "nft_cmp16_fast_expr"
	n := 0
	for _, b := range x.bytes(s, "mask", 16) {
		if b != 0 {
			n++
		}
	}
	x.d.compareAll(x.num(s, "sreg"), nftInverted(x.num(s, "inv")), x.bytes(s, "data", n))
	return true
}

// compareAll compares what lies in one register and those behind it.
func (d *nftDecoder) compareAll(reg uint64, op string, data []byte) {
	vs := d.concat(reg, len(data))
	if len(vs) == 0 {
		vs = []*nftValue{d.get(reg)}
	}
	if len(vs) == 1 {
		d.compare(vs[0], op, data)
		return
	}
	texts, values := []string{}, []string{}
	for _, v := range vs {
		d.use(v)
		n := min(v.loaded, len(data))
		texts, values = append(texts, v.text), append(values, d.format(v, data[:n]))
		data = data[min(len(data), (n+3)&^3):]
	}
	d.say("%s%s%s", strings.Join(texts, " . "), map[bool]string{true: " ", false: " " + op + " "}[op == ""], strings.Join(values, " . "))
}

// format is nftFormat with what only the guest knows: the names of devices.
func (d *nftDecoder) format(v *nftValue, b []byte) string {
	if v.typ == "ifindex" && len(b) == 4 {
		if name := d.names.Of(context.Background(), d.chain.Table.Net, int32(binary.LittleEndian.Uint32(b))); name != "" {
			return strconv.Quote(name)
		}
	}
	return nftFormat(v, b)
}

func (d *nftDecoder) masked(v *nftValue, mask, xor []byte) *nftValue {
	n := *v
	n.mask, n.xor = mask, xor
	return &n
}

func nftBitwise(x nftExpr) bool {
	const s = "nft_bitwise"
	size := int(x.num(s, "len"))
	xor := x.bytes(s, "xor", size)
	v := x.d.get(x.num(s, "sreg"))
	if x.num(s, "op") != 0 || v.mask != nil || v.data != nil {
		return false
	}
	m := x.d.masked(v, x.bytes(s, "mask", size), xor)
	if !allZero(xor) && !nftSettable(m) {
		return false
	}
	x.d.set(x.num(s, "dreg"), m)
	return true
}

// nftSettable reports whether the result is a value that a field is set to.
func nftSettable(v *nftValue) bool { return v.typ == "mark" }

func nftBitwiseFast(x nftExpr) bool {
	const s = "nft_bitwise_fast_expr"
	v := x.d.get(x.num(s, "sreg"))
	if v.mask != nil || v.data != nil {
		return false
	}
	word := func(m string) []byte {
		return binary.LittleEndian.AppendUint32(nil, uint32(x.num(s, m)))[:max(1, min(v.loaded, 4))]
	}
	m := x.d.masked(v, word("mask"), word("xor"))
	if !allZero(m.xor) && !nftSettable(m) {
		return false
	}
	x.d.set(x.num(s, "dreg"), m)
	return true
}

func nftByteorder(x nftExpr) bool {
	const s = "nft_byteorder"
	v := *x.d.get(x.num(s, "sreg"))
	v.host = !v.host
	x.d.set(x.num(s, "dreg"), &v)
	return true
}

func nftRange(x nftExpr) bool {
	const s = "nft_range_expr"
	size, v := int(x.num(s, "len")), x.d.get(x.num(s, "sreg"))
	if v.mask != nil {
		return false
	}
	sep := " "
	if x.num(s, "op") != 0 {
		sep = " != "
	}
	x.d.use(v)
	x.d.say("%s%s%s-%s", v.text, sep, x.d.format(v, x.bytes(s, "data_from", size)), x.d.format(v, x.bytes(s, "data_to", size)))
	return true
}

func nftLoad(x nftExpr) bool {
	const s = "nft_payload"
	v := nftPayload(x.num(s, "base"), int(x.num(s, "offset")), int(x.num(s, "len")), x.d.l3, x.d.l4)
	x.d.set(x.num(s, "dreg"), v)
	return true
}

func nftPayloadSet(x nftExpr) bool {
	const s = "nft_payload_set"
	size := int(x.num(s, "len"))
	v := nftPayload(x.num(s, "base"), int(x.num(s, "offset")), size, x.d.l3, x.d.l4)
	to, ok := x.d.value(x.num(s, "sreg"), v)
	if !ok || v.loaded != v.size {
		return false
	}
	x.d.use(v)
	x.d.say("%s set %s", v.text, to)
	return true
}

// value is what a field like v is set to: a constant, or another field.
func (d *nftDecoder) value(reg uint64, v *nftValue) (string, bool) {
	from := d.regs[reg]
	switch {
	case from == nil:
		return "", false
	case from.data != nil:
		return d.format(v, from.data), true
	case from.mask == nil:
		d.use(from)
		return from.text, true
	}
	// Marks: (mark & mask) ^ xor.
	mask, xor := nftNumber(from.mask, from.host), nftNumber(from.xor, from.host)
	full := uint64(math.MaxUint32)
	switch {
	case xor == 0:
		return fmt.Sprintf("%s & 0x%08x", from.text, mask), true
	case mask == full:
		return fmt.Sprintf("%s ^ 0x%08x", from.text, xor), true
	case mask == full&^xor:
		return fmt.Sprintf("%s | 0x%08x", from.text, xor), true
	}
	return fmt.Sprintf("%s & 0x%08x ^ 0x%08x", from.text, mask, xor), true
}

func nftMetaValue(key uint64) (*nftValue, bool) {
	if key >= uint64(len(nftMeta)) {
		return nil, false
	}
	k := nftMeta[key]
	v := &nftValue{text: k.text, typ: k.typ, host: !k.network, size: 4}
	switch k.typ {
	case "nf_proto", "inet_proto", "pkt_type", "boolean":
		v.size = 1
	case "ether_type":
		v.size = 2
	case "ifname":
		v.size = 16
	}
	v.loaded = v.size
	return v, true
}

func nftMetaGet(x nftExpr) bool {
	const s = "nft_meta"
	v, ok := nftMetaValue(x.num(s, "key"))
	if ok {
		x.d.set(x.num(s, "dreg"), v)
	}
	return ok
}

func nftMetaSet(x nftExpr) bool {
	const s = "nft_meta"
	v, ok := nftMetaValue(x.num(s, "key"))
	if !ok {
		return false
	}
	to, ok := x.d.value(x.num(s, "sreg"), v)
	if ok {
		x.d.say("%s set %s", v.text, to)
	}
	return ok
}

func nftCTValue(x nftExpr) (*nftValue, bool) {
	const s = "nft_ct"
	key, dir := x.num(s, "key"), x.num(s, "dir")
	if key >= uint64(len(nftCT)) {
		return nil, false
	}
	k := nftCT[key]
	v := &nftValue{text: k.text, typ: k.typ, host: !k.network, size: int(x.num(s, "len"))}
	if v.size == 0 {
		v.size = 4
	}
	v.loaded = v.size
	if !strings.HasPrefix(v.text, "ct ") {
		side := ""
		if dir < 2 {
			side = []string{"original ", "reply "}[dir]
		}
		v.text = "ct " + side + v.text
	}
	return v, true
}

func nftCTGet(x nftExpr) bool {
	v, ok := nftCTValue(x)
	if ok {
		x.d.set(x.num("nft_ct", "dreg"), v)
	}
	return ok
}

func nftCTSet(x nftExpr) bool {
	v, ok := nftCTValue(x)
	if !ok {
		return false
	}
	to, ok := x.d.value(x.num("nft_ct", "sreg"), v)
	if ok {
		x.d.say("%s set %s", v.text, to)
	}
	return ok
}
