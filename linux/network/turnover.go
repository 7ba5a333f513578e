package network

import (
	"context"
	"fmt"
	"hash/maphash"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Turnover is what the kernel counts of its sockets, in all network namespaces: what shows cheaply
// that there may be others than before.
type Turnover struct {
	// Opens is how many TCP connections there were since boot, from here and from elsewhere, those
	// that have ended and those that failed included.
	Opens uint64
	// Sum differs as soon as there are more or fewer sockets of a protocol, or TCP connections
	// were made or ended. Of what has no connection, one that takes the place of another of its
	// protocol and processor does not change it.
	Sum uint64
}

type turnoverLayout struct{ tcp, inuse, values kobj.Field }

var turnoverSeed = maphash.MakeSeed()

// maxTurnover bounds the counters of all namespaces and processors that are read.
const maxTurnover = 4096

// ReadTurnover reads it.
func ReadTurnover(ctx context.Context, s *linux.System) (t Turnover, err error) {
	o, err := kobj.LayoutOf(s.Walker, "counts of sockets", func(r *kobj.Resolver, o *turnoverLayout) {
		o.tcp, o.inuse = r.Field("net", "mib.tcp_statistics"), r.Optional("net", "core.prot_inuse")
		o.values = r.Optional("prot_inuse", "val")
	})
	if err != nil {
		return t, err
	}
	// The numbers of include/uapi/linux/snmp.h, as they are since 2.6: these five follow each other.
	const opens, counters = 5, 5 // TCP_MIB_ACTIVEOPENS, PASSIVEOPENS, ATTEMPTFAILS, ESTABRESETS, CURRESTAB
	var sum maphash.Hash
	sum.SetSeed(turnoverSeed)
	r := s.Reader()
	left := maxTurnover
	for n, err := range Namespaces(ctx, s) {
		if err != nil {
			return t, err
		}
		tcp, inuse := r.Pointer(n.Addr, o.tcp), r.Pointer(n.Addr, o.inuse)
		if tcp == 0 && r.Err == nil {
			return t, fmt.Errorf("counts of sockets: network namespace at %#x has none yet", uint64(n.Addr))
		}
		for _, area := range s.CPUAreas {
			if left--; left < 0 {
				return t, fmt.Errorf("counts of sockets: %w", kobj.ErrBudget)
			}
			b := r.Bytes(tcp+area+8*opens, 8*counters)
			_, _ = sum.Write(b) // never fails
			for i := 0; i < 16 && i < len(b); i += 8 {
				t.Opens += uint64(linux.WordIn(b[i:], 8))
			}
			if o.inuse.Present() && o.values.Present() {
				_, _ = sum.Write(r.Bytes(inuse+area+virt.Addr(o.values.Offset), int(min(o.values.Size, 512))))
			}
			if r.Err != nil {
				return t, fmt.Errorf("counts of sockets: %w", r.Err)
			}
		}
	}
	t.Sum = sum.Sum64()
	return t, nil
}
