package qemu

import (
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/vm"
)

// maxCPUs bounds how many CPUs are parsed.
const maxCPUs = 4096

// parseRegisters parses the output of "info registers -a" of an x86 machine
// (target/i386/cpu-dump.c), in 64-bit and 32-bit form:
//
//	CPU#0
//	RIP=ffffffff81c0b1eb RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
//	GS =0000 ffff88801f600000 ffffffff 00c00000
//	CR0=80050033 CR2=00007f... CR3=0000000002a2e000 CR4=000006f0
//	EFER=0000000000000d01
//
// The monitor does not show the kernel GS base that swapgs hides, so
// KernelGSBase stays 0.
func parseRegisters(text string) []vm.Registers {
	var cpus []vm.Registers
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if n, ok := strings.CutPrefix(line, "CPU#"); ok {
			cpu, err := strconv.Atoi(n)
			if err != nil || len(cpus) == maxCPUs {
				return cpus
			}
			cpus = append(cpus, vm.Registers{CPU: cpu})
			continue
		}
		if len(cpus) > 0 {
			setRegisters(&cpus[len(cpus)-1], line)
		}
	}
	return cpus
}

func setRegisters(r *vm.Registers, line string) {
	fields := strings.Fields(line)
	// Segment registers: "GS =0000 BASE LIMIT FLAGS", "LDT=0000 BASE ...", and
	// tables: "GDT=     BASE LIMIT".
	if name, rest, ok := strings.Cut(line, "="); ok {
		f := strings.Fields(rest)
		base := map[string]*uint64{"FS": &r.FSBase, "GS": &r.GSBase, "LDT": &r.LDT, "TR": &r.TR}[strings.TrimSpace(name)]
		if base != nil && len(f) > 1 {
			hex(base, f[1])
			return
		}
		table := map[string]*uint64{"GDT": &r.GDT, "IDT": &r.IDT}[name]
		if table != nil && len(f) > 0 {
			hex(table, f[0])
			return
		}
	}
	for _, f := range fields {
		name, value, ok := strings.Cut(f, "=")
		if !ok {
			continue
		}
		switch name {
		case "RIP", "EIP":
			hex(&r.RIP, value)
		case "RSP", "ESP":
			hex(&r.RSP, value)
		case "RFL", "EFL":
			hex(&r.RFLAGS, value)
		case "CR0":
			hex(&r.CR0, value)
		case "CR2":
			hex(&r.CR2, value)
		case "CR3":
			hex(&r.CR3, value)
		case "CR4":
			hex(&r.CR4, value)
		case "EFER":
			hex(&r.EFER, value)
		case "CPL":
			r.CPL, _ = strconv.Atoi(value)
		case "HLT":
			r.Halted = value == "1"
		}
	}
}

func hex(to *uint64, s string) {
	if v, err := strconv.ParseUint(s, 16, 64); err == nil {
		*to = v
	}
}
