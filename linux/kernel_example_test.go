package linux_test

import (
	"fmt"
	"log"
)

func ExampleSystem_Messages() {
	for m, err := range system.Messages(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(m.Time, m.Level, m.Text)
	}
}

func ExampleSystem_Modules() {
	for m, err := range system.Modules(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(m.Name, m.State, m.RefCount)
	}
}

func ExampleSystem_Keys() {
	for k, err := range system.Keys(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(k.Serial, k.Type, k.Description)
	}
}

func ExampleSystem_PerfEvents() {
	for e, err := range system.PerfEvents(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(e.PID, e.CPU, e.PMU, e.Name)
	}
}

func ExampleSystem_IOUrings() {
	for r, err := range system.IOUrings(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(r.Flags, r.SQEntries, r.Files)
	}
}

func ExampleSystem_BPFPrograms() {
	for p, err := range system.BPFPrograms(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(p.ID, p.Type, p.Name)
	}
}

func ExampleSystem_BPFMaps() {
	for m, err := range system.BPFMaps(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(m.ID, m.Type, m.Name, m.MaxEntries)
	}
}

func ExampleSystem_BPFLinks() {
	for l, err := range system.BPFLinks(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(l.ID, l.Type, l.ProgramID, l.Target)
	}
}

func ExampleSystem_BPFAttachments() {
	for a, err := range system.BPFAttachments(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(a.Kind, a.Target)
	}
}
