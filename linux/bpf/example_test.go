package bpf_test

import (
	"context"
	"fmt"
	"log"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/bpf"
)

var (
	ctx    = context.Background()
	system *linux.System // of the guest that the examples look at
)

func ExamplePrograms() {
	for p, err := range bpf.Programs(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(p.ID, p.Type, p.Name)
	}
}

func ExampleMaps() {
	for m, err := range bpf.Maps(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(m.ID, m.Type, m.Name, m.MaxEntries)
	}
}

func ExampleLinks() {
	for l, err := range bpf.Links(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(l.ID, l.Type, l.ProgramID, l.Target)
	}
}

func ExampleAttachments() {
	for a, err := range bpf.Attachments(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(a.Kind, a.Target)
	}
}

func ExampleFindHolders() {
	holders, err := bpf.FindHolders(ctx, system)
	if err != nil {
		log.Fatal(err)
	}
	for m, err := range bpf.Maps(ctx, system) {
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Println(m.ID, m.Name, holders.Files[m.Addr], holders.Pins[m.Addr])
	}
}

func ExampleDisassemble() {
	code := []byte{
		0xb7, 0, 0, 0, 1, 0, 0, 0, // r0 = 1
		0x95, 0, 0, 0, 0, 0, 0, 0, // exit
	}
	for _, line := range bpf.Disassemble(code, nil) {
		fmt.Println(line)
	}
	// Output:
	// 0: r0 = 1
	// 1: exit
}
