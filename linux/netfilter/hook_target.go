package netfilter

import (
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// nfTargetLayout is of what lies behind a hook of a known type.
type nfTargetLayout struct {
	progAux, auxID kobj.Field // struct bpf_prog, bpf_prog_aux
	nft            *nftTargetLayout
}

type nftTargetLayout struct {
	cTable, cName        kobj.Field // struct nft_chain
	fData, fTable, fName kobj.Field // struct nft_flowtable
	tFamily, tName       kobj.Field // struct nft_table
}

// nfTargetLayoutOf gives a layout without nft where nf_tables is not loaded or keeps no types.
func nfTargetLayoutOf(s *linux.System) (*nfTargetLayout, error) {
	base, err := kobj.LayoutOf(s.Walker, "programs of netfilter hooks", func(r *kobj.Resolver, o *nfTargetLayout) {
		o.progAux, o.auxID = r.Optional("bpf_prog", "aux"), r.Optional("bpf_prog_aux", "id")
	})
	if err != nil {
		return nil, err
	}
	o := *base // which nf_tables is loaded can change
	o.nft, err = linux.LayoutIn(s, nftModule, "chains of netfilter hooks", func(r *kobj.Resolver, o *nftTargetLayout) {
		o.cTable, o.cName = r.Field("nft_chain", "table"), r.Field("nft_chain", "name")
		o.fData, o.fTable, o.fName = r.Field("nft_flowtable", "data"), r.Field("nft_flowtable", "table"), r.Field("nft_flowtable", "name")
		o.tFamily, o.tName = r.Field("nft_table", "family"), r.Field("nft_table", "name")
	})
	if errors.Is(err, linux.ErrNotLoaded) || errors.Is(err, linux.ErrNoModuleTypes) {
		err = nil
	}
	return &o, err
}

// target reads what a hook's function works for: its first argument, which the type
// gives the meaning of.
func (w *nfWalk) target(h *Hook) error {
	if w.t == nil || h.Private == 0 {
		return nil
	}
	o, r := w.t, &w.r
	_, err := kobj.Read(r, func() int {
		switch {
		case h.Type == nfTypeBPF && o.progAux.Present() && o.auxID.Present():
			h.ProgID = uint32(r.Uint(r.Pointer(h.Private, o.progAux), o.auxID))
		case o.nft == nil:
		case h.Type == nfTypeTables:
			h.Table = w.table(r.Pointer(h.Private, o.nft.cTable))
			h.Chain = r.CString(r.Pointer(h.Private, o.nft.cName), maxNFTName)
		case h.Type == nfTypeFlowtable:
			f := h.Private - virt.Addr(o.nft.fData.Offset)
			h.Table = w.table(r.Pointer(f, o.nft.fTable))
			h.Chain = r.CString(r.Pointer(f, o.nft.fName), maxNFTName)
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
	return nftFamilies[w.r.Uint(a, o.tFamily)] + " " + w.r.CString(w.r.Pointer(a, o.tName), maxNFTName)
}
