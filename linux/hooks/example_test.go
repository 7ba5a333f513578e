package hooks_test

import (
	"context"
	"fmt"
	"log"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
)

var (
	ctx    = context.Background()
	system *linux.System // of the guest that the examples look at
)

func ExampleSyscalls() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for c, err := range hooks.Syscalls(ctx, system, owners) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(c.Number, c.Name, owners.CodeAt(c.Handler))
	}
}

func ExampleSignatures() {
	signatures, err := hooks.Signatures(ctx, system)
	if err != nil {
		log.Print(err) // what could be read is there
	}
	for _, s := range signatures {
		if s != nil {
			fmt.Println(s.Number, s.Name, s.Types, s.Args)
		}
	}
}

func ExampleGates() {
	idt, err := hooks.IDTDescriptor(system)
	if err != nil {
		log.Fatal(err)
	}
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for gate, err := range hooks.Gates(ctx, system, idt.Base, idt.Limit) {
		if err == nil && gate.Present {
			fmt.Println(gate.Vector, owners.CodeAt(gate.Handler))
		}
	}
}

func ExampleSecurityHooks() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for h, err := range hooks.SecurityHooks(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(h.Hook, h.LSM, owners.CodeAt(h.Func))
	}
}

func ExampleKprobes() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for p, err := range hooks.Kprobes(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(p.Symbol, p.Offset, owners.CodeAt(p.Handler))
	}
}

func ExampleFtraceOps() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for o, err := range hooks.FtraceOps(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(owners.CodeAt(o.Func), o.Flags)
	}
}

func ExampleFtraceSites() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for s, err := range hooks.FtraceSites(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		if s.Enabled {
			fmt.Println(owners.CodeAt(s.Site), s.Users)
		}
	}
}

func ExampleTracepoints() {
	for p, err := range hooks.Tracepoints(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(p.Name, p.Enabled, len(p.Probes))
	}
}

func ExampleNotifiers() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for n, err := range hooks.Notifiers(ctx, system, owners) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(n.Chain, owners.CodeAt(n.Func))
	}
}

func ExampleAlgorithms() {
	for a, err := range hooks.Algorithms(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(a.Name, a.Driver, a.Module)
	}
}

func ExampleBinaryFormats() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for f, err := range hooks.BinaryFormats(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(f.Module, owners.CodeAt(f.Load))
	}
}

func ExampleMiscFormats() {
	for f, err := range hooks.MiscFormats(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(f.Name, f.Active, f.Interpreter)
	}
}

func ExampleFprobes() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for p, err := range hooks.Fprobes(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(owners.CodeAt(p.Entry), len(p.Functions))
	}
}

func ExampleInputHandlers() {
	for h, err := range hooks.InputHandlers(ctx, system) {
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Println(h.Name, len(h.Functions))
	}
}

func ExampleUserProbes() {
	for p, err := range hooks.UserProbes(ctx, system) {
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Println(p.Inode, p.Offset, p.Handler)
	}
}
