package device_test

import (
	"context"
	"fmt"
	"log"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/device"
)

var (
	ctx    = context.Background()
	system *linux.System // of the guest that the examples look at
)

func ExampleResources() {
	for r, err := range device.Resources(ctx, system, "iomem_resource") {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Printf("%*s%#x-%#x %s\n", r.Depth, "", r.Start, r.End, r.Name)
	}
}

func ExampleConsoleLines() {
	for l, err := range device.ConsoleLines(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Printf("tty%d: %s\n", l.Console, l.Text)
	}
}

func ExamplePCIDevices() {
	for d, err := range device.PCIDevices(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Printf("%s %04x:%04x %s\n", d.Name(), d.Vendor, d.Device, d.Driver)
	}
}

func ExampleDisks() {
	for d, err := range device.Disks(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(d.Name, d.Size, d.ReadBytes, d.WriteBytes)
	}
}

func ExampleDrivers() {
	owners, err := system.Owners()
	if err != nil {
		log.Print(err)
		return
	}
	for d, err := range device.Drivers(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(d.Kind, d.Major, d.First, d.Name, owners.CodeAt(d.Open))
	}
}

func ExampleProcessors() {
	for p, err := range device.Processors(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(p.Number, p.Online, p.ModelName, p.Flags)
	}
}

func ExampleTerminals() {
	for t, err := range device.Terminals(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(t.Name, t.Discipline, t.OpenBy)
	}
}
