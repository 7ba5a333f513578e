package live_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/disk/live"
)

// Disks are read through the monitor alone.
func ExampleDrives() {
	_, err := live.Drives(context.Background(), nil)
	fmt.Println(errors.Is(err, live.ErrNoMonitor))
	// Output: true
}
