package lime

import (
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
)

// inBlocks reports whether AVML wrote the ranges: it cuts where LiME does not.
func inBlocks(ranges []phys.Range) bool {
	for i := 1; i < len(ranges); i++ {
		if before := ranges[i-1]; before.Size() == file.AVMLBlock && before.End == ranges[i].Start {
			return true
		}
	}
	return false
}
