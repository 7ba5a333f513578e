package virt_test

import (
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// A large page, four levels down.
func ExampleSpace_Translate() {
	m := synth.New(phys.Range{End: 16 << 20})
	m.Uint64(0x4000+8*273, 0x2003) // level 4: 0xffff888000000000
	m.Uint64(0x2000, 0x3003)       // level 3
	m.Uint64(0x3000+8, 0x600083)   // level 2: a page of 2 MiB
	m.CString(0x600010, "hello")

	s := virt.New(m, virt.Root(0x5000|5, true), virt.Levels4)
	page, err := s.Translate(0xffff_8880_0020_0010)
	fmt.Println(page.PA, page.Size>>20, err)
	b := make([]byte, 5)
	_, err = s.ReadAt(b, 0xffff_8880_0020_0010)
	fmt.Printf("%s %v\n", b, err)
	_, err = s.Translate(0xffff_8880_0040_0000)
	fmt.Println(err)
	// Output:
	// 0x600010 2 <nil>
	// hello <nil>
	// virtual address 0xffff888000400000 is not mapped (level 2 entry 0x0)
}
