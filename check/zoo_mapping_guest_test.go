package check_test

import (
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// ownKernel gives the victim a copy of the page table by which the kernel's text is mapped, in the second page of its stack of the kernel.
func (z *zoo) ownKernel() {
	z.Helper()
	const addresses, entries = 0x000f_ffff_ffff_f000, phys.PageSize / 8
	pgd := z.ptr(z.ptr(z.victim()+z.offset("task_struct", "mm")) + z.offset("mm_struct", "pgd"))
	top := uint64(z.ptr(pgd + (entries-1)*8))
	table := make([]byte, phys.PageSize)
	if _, err := z.look.Machine.Memory.ReadAt(table, phys.Addr(top&addresses)); err != nil {
		z.Fatal(err)
	}
	page := z.ptr(z.victim()+z.offset("task_struct", "stack")) + phys.PageSize
	frame, err := z.look.Linux.Space.Translate(page)
	if err != nil {
		z.Fatal(err)
	}
	z.write(page, table)
	z.put(pgd+(entries-1)*8, top&^uint64(addresses)|uint64(frame.PA))
}

// moduleRodata is the address of read-only data of a module on the list, which only the module itself reads.
func (z *zoo) moduleRodata() virt.Addr {
	z.Helper()
	m, err := z.look.Linux.ModuleNamed("loop")
	if err != nil || m == nil {
		z.Fatalf("module loop is not loaded: %v", err)
	}
	var data virt.Addr
	for _, r := range m.Memory {
		if r.Kind == linux.ModuleRodata || r.Kind == linux.ModuleData && data == 0 {
			data = r.Start
		}
	}
	return data
}
