package mm

import (
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// memoryNodes are the nodes of the guest's memory (struct pglist_data), by number; 0 for
// one that is not there. A kernel without CONFIG_NUMA has a single one, in a variable.
func memoryNodes(s *linux.System) ([]virt.Addr, error) {
	nodes, ok := s.Address("node_data")
	if !ok {
		if node, ok := s.Address("contig_page_data"); ok {
			return []virt.Addr{node}, nil
		}
		return nil, fmt.Errorf("%w: symbol contig_page_data or %w", kobj.ErrUnsupported, s.NoSymbol("node_data"))
	}
	count, err := numaNodes(s)
	if err != nil {
		return nil, err
	}
	return s.Pointers(nodes, int(count))
}
