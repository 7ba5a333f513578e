package linux_test

import (
	"fmt"
	"log"

	"github.com/outsight-vmi/outsight/linux"
)

func ExampleLister_SignalsOf() {
	l := system.NewLister()
	for t, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		s, err := l.SignalsOf(t)
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Println(s.PID, s.Comm, s.Blocked.Names(), s.Caught.Names())
	}
}

func ExampleLister_TracingOf() {
	l := system.NewLister()
	for t, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		if p, err := l.TracingOf(t); err == nil && p != nil {
			fmt.Println(p.PID, p.Comm, "is traced by", p.Tracer, p.TracerComm)
		}
	}
}

func ExampleSystem_Interrupts() {
	for i, err := range system.Interrupts(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(i.Number, i.Chip, i.Counts, len(i.Actions))
	}
}

func ExampleSystem_IPCs() {
	for o, err := range system.IPCs(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(o.Kind, o.ID, o.Name, o.Size)
	}
}

func ExampleSystem_FileLocks() {
	for l, err := range system.FileLocks(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(l.Kind, l.Mode, l.PID, l.Path)
	}
}

func ExampleSystem_Drivers() {
	owners, err := system.Owners()
	if err != nil {
		log.Print(err)
		return
	}
	for d, err := range system.Drivers(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(d.Kind, d.Major, d.First, d.Name, owners.Of(d.Open))
	}
}

func ExampleUnwinder_StackOf() {
	u, err := system.Unwinder(ctx)
	if err != nil {
		log.Print(err)
		return
	}
	for t, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		s, err := u.StackOf(t)
		if err != nil {
			log.Print(err)
			continue
		}
		for _, a := range s.Frames {
			fmt.Println(s.PID, s.Comm, u.Owners().Of(a).Function())
		}
	}
}

func ExampleSystem_Symbols() {
	for s, err := range system.Symbols(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		if s.Module == "dummy" {
			fmt.Printf("%#x %c %s\n", uint64(s.Address), s.Type, s.Name)
		}
	}
}

func ExampleSystem_MemoryCounters() {
	for c, err := range system.MemoryCounters(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(c.Name, c.Bytes)
	}
}

func ExampleSystem_Zones() {
	for z, err := range system.Zones(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(z.Node, z.Name, z.Free, "of", z.Managed, "bytes free; blocks:", z.FreeBlocks)
	}
}

func ExampleSystem_Pages() {
	sums := map[linux.PageUse]uint64{}
	for p, err := range system.Pages(ctx) {
		if err != nil {
			log.Print(err) // what cannot be read is not the end
			continue
		}
		sums[p.Use] += p.Size
	}
	fmt.Println(sums)
}

func ExampleSystem_ConsoleLines() {
	for l, err := range system.ConsoleLines(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Printf("tty%d: %s\n", l.Console, l.Text)
	}
}

func ExampleSystem_SlabCaches() {
	for c, err := range system.SlabCaches(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(c.Name, c.Size, c.Active, "of", c.Objects)
	}
}

func ExampleSystem_VMAreas() {
	owners, err := system.Owners()
	if err != nil {
		log.Print(err)
		return
	}
	for a, err := range system.VMAreas(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Printf("%#x-%#x %v %s\n", uint64(a.Start), uint64(a.End), a.Kinds, owners.Of(a.Caller).Function())
	}
}

func ExampleSystem_RunQueues() {
	for q, err := range system.RunQueues(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(q.CPU, q.Class, q.TID, q.Comm)
	}
}

func ExampleSystem_PCIDevices() {
	for d, err := range system.PCIDevices(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Printf("%s %04x:%04x %s\n", d.Name(), d.Vendor, d.Device, d.Driver)
	}
}

func ExampleSystem_Disks() {
	for d, err := range system.Disks(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(d.Name, d.Size, d.ReadBytes, d.WriteBytes)
	}
}
