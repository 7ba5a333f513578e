package check_test

import (
	"encoding/binary"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// descriptorTricks are changes of the tables that processors obey, and of a module that nothing
// uses. None is in use by what runs in the guest meanwhile.
func descriptorTricks() []trick {
	tables := []string{"descriptor-table"}
	return []trick{
		{"call gate in the descriptor table", func(z *zoo) { z.put(z.perCPU("gdt_page", 1)+8*7, callGate(z.symbol("commit_creds"))) }, tables},
		{"code of ring 0 in the descriptor table", func(z *zoo) { z.put(z.perCPU("gdt_page", 0)+8*7, 0x00af_9e00_0000_ffff) }, tables},
		{"interrupt that programs may raise", func(z *zoo) {
			gate := z.symbol("idt_table") + 16*0x8f
			z.write(gate+5, []byte{z.read(gate+5, 1)[0] | 3<<5})
		}, tables},
		{"gate to a function that is no entry", func(z *zoo) {
			gate, to := z.symbol("idt_table")+16*0x8f, uint64(z.symbol("commit_creds"))
			z.write(gate, binary.LittleEndian.AppendUint16(nil, uint16(to)))
			z.write(gate+6, binary.LittleEndian.AppendUint16(nil, uint16(to>>16)))
		}, tables},
		{"stack for exceptions elsewhere", func(z *zoo) {
			const doubleFault = 0 // the first of the interrupt stack table
			z.put(z.perCPU("cpu_tss_rw", 1)+z.offset("tss_struct", "x86_tss")+z.offset("x86_hw_tss", "ist")+8*doubleFault, uint64(z.heap()))
		}, tables},
		{"call from one module into another", func(z *zoo) {
			to, ok := z.look.Linux.ModuleSymbol("tun", "tun_chr_open")
			if !ok {
				z.Fatal("tun has no tun_chr_open")
			}
			z.branch(0xe8, z.moduleCall(), to)
		}, []string{"text-branch", "?module-text"}},
		{"pages of the time executable in a process", func(z *zoo) {
			mm := z.ptr(z.victim() + z.offset("task_struct", "mm"))
			for m, err := range z.look.Linux.NewProcessReader().MappingsOf(z.Context(), mm) {
				if err == nil && m.Path == "[vvar]" {
					z.put(m.Addr+z.offset("vm_area_struct", "vm_flags"), m.Flags|linux.VMExec)
					return
				}
			}
			z.Fatal("the victim has no [vvar]")
		}, []string{"vdso"}},
	}
}

// callGate is the first half of a gate for programs to a function of the kernel's.
func callGate(to virt.Addr) uint64 {
	const kernelCode, gate = 0x10, 0xec // present, ring 3, a call gate
	return uint64(to)&0xffff | kernelCode<<16 | gate<<40 | uint64(to)>>16&0xffff<<48
}

// perCPU is a processor's own variable.
func (z *zoo) perCPU(name string, cpu int) virt.Addr {
	a, err := z.look.Linux.PerCPU(name, cpu)
	if err != nil {
		z.Fatal(err)
	}
	return a
}
