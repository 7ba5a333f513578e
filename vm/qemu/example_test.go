package qemu_test

import (
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/qemu"
)

// What the command line of a QEMU says. Nothing is asked and nothing opened.
func ExampleDriver_Recognise() {
	i, ok := qemu.Driver{}.Recognise(proc.Process{
		PID:  71,
		Exe:  "/usr/bin/qemu-system-x86_64",
		Args: strings.Fields("/usr/bin/qemu-system-x86_64 -name guest=web,debug-threads=on -machine q35,accel=kvm -m 2G -smp 4"),
	})
	fmt.Println(ok, i.Name, i.Arch, i.Machine, i.Accel)
	fmt.Println(i.RAM>>20, "MiB,", i.CPUs, "CPUs")

	_, ok = qemu.Driver{}.Recognise(proc.Process{PID: 72, Exe: "/usr/bin/qemu-img", Args: []string{"qemu-img", "info"}})
	fmt.Println(ok)
	// Output:
	// true web x86_64 q35 kvm
	// 2048 MiB, 4 CPUs
	// false
}
