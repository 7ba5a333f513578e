package qemu

import (
	"slices"
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
//	GDT=     fffffe0000001000 0000007f
//	CR0=80050033 CR2=00007f... CR3=0000000002a2e000 CR4=000006f0
//	DR6=00000000ffff0ff0 DR7=0000000000000400
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

// general and selectors are the names that the monitor has for registers, in the order
// of [vm.Registers]. A machine in 32-bit form has none of the first.
var (
	general   = []string{"RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RSP", "RBP", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"}
	selectors = []string{"CS", "DS", "ES", "FS", "GS", "SS"}
)

func setRegisters(r *vm.Registers, line string) {
	// Segment registers: "GS =0000 BASE LIMIT FLAGS", "LDT=0000 BASE ...", and
	// tables: "GDT=     BASE LIMIT".
	if name, rest, ok := strings.Cut(line, "="); ok {
		f := strings.Fields(rest)
		name = strings.TrimSpace(name)
		if i := slices.Index(selectors, name); i >= 0 && len(f) > 1 {
			v, _ := strconv.ParseUint(f[0], 16, 16)
			r.Selectors[i] = uint16(v)
			if name != "FS" && name != "GS" {
				return
			}
		}
		base := map[string]*uint64{"FS": &r.FSBase, "GS": &r.GSBase, "LDT": &r.LDT, "TR": &r.TR}[name]
		if base != nil && len(f) > 1 {
			hex(base, f[1])
			return
		}
		table := map[string]*uint64{"GDT": &r.GDT, "IDT": &r.IDT}[name]
		if table != nil && len(f) > 0 {
			hex(table, f[0])
			if limit := map[string]*uint32{"GDT": &r.GDTLimit, "IDT": &r.IDTLimit}[name]; len(f) > 1 {
				v, _ := strconv.ParseUint(f[1], 16, 32)
				*limit = uint32(v)
			}
			return
		}
	}
	for _, f := range strings.Fields(strings.ReplaceAll(line, " =", "=")) { // "R8 =0 R10=0"
		name, value, ok := strings.Cut(f, "=")
		if !ok {
			continue
		}
		if i := slices.Index(general, name); i >= 0 {
			hex(&r.General[i], value)
		}
		if n, ok := strings.CutPrefix(name, "DR"); ok && len(n) == 1 && n[0] >= '0' && n[0] <= '7' {
			hex(&r.Debug[n[0]-'0'], value)
			r.HasDebug = r.HasDebug || n == "7"
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
