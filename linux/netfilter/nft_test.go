package netfilter

import (
	"slices"
	"testing"
)

func TestNFTFormat(t *testing.T) {
	for want, v := range map[string]struct {
		typ  string
		host bool
		b    []byte
	}{
		"192.0.2.1":            {"ipv4_addr", false, []byte{192, 0, 2, 1}},
		"fe80::1":              {"ipv6_addr", false, []byte{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}},
		"02:99:00:00:00:0a":    {"ether_addr", false, []byte{2, 0x99, 0, 0, 0, 10}},
		"8080":                 {"inet_service", false, []byte{0x1f, 0x90}},
		"0x0000002a":           {"mark", true, []byte{42, 0, 0, 0}},
		"established,related":  {"ct_state", true, []byte{6, 0, 0, 0}},
		`"lo"`:                 {"ifname", false, append([]byte("lo"), make([]byte, 14)...)},
		`"veth-*"`:             {"ifname", false, []byte("veth-")},
		"tcp":                  {"inet_proto", false, []byte{6}},
		"253":                  {"inet_proto", false, []byte{253}},
		"0x000102030405060708": {"integer", false, []byte{0, 1, 2, 3, 4, 5, 6, 7, 8}},
		"0x":                   {"integer", false, nil},
	} {
		if got := nftFormat(&nftValue{typ: v.typ, host: v.host}, v.b); got != want {
			t.Errorf("%s % x is %q, want %q", v.typ, v.b, got, want)
		}
	}
}

func TestNFTElements(t *testing.T) {
	key := func(b ...byte) []byte { return b }
	for name, c := range map[string]struct {
		set  Set
		all  []nftElement
		want []string
	}{
		"plain": {
			Set{Key: []string{"inet_service"}, Backend: "rhash"},
			[]nftElement{{key: key(0, 80)}, {key: key(0, 22)}},
			[]string{"22", "80"},
		},
		"map": {
			Set{Key: []string{"inet_service"}, Data: "verdict"},
			[]nftElement{{key: key(0, 80), data: "accept"}},
			[]string{"80 : accept"},
		},
		"intervals": {
			Set{Key: []string{"ipv4_addr"}, Backend: "rbtree", Flags: 4},
			[]nftElement{
				{key: key(10, 0, 0, 9)},
				{key: key(10, 0, 0, 12), last: true},
				{key: key(10, 0, 0, 0)},
				{key: key(10, 0, 0, 8), last: true},
				{key: key(10, 0, 0, 12)},
				{key: key(10, 0, 0, 13), last: true},
				{key: key(224, 0, 0, 0)},
			},
			[]string{"10.0.0.0/29", "10.0.0.9-10.0.0.11", "10.0.0.12", "224.0.0.0/3"},
		},
		"concatenation": {
			Set{Key: []string{"ipv4_addr", "inet_service"}, Backend: "pipapo", Flags: 4},
			[]nftElement{{key: key(10, 1, 0, 0, 0, 1, 0, 0), end: key(10, 1, 255, 255, 4, 0, 0, 0)}},
			[]string{"10.1.0.0/16 . 1-1024"},
		},
	} {
		if got := nftElementTexts(&c.set, c.all); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestNFTPayload(t *testing.T) {
	for want, p := range map[string]struct {
		base         uint64
		offset, size int
		l3, l4       string
	}{
		"ip saddr": {1, 12, 4, "ip", ""}, "ip6 daddr": {1, 24, 16, "ip6", ""}, "tcp dport": {2, 2, 2, "ip", "tcp"}, "th sport": {2, 0, 2, "", ""},
		"icmpv6 type": {2, 0, 1, "ip6", "ipv6-icmp"}, "@nh,96,32": {1, 12, 4, "", ""}, "ether saddr": {0, 6, 6, "", ""},
	} {
		if got := nftPayload(p.base, p.offset, p.size, p.l3, p.l4); got.text != want {
			t.Errorf("%+v is %q, want %q", p, got.text, want)
		}
	}
	// Ports that were compared as one.
	parts := nftAdjacent(nftPayload(2, 0, 4, "ip", "tcp"), "ip", "tcp")
	if len(parts) != 2 || parts[0].text != "tcp sport" || parts[1].text != "tcp dport" {
		t.Errorf("%v", parts)
	}
}

func TestNFTComment(t *testing.T) {
	for want, b := range map[string]string{
		"":     "",
		"good": "\x00\x05good\x00",
		"late": "\x01\x04abcd\x00\x05late\x00",
	} {
		if got := nftComment([]byte(b)); got != want {
			t.Errorf("%q is %q, want %q", b, got, want)
		}
	}
	if got := nftComment([]byte("\x00\xffcut short")); got != "" {
		t.Errorf("%q", got)
	}
}

// Whatever a guest's keys, types and comments are, putting them into words ends, and does
// not make much of little.
func FuzzNFTWords(f *testing.F) {
	f.Add(uint32(7<<6|13), []byte{10, 0, 0, 1, 0, 80, 0, 0}, []byte{10, 0, 0, 9, 0, 90, 0, 0}, "ipv4_addr")
	f.Add(uint32(41), []byte("lo"), []byte{}, "ifname")
	f.Fuzz(func(t *testing.T, number uint32, key, end []byte, typ string) {
		if len(key) > 64 || len(end) > 64 {
			return
		}
		types := nftTypeParts(number)
		set := Set{Key: types, Backend: "rbtree", Flags: 4, Data: typ}
		if len(end) != len(key) {
			end = nil
		}
		for _, text := range nftElementTexts(&set, []nftElement{{key: key, end: end}, {key: end, last: true}, {key: key}}) {
			if len(text) > 4096 {
				t.Errorf("%d bytes: %.100q", len(text), text)
			}
		}
		nftComment(key)
		for _, host := range []bool{false, true} {
			nftFormat(&nftValue{typ: typ, host: host}, key)
			prefixBits(key, host)
		}
		if len(key) >= 3 {
			nftAdjacent(nftPayload(uint64(key[0]), int(key[1]), int(key[2]), "ip", "tcp"), "ip", "tcp")
		}
	})
}
