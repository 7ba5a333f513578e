package addrspace_test

import (
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/trace/addrspace"
)

func ExampleSummary_Share() {
	sum := addrspace.Summary{Idle: 6 * time.Second, Total: 8 * time.Second}
	fmt.Printf("idle for %.0f %% of the time\n", 100*sum.Share(sum.Idle))
	// Output: idle for 75 % of the time
}
