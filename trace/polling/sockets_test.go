package polling

import (
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/virt"
)

// TestSocketHeld has sockets whose owner is known at once, a look later, and never: each is reported once, with its
// owner if it has one by then.
func TestSocketHeld(t *testing.T) {
	w := watch(t, Options{})
	w.s.kinds = nil                // all: the synthetic kernel has no sockets of its own
	const nobody, stranger = 0, 77 // who began since the last look at the processes
	key := func(n virt.Addr) socketKey { return socketKey{n, ""} }
	open := func(kind trace.Kind, pid int32, name string) socket {
		return socket{kind: kind, endpoints: name, protocol: "tcp", pid: pid}
	}
	p := &sockets{}
	for i, look := range []struct {
		now  map[socketKey]socket
		gap  bool
		want string
	}{
		{now: map[socketKey]socket{key(1): open(trace.KindListen, nobody, "old")}},
		{
			now: map[socketKey]socket{
				key(1): open(trace.KindListen, nobody, "old"), key(2): open(trace.KindConnect, 42, "at once"),
				key(3): open(trace.KindAccept, nobody, "later"), key(4): open(trace.KindConnect, nobody, "never"),
				key(5): open(trace.KindConnect, stranger, "short"),
			},
			want: "connect 42 at once",
		},
		{gap: true}, // what is not seen may still be there
		{
			now: map[socketKey]socket{
				key(1): open(trace.KindListen, nobody, "old"), key(2): open(trace.KindConnect, 42, "at once"),
				key(3): open(trace.KindConnect, 42, "later"), key(4): open(trace.KindConnect, nobody, "never"),
			},
			want: "accept 42 later|close 0 short|connect 0 never|connect 0 short",
		},
		{want: "close 0 never|close 0 old|close 42 at once|close 42 later"},
		{},
	} {
		if look.now == nil {
			look.now = map[socketKey]socket{}
		}
		had := len(w.s.queue)
		p.compare(&round{s: w.s}, look.now, network.Turnover{}, false, look.gap)
		var got []string
		for _, e := range w.s.queue[had:] {
			pid := "0"
			if e.Process != nil {
				pid = "42"
			}
			got = append(got, string(e.Kind)+" "+pid+" "+e.Object)
		}
		slices.Sort(got)
		if strings.Join(got, "|") != look.want {
			t.Errorf("look %d: %q, want %q", i, got, look.want)
		}
	}
}
