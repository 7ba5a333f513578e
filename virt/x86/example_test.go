package x86_test

import (
	"fmt"

	"golang.org/x/arch/x86/x86asm"

	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/virt/x86"
)

func ExampleSelector_Follow() {
	// The kernel's x64_sys_call looks like this, with 400 numbers more.
	s := x86.Selector{
		Memory: tree([]byte{0x0f, 0x1f, 0x44, 0, 0}), Start: base, Size: 0x100,
		Name: func(virt.Addr) string { return "" },
	}
	for number := range uint32(3) {
		target, err := s.Follow(x86asm.RSI, number)
		fmt.Println(number, target.Addr, err)
	}
	// Output:
	// 0 0xffffffff81000200 <nil>
	// 1 0xffffffff81000210 <nil>
	// 2 0xffffffff81000220 <nil>
}
