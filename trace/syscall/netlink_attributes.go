package syscall

import (
	_ "embed" // the table
	"net/netip"
	"strconv"
	"strings"
	"sync"
)

//go:embed netlink.txt
var netlinkText string

// attributes are those of one kind of netlink messages, or nested in one of them.
type attributes struct {
	set   *set
	types map[uint64]attributeType
}

// attributeType is how an attribute is written: by a type, or as its name says.
type attributeType struct {
	how    string // "str", "mac", "ip"; empty: by t
	t      *typ
	nested string // name of a table
}

// allAttributes are the tables, made when one is first used.
var allAttributes = sync.OnceValue(func() map[string]*attributes {
	p := newParser(ABI64)
	_, texts := lines(netlinkText, " ")
	all := map[string]*attributes{}
	for table, text := range texts {
		words := strings.Fields(text)
		a := &attributes{types: map[uint64]attributeType{}}
		names := []string{words[0]}
		for _, w := range words[2:] {
			name, rest, _ := strings.Cut(w, "=")
			number, how, typed := strings.Cut(rest, ":")
			names = append(names, words[1]+name+"="+number)
			if !typed {
				continue
			}
			ty := attributeType{}
			nested, nests := strings.CutPrefix(how, ">")
			switch {
			case nests:
				ty.nested = nested
			case how == "str" || how == "mac" || how == "ip":
				ty.how = how
			default:
				ty.t = p.typ(how)
			}
			a.types[parseNumber(number)] = ty
		}
		a.set = newSet(strings.Join(names, " "))
		all[table] = a
	}
	return all
})

func attributesOf(table string) *attributes {
	a := allAttributes()[table]
	if a == nil {
		fail("netlink.txt has no %s", table)
	}
	return a
}

// netlinkHeads are the structures that messages of netlink begin with.
var netlinkHeads = sync.OnceValue(func() map[string]*typ {
	p := newParser(ABI64)
	all := map[string]*typ{}
	for _, name := range []string{
		"ifinfomsg", "ifaddrmsg", "rtmsg", "ndmsg", "rulemsg", "tcmsg",
		"inetask4", "inetask6", "inetmsg4", "inetmsg6", "unixask", "unixmsg", "packetask", "packetmsg",
	} {
		all[name] = p.typ(name)
	}
	return all
})

// routeMessages are the structures and attributes of messages of rtnetlink, by the group of their types.
var routeMessages = map[uint64][2]string{
	16: {"ifinfomsg", "ifla"}, 20: {"ifaddrmsg", "ifa"}, 24: {"rtmsg", "rta"}, 28: {"ndmsg", "nda"}, 32: {"rulemsg", "fra"},
	36: {"tcmsg", "tca"}, 40: {"tcmsg", "tca"}, 44: {"tcmsg", "tca"},
}

// family writes what follows the header of a message of rtnetlink or of sock_diag: a structure that begins with a family, and attributes.
func (x ctx) family(dst, b []byte, n uint64, protocol uint16, kind uint64, asks bool) []byte {
	names, known := [2]string{}, false
	switch {
	case len(b) == 0:
	case protocol == netlinkRoute:
		names, known = routeMessages[kind&^3]
	case kind == 20: // SOCK_DIAG_BY_FAMILY
		names, known = diagMessage(b[0], asks)
	}
	if !known {
		return appendHexBytes(dst, b, n, x.o.limit())
	}
	t := netlinkHeads()[names[0]]
	if n < uint64(t.size) || len(b) < int(t.size) { // programs may send the family alone
		first := &t.fields[0]
		dst = append(append(append(dst, '{'), first.name...), '=')
		return append(first.t.append(dst, x, nil, b), ", ...}"...)
	}
	dst = t.append(dst, x, nil, b)
	if size := (uint64(t.size) + 3) &^ 3; n > size {
		dst = append(dst, ", "...)
		if names[1] == "" {
			return appendHexBytes(dst, b[min(size, uint64(len(b))):], n-size, x.o.limit())
		}
		dst = x.attributes(dst, b[min(size, uint64(len(b))):], n-size, attributesOf(names[1]), 0)
	}
	return dst
}

// diagMessage is the structure and attributes of a question or an answer of sock_diag.
func diagMessage(family byte, asks bool) (names [2]string, known bool) {
	for _, d := range []struct {
		family       byte
		asks         bool
		head, within string
	}{
		{2, true, "inetask4", ""},
		{2, false, "inetmsg4", "inetdiag"},
		{10, true, "inetask6", ""},
		{10, false, "inetmsg6", "inetdiag"},
		{1, true, "unixask", ""},
		{1, false, "unixmsg", "unixdiag"},
		{17, true, "packetask", ""},
		{17, false, "packetmsg", "packetdiag"},
	} {
		if d.family == family && d.asks == asks {
			return [2]string{d.head, d.within}, true
		}
	}
	return names, false
}

