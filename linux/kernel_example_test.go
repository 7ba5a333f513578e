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

func ExampleSystem_Sysctls() {
	for c, err := range system.Sysctls(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(c.Name, c.Value, c.Known)
	}
}

func ExampleSystem_Resources() {
	for r, err := range system.Resources(ctx, "iomem_resource") {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Printf("%*s%#x-%#x %s\n", r.Depth, "", r.Start, r.End, r.Name)
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

func ExampleSystem_Algorithms() {
	for a, err := range system.Algorithms(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(a.Name, a.Driver, a.Module)
	}
}

func ExampleSystem_BinaryFormats() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for f, err := range system.BinaryFormats(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(f.Module, owners.Of(f.Load))
	}
}

func ExampleSystem_Syscalls() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for c, err := range system.Syscalls(ctx, owners) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(c.Number, c.Name, owners.Of(c.Handler))
	}
}

func ExampleSystem_Gates() {
	idt, err := system.IDTDescriptor()
	if err != nil {
		log.Fatal(err)
	}
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for gate, err := range system.Gates(ctx, idt.Base, idt.Limit) {
		if err == nil && gate.Present {
			fmt.Println(gate.Vector, owners.Of(gate.Handler))
		}
	}
}

func ExampleSystem_SecurityHooks() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for h, err := range system.SecurityHooks(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(h.Hook, h.LSM, owners.Of(h.Func))
	}
}

func ExampleSystem_Kprobes() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for p, err := range system.Kprobes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(p.Symbol, p.Offset, owners.Of(p.Handler))
	}
}

func ExampleSystem_FtraceOps() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for o, err := range system.FtraceOps(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(owners.Of(o.Func), o.Flags)
	}
}

func ExampleSystem_FtraceSites() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for s, err := range system.FtraceSites(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		if s.Enabled {
			fmt.Println(owners.Of(s.Site), s.Users)
		}
	}
}

func ExampleSystem_Tracepoints() {
	for p, err := range system.Tracepoints(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(p.Name, p.Enabled, len(p.Probes))
	}
}

func ExampleSystem_Notifiers() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for n, err := range system.Notifiers(ctx, owners) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(n.Chain, owners.Of(n.Func))
	}
}

func ExampleSystem_Timers() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for t, err := range system.Timers(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(t.CPU, t.Kind, owners.Of(t.Func))
	}
}

func ExampleSystem_Workqueues() {
	for q, err := range system.Workqueues(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(q.Name, q.Flags, q.Active)
	}
}

func ExampleSystem_Works() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for w, err := range system.Works(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(w.Queue, w.State, owners.Of(w.Func))
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
