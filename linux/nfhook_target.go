package linux

import (
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/virt"
)

// nfTargetLayout is of what lies behind a hook of a known type.
type nfTargetLayout struct {
	progAux, auxID Field // struct bpf_prog, bpf_prog_aux
	nft            *nftTargetLayout
}

type nftTargetLayout struct {
	cTable, cName        Field // struct nft_chain
	fData, fTable, fName Field // struct nft_flowtable
	tFamily, tName       Field // struct nft_table
}

// nfTargetLayout gives a layout without nft where nf_tables is not loaded or keeps no types.
func (s *System) nfTargetLayout() (*nfTargetLayout, error) {
	base, err := layoutOf(s.Walker, "programs of netfilter hooks", func(r *resolver, o *nfTargetLayout) {
		o.progAux, o.auxID = r.optional("bpf_prog", "aux"), r.optional("bpf_prog_aux", "id")
	})
	if err != nil {
		return nil, err
	}
	o := *base // which nf_tables is loaded can change
	o.nft, err = layoutIn(s, nftModule, "chains of netfilter hooks", func(r *resolver, o *nftTargetLayout) {
		o.cTable, o.cName = r.field("nft_chain", "table"), r.field("nft_chain", "name")
		o.fData, o.fTable, o.fName = r.field("nft_flowtable", "data"), r.field("nft_flowtable", "table"), r.field("nft_flowtable", "name")
		o.tFamily, o.tName = r.field("nft_table", "family"), r.field("nft_table", "name")
	})
	if errors.Is(err, ErrNotLoaded) || errors.Is(err, ErrNoModuleTypes) {
		err = nil
	}
	return &o, err
}

// target reads what a hook's function works for: its first argument, which the type
// tells the meaning of.
func (w *nfWalk) target(h *NetfilterHook) error {
	if w.t == nil || h.Private == 0 {
		return nil
	}
	o, r := w.t, &w.r
	_, err := netGuarded(r, func() int {
		switch {
		case h.Type == nfTypeBPF && has(o.progAux) && has(o.auxID):
			h.ProgID = uint32(r.num(r.pointer(h.Private, o.progAux), o.auxID))
		case o.nft == nil:
		case h.Type == nfTypeTables:
			h.Table = w.table(r.pointer(h.Private, o.nft.cTable))
			h.Chain = r.cString(r.pointer(h.Private, o.nft.cName), maxNFTName)
		case h.Type == nfTypeFlowtable:
			f := h.Private - virt.Addr(o.nft.fData.Offset)
			h.Table = w.table(r.pointer(f, o.nft.fTable))
			h.Chain = r.cString(r.pointer(f, o.nft.fName), maxNFTName)
		}
		return 0
	})
	if err != nil {
		h.Table, h.Chain, h.ProgID = "", "", 0
		return fmt.Errorf("netfilter hook %s %s: what is behind function %d at %#x: %w", h.Family, h.Hook, h.Index, uint64(h.Private), err)
	}
	return nil
}

// table is the family and the name of the nft_table at a.
func (w *nfWalk) table(a virt.Addr) string {
	o := w.t.nft
	return nftFamilies[w.r.num(a, o.tFamily)] + " " + w.r.cString(w.r.pointer(a, o.tName), maxNFTName)
}
