package cached_test

import (
	"context"
	"fmt"
	"log"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/cached"
	"github.com/outsight-vmi/outsight/disk/ext4"
	"github.com/outsight-vmi/outsight/disk/live"
	"github.com/outsight-vmi/outsight/guest"
)

// A file is read as the guest has it now, whether it has written it to the disk or not.
func ExampleOver() {
	ctx := context.Background()
	g, err := guest.Open(ctx, "lab:web", guest.Options{})
	if err != nil {
		fmt.Println("no such guest")
		return
	}
	defer g.Close()
	drives, err := live.Drives(ctx, g.Machine().Control.Monitor)
	if err != nil {
		log.Fatal(err)
	}
	moment, err := live.Open(ctx, "lab:web", g.Machine(), drives)
	if err != nil {
		log.Fatal(err)
	}
	defer moment.Close()
	l, err := g.Look(ctx) // after the disks: what memory has is newer
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	onDisk, err := ext4.Open(moment.Devices[0])
	if err != nil {
		log.Fatal(err)
	}
	f, err := cached.Over(ctx, l.Linux, l.Machine.Memory, moment.Devices[0], onDisk)
	if err != nil {
		log.Fatal(err)
	}
	n, err := disk.Lookup(f, "/var/log/auth.log", true)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n.Stat().Size)
	// Output: no such guest
}
