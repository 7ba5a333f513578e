package netfilter

import (
	"errors"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// NAT is hooked in once for each hook, and has lists of its own of the functions that look
// for what to translate: chains of nf_tables, tables of iptables. They are behind the
// first argument of its functions (nf_nat_register_fn).

const natModule = "nf_nat"

// natFunctions are those of nf_nat that are hooked in and call others, of all kernels.
var natFunctions = [...]string{
	"nf_nat_ipv4_pre_routing", "nf_nat_ipv4_in", "nf_nat_ipv4_out", "nf_nat_ipv4_local_fn", "nf_nat_ipv4_local_in", "nf_nat_ipv4_fn",
	"nf_nat_ipv6_in", "nf_nat_ipv6_out", "nf_nat_ipv6_local_fn", "nf_nat_ipv6_fn",
}

type nfNATLayout struct{ entries kobj.Field } // struct nf_nat_lookup_hook_priv

// nfNAT is how to get on from NAT's functions.
type nfNAT struct {
	o         *nfNATLayout
	functions map[virt.Addr]bool
}

// newNfNAT gives nil where NAT is not loaded or keeps no types.
func newNfNAT(s *linux.System) (*nfNAT, error) {
	o, err := linux.LayoutIn(s, natModule, "functions of NAT", func(r *kobj.Resolver, o *nfNATLayout) {
		o.entries = r.Field("nf_nat_lookup_hook_priv", "entries")
	})
	if err != nil {
		if errors.Is(err, linux.ErrNotLoaded) || errors.Is(err, linux.ErrNoModuleTypes) {
			err = nil
		}
		return nil, err
	}
	n := &nfNAT{o: o, functions: map[virt.Addr]bool{}}
	for _, name := range natFunctions {
		a, ok := s.ModuleSymbol(natModule, name)
		if !ok {
			a, ok = s.Address(name)
		}
		if ok {
			n.functions[a] = true
		}
	}
	return n, nil
}

// called yields the functions that h, which was hooked in, calls in its turn.
func (w *nfWalk) called(h *Hook) bool {
	if w.nat == nil || h.Caller != 0 || h.Private == 0 || !w.nat.functions[h.Function] {
		return true
	}
	return w.entries(w.nat.o.entries.At(h.Private), Hook{Net: h.Net, Family: h.Family, Hook: h.Hook, Device: h.Device, Caller: h.Function})
}
