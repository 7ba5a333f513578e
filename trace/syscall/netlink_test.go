package syscall

import "testing"

// TestNetlink compares with what strace 6.1 writes of headers; what follows them stays bytes here.
func TestNetlink(t *testing.T) {
	route, diag, kobject := raw(TagSocket, "0000"), raw(TagSocket, "0400"), raw(TagSocket, "0f00")
	for _, c := range []struct {
		name   string
		args   [6]uint64
		data   []Data
		result int64
		want   string
	}{
		{
			"sendto",
			[6]uint64{3, 1, 20, 0, 0, 0},
			[]Data{raw(0, "14000000 1600 0103 35c80c6b 00000000 00000000"), route},
			20,
			`sendto(3, [{nlmsg_len=20, nlmsg_type=RTM_GETADDR, nlmsg_flags=NLM_F_REQUEST|NLM_F_DUMP, nlmsg_seq=1795999797, nlmsg_pid=0}, {ifa_family=AF_UNSPEC, ...}], 20, 0, NULL, 0) = 20`,
		},
		{
			"recvfrom",
			[6]uint64{3, 1, 100, 0, 0, 0},
			[]Data{raw(0, "14000000 0300 0200 01000000 6f010000 00000000"), diag},
			20,
			`recvfrom(3, [{nlmsg_len=20, nlmsg_type=NLMSG_DONE, nlmsg_flags=NLM_F_MULTI, nlmsg_seq=1, nlmsg_pid=367}, 0], 100, 0, NULL, NULL) = 20`,
		},
		{
			"recvfrom",
			[6]uint64{3, 1, 100, 0, 0, 0},
			[]Data{raw(0, "24000000 0200 0000 01000000 6f010000 ffffffff 14000000 1400 0506 01000000 00000000"), route},
			36,
			`recvfrom(3, [{nlmsg_len=36, nlmsg_type=NLMSG_ERROR, nlmsg_flags=0, nlmsg_seq=1, nlmsg_pid=367}, {error=-EPERM, msg={nlmsg_len=20, nlmsg_type=RTM_NEWADDR, nlmsg_flags=NLM_F_REQUEST|NLM_F_ACK|NLM_F_EXCL|NLM_F_CREATE, nlmsg_seq=1, nlmsg_pid=0}}], 100, 0, NULL, NULL) = 36`,
		},
		{ // two, the second of which was not fetched whole
			"sendto",
			[6]uint64{3, 1, 40, 0, 0, 0},
			[]Data{raw(0, "11000000 1400 0100 02000000 00000000 02 000000 14000000 1500 0100 02000000"), diag},
			40,
			`sendto(3, [[{nlmsg_len=17, nlmsg_type=SOCK_DIAG_BY_FAMILY, nlmsg_flags=NLM_F_REQUEST, nlmsg_seq=2, nlmsg_pid=0}, {sdiag_family=AF_INET, ...}], ...], 40, 0, NULL, 0) = 40`,
		},
		{ // what is no message ends the list
			"sendto",
			[6]uint64{3, 1, 32, 0, 0, 0},
			[]Data{raw(0, "10000000 1200 0103 02000000 00000000 00000000 0000 0000 00000000 00000000"), route},
			32,
			`sendto(3, [{nlmsg_len=16, nlmsg_type=RTM_GETLINK, nlmsg_flags=NLM_F_REQUEST|NLM_F_DUMP, nlmsg_seq=2, nlmsg_pid=0}, {nlmsg_len=0, nlmsg_type=0 /* NLMSG_??? */, nlmsg_flags=0, nlmsg_seq=0, nlmsg_pid=0}], 32, 0, NULL, 0) = 32`,
		},
		{"sendto", [6]uint64{3, 1, 5, 0, 0, 0}, []Data{text(0, "add@/"), kobject}, 5, `sendto(3, "add@/", 5, 0, NULL, 0) = 5`},
	} {
		call := byName(t, c.name)
		v := Values{Args: c.args, Returned: true, Result: c.result, Data: c.data}
		if got := call.Name + "(" + string(call.AppendArgs(nil, &v, Options{})) + ") = " + string(call.AppendResult(nil, &v)); got != c.want {
			t.Errorf("\n got %s\nwant %s", got, c.want)
		}
	}
}

func byName(t *testing.T, name string) *Call {
	t.Helper()
	for _, c := range Table(ABI64) {
		if c != nil && c.Name == name {
			return c
		}
	}
	t.Fatal("no", name)
	return nil
}

// FuzzNetlink writes messages of any content: the text is bounded, and harmless.
func FuzzNetlink(f *testing.F) {
	f.Add(uint8(netlinkRoute), raw(0, "2c000000 1000 0000 01000000 00000000 00000100 01000000 00000000 00000000 0c001280 08000100 61620000").Bytes)
	f.Add(uint8(netlinkRoute), raw(0, "34000000 0200 0002 01000000 6f010000 a1ffffff 14000000 1400 0506 01000000 00000000 08000100 61620000").Bytes)
	f.Add(uint8(netlinkDiag), raw(0, "20000000 1400 0200 01000000 00000000 01010a00 01000000 01000000 00000000").Bytes)
	f.Fuzz(func(t *testing.T, protocol uint8, b []byte) {
		b = b[:min(len(b), NetlinkLimit)]
		call := byName(t, "sendto")
		for _, whole := range []int{len(b), 2 * len(b)} {
			v := Values{
				Args: [6]uint64{3, 1, uint64(whole)}, Returned: true, Result: int64(whole),
				Data: []Data{{Bytes: b}, {Tag: TagSocket, Bytes: []byte{protocol, 0}}},
			}
			text := call.AppendArgs(nil, &v, Options{})
			if len(text) > 1000+200*len(b) {
				t.Errorf("%d bytes of %d", len(text), len(b))
			}
			for _, c := range text {
				if c < ' ' || c > '~' {
					t.Fatalf("%q", text)
				}
			}
		}
	})
}
