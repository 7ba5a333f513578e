package groundtruth

import (
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
)

// nftKernels keep types of modules; 5.10 does not, and the views say so.
var nftKernels = []string{"6.1", "6.12", "7.2"}

func init() {
	load := func(t *testing.T, g *lab.Guest) {
		t.Helper()
		guests.LoadNFT(t, g)
	}
	// nft lists no anonymous sets.
	anonymous := func(row map[string]any) bool {
		flags, _ := row["flags"].([]any)
		return len(flags) > 0 && flags[0] == "anonymous"
	}
	register(viewCase{view: "nft_rules", only: nftKernels, prepare: load})
	register(viewCase{view: "nft_chains", only: nftKernels, prepare: load})
	register(viewCase{view: "nft_objects", only: nftKernels, prepare: load})
	register(viewCase{view: "nft_sets", only: nftKernels, prepare: load, ignore: anonymous})
}
