package bpf

import (
	"context"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// Holders says who keeps BPF objects: by the address of the program, map or
// link, the file descriptors and the paths of pins.
type Holders struct {
	Files map[virt.Addr][]linux.FileHolder
	Pins  map[virt.Addr][]string // as seen from where bpffs is mounted first
	Errs  []error                // what could not be read; the others are there
}

// FindHolders looks at the file descriptors of all processes and at the BPF file
// systems. Descriptors in flight over a socket are not seen.
func FindHolders(ctx context.Context, s *linux.System) (*Holders, error) {
	h := &Holders{Files: map[virt.Addr][]linux.FileHolder{}, Pins: map[virt.Addr][]string{}}
	fail := func(err error) {
		if len(h.Errs) < maxErrs {
			h.Errs = append(h.Errs, err)
		}
	}
	ops := []string{"bpf_prog_fops", "bpf_map_fops", "bpf_link_fops", "bpf_link_fops_poll"}
	err := s.HeldObjects(ctx, ops, func(o linux.HeldObject) {
		h.Files[o.Object] = append(h.Files[o.Object], o.FileHolder)
	}, fail)
	if err != nil {
		return nil, err
	}
	readPins(ctx, s, h.Pins, fail)
	return h, nil
}