// maxNestedAttributes bounds how deep attributes lie in others.
const maxNestedAttributes = 4

// attributes writes attributes that are n bytes long, and of which b was fetched.
func (x ctx) attributes(dst, b []byte, n uint64, in *attributes, depth int) []byte {
	const head = 4 // sizeof(struct nlattr)
	from, list := len(dst), false
	for count := 0; n > 0; count++ {
		if count > 0 {
			dst, list = append(dst, ", "...), true
		}
		if n < head {
			dst = appendHexBytes(dst, b, n, x.o.limit())
			break
		}
		if count >= x.o.limit() || len(b) < head {
			dst = append(dst, "..."...)
			break
		}
		length := uint64(le.Uint16(b))
		dst = x.attribute(dst, b, min(max(length, head), n), in, depth)
		length = (length + 3) &^ 3
		if length < head || length >= n {
			break
		}
		n -= length
		b = b[min(length, uint64(len(b))):]
	}
	if list {
		dst = append(dst, '[', ']')
		copy(dst[from+1:], dst[from:len(dst)-2])
		dst[from], dst[len(dst)-1] = '[', ']'
	}
	return dst
}

// attribute writes one, of n bytes.
func (x ctx) attribute(dst, b []byte, n uint64, in *attributes, depth int) []byte {
	const head, flags = 4, 0xc000
	kind := uint64(le.Uint16(b[2:]))
	if n > head {
		dst = append(dst, '[')
	}
	dst = strconv.AppendUint(append(dst, "{nla_len="...), uint64(le.Uint16(b)), 10)
	dst = append(dst, ", nla_type="...)
	if kind&flags != 0 {
		dst = append(setOf("nlaf").flags(dst, kind&flags), '|')
	}
	kind &^= flags
	dst = append(in.set.enum(dst, kind), '}')
	if n <= head {
		return dst
	}
	dst = append(dst, ", "...)
	value, size := b[head:min(uint64(len(b)), n)], n-head
	ty := in.types[kind]
	switch {
	case ty.nested != "" && depth < maxNestedAttributes:
		dst = x.attributes(dst, value, size, attributesOf(ty.nested), depth+1)
	case uint64(len(value)) < size: // it was not fetched whole
		dst = appendHexBytes(dst, value, size, x.o.limit())
	case ty.how == "str":
		dst = appendText(dst, value, x.o.limit())
	case ty.how == "mac":
		dst = appendHardware(dst, value)
	case ty.how == "ip" && (size == 4 || size == 16):
		dst = appendAddress(dst, value)
	case ty.t != nil && size >= uint64(ty.t.size):
		dst = ty.t.append(dst, x, nil, value)
	default:
		dst = appendHexBytes(dst, value, size, x.o.limit())
	}
	return append(dst, ']')
}

// appendText writes text that ends with a zero byte; if there is none it shows as cut.
func appendText(dst, b []byte, limit int) []byte {
	for i, c := range b {
		if c == 0 && i <= limit {
			return appendQuoted(dst, b[:i])
		}
	}
	return append(appendQuoted(dst, b[:min(len(b), limit)]), "..."...)
}

// appendHardware writes a hardware address.
func appendHardware(dst, b []byte) []byte {
	const digits = "0123456789abcdef"
	for i, c := range b[:min(len(b), 32)] { // MAX_ADDR_LEN
		if i > 0 {
			dst = append(dst, ':')
		}
		dst = append(dst, digits[c>>4], digits[c&15])
	}
	return dst
}

// appendAddress writes an address of IPv4 or IPv6, by its length.
func appendAddress(dst, b []byte) []byte {
	a, _ := netip.AddrFromSlice(b)
	if a.Is4() {
		return append(a.AppendTo(append(dst, `inet_addr("`...)), `")`...)
	}
	return append(a.AppendTo(append(dst, `inet_pton(AF_INET6, "`...)), `")`...)
}

// blobInetID6 writes struct inet_diag_sockid of IPv6.
func blobInetID6(dst []byte, _ ctx, _ *Arg, b []byte) []byte {
	dst = appendPort(append(dst, "{idiag_sport="...), b)
	dst = appendPort(append(dst, ", idiag_dport="...), b[2:])
	for i, name := range []string{"idiag_src", "idiag_dst"} {
		dst = appendIP6(append(dst, `, inet_pton(AF_INET6, "`...), [16]byte(b[4+16*i:]))
		dst = append(append(append(dst, `", &`...), name...), ')')
	}
	dst = strconv.AppendUint(append(dst, ", idiag_if="...), uint64(le.Uint32(b[36:])), 10)
	dst = strconv.AppendUint(append(dst, ", idiag_cookie=["...), uint64(le.Uint32(b[40:])), 10)
	dst = strconv.AppendUint(append(dst, ", "...), uint64(le.Uint32(b[44:])), 10)
	return append(dst, "]}"...)
}
