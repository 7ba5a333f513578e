package note

import "encoding/binary"

// CPU is one processor's registers as QEMU's note has them (QEMUCPUState in
// target/i386/arch_dump.c), as far as they matter here.
type CPU struct {
	// Partial says that only RIP, RSP, RFLAGS, General, Selectors, FSBase and CPL are
	// known, as an NT_PRSTATUS has them.
	Partial            bool
	RIP, RSP, RFLAGS   uint64
	General            [16]uint64 // RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8 to R15
	Selectors          [6]uint16  // CS, DS, ES, FS, GS, SS
	CR0, CR2, CR3, CR4 uint64
	FSBase, GSBase     uint64
	KernelGSBase       uint64
	GDT, IDT, TR, LDT  uint64 // linear base addresses
	GDTLimit, IDTLimit uint32 // offsets of the last bytes; 0 if unknown
	CPL                int
}

// Offsets in QEMUCPUState of version 1, in bytes.
const (
	stateGeneral = 8
	stateRSP     = stateGeneral + 6*8
	stateRIP     = stateGeneral + 16*8
	stateRFLAGS  = stateRIP + 8
	stateSegs    = stateRFLAGS + 8 // cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt
	segSize      = 24              // selector, limit, flags, padding, then the base
	segLimit     = 4
	segBase      = 16
	stateCR      = stateSegs + 10*segSize
	stateKGS     = stateCR + 5*8
	stateMin     = stateKGS // before QEMU 3.0 it ended here
	stateSize    = stateKGS + 8
	maxCPUs      = 4096
)

// CPUs are the processors whose registers are in the notes in b, in their order: QEMU's
// notes have all of them. A kernel that crashed writes an NT_PRSTATUS for each processor
// (crash_save_cpu in kernel/crash_core.c), which makes them [CPU.Partial].
func CPUs(b []byte) (cpus []CPU) {
	if cpus = qemuCPUs(b); len(cpus) > 0 {
		return cpus
	}
	for n := range All(b) {
		if n.Name == "CORE" && n.Type == prstatus && len(n.Desc) >= prstatusMin && len(cpus) < maxCPUs {
			cpus = append(cpus, parsePrstatus(n.Desc))
		}
	}
	return cpus
}

func qemuCPUs(b []byte) (cpus []CPU) {
	for n := range All(b) {
		if n.Name != "QEMU" || len(n.Desc) < stateMin || len(cpus) == maxCPUs {
			continue
		}
		u := func(off int) uint64 { return binary.LittleEndian.Uint64(n.Desc[off:]) }
		base := func(seg int) uint64 { return u(stateSegs + seg*segSize + segBase) }
		limit := func(seg int) uint32 { return binary.LittleEndian.Uint32(n.Desc[stateSegs+seg*segSize+segLimit:]) }
		c := CPU{
			RIP: u(stateRIP), RSP: u(stateRSP), RFLAGS: u(stateRFLAGS),
			CR0: u(stateCR), CR2: u(stateCR + 16), CR3: u(stateCR + 24), CR4: u(stateCR + 32),
			FSBase: base(3), GSBase: base(4), LDT: base(6), TR: base(7), GDT: base(8), IDT: base(9),
			GDTLimit: limit(8), IDTLimit: limit(9), CPL: int(n.Desc[stateSegs] & 3),
		}
		for i := range c.General {
			c.General[i] = u(stateGeneral + 8*i)
		}
		for i := range c.Selectors {
			c.Selectors[i] = binary.LittleEndian.Uint16(n.Desc[stateSegs+i*segSize:])
		}
		if len(n.Desc) >= stateSize {
			c.KernelGSBase = u(stateKGS)
		}
		cpus = append(cpus, c)
	}
	return cpus
}

// Size and places of the kernel's struct elf_prstatus (include/uapi/linux/elfcore.h)
// on x86-64, in bytes.
const (
	prstatus     = 1 // NT_PRSTATUS
	prstatusSize = 336
	prstatusPID  = 32
	prstatusRegs = 112
	prstatusMin  = prstatusRegs + 27*8 // of user_regs_struct
)

// parsePrstatus is what an NT_PRSTATUS contains. Its gs_base is the one that the running
// program has, not the processor's (ELF_CORE_COPY_REGS in arch/x86/include/asm/elf.h), and
// is left out.
func parsePrstatus(desc []byte) CPU {
	u := func(i int) uint64 { return binary.LittleEndian.Uint64(desc[prstatusRegs+8*i:]) }
	c := CPU{Partial: true, RIP: u(16), RFLAGS: u(18), RSP: u(19), FSBase: u(21)}
	// In the order of user_regs_struct: R15 to R12, RBP, RBX, R11 to R8, RAX, RCX, RDX, RSI, RDI.
	for i, to := range [...]int{15, 14, 13, 12, 7, 1, 11, 10, 9, 8, 0, 2, 3, 4, 5} {
		c.General[to] = u(i)
	}
	c.General[6] = c.RSP
	for i, at := range [...]int{17, 23, 24, 25, 26, 20} {
		c.Selectors[i] = uint16(u(at))
	}
	c.CPL = int(c.Selectors[0] & 3)
	return c
}

// AppendCPUs appends to b what dumps record of processors: for each an NT_PRSTATUS, as
// crash-dump tools read it, and behind those QEMU's note, which has the control
// registers too, for each that is not [CPU.Partial].
func AppendCPUs(b []byte, cpus []CPU) []byte {
	for i, c := range cpus {
		b = Append(b, Note{Name: "CORE", Type: prstatus, Desc: c.prstatus(i)})
	}
	for _, c := range cpus {
		if !c.Partial {
			b = Append(b, Note{Name: "QEMU", Desc: c.state()})
		}
	}
	return b
}

// prstatus is c as the processor with number n.
func (c CPU) prstatus(n int) []byte {
	b := make([]byte, prstatusSize)
	binary.LittleEndian.PutUint32(b[prstatusPID:], uint32(n)+1) // as QEMU numbers them
	g := c.General
	const rax, rbx, rcx, rdx, rsi, rdi, rbp, r8 = 0, 1, 2, 3, 4, 5, 7, 8
	seg := func(i int) uint64 { return uint64(c.Selectors[i]) }
	// In the order of user_regs_struct, where orig_rax stands before RIP.
	for i, v := range [...]uint64{
		g[r8+7], g[r8+6], g[r8+5], g[r8+4], g[rbp], g[rbx], g[r8+3], g[r8+2], g[r8+1], g[r8],
		g[rax], g[rcx], g[rdx], g[rsi], g[rdi], g[rax],
		c.RIP, seg(0), c.RFLAGS, c.RSP, seg(5), c.FSBase, c.GSBase, seg(1), seg(2), seg(3), seg(4),
	} {
		binary.LittleEndian.PutUint64(b[prstatusRegs+8*i:], v)
	}
	return b
}

func (c CPU) state() []byte {
	b := make([]byte, stateSize)
	put32, put64 := binary.LittleEndian.PutUint32, binary.LittleEndian.PutUint64
	put32(b, 1) // its version
	put32(b[4:], stateSize)
	for i, v := range c.General {
		put64(b[stateGeneral+8*i:], v)
	}
	put64(b[stateRSP:], c.RSP)
	put64(b[stateRIP:], c.RIP)
	put64(b[stateRFLAGS:], c.RFLAGS)
	for i, v := range c.Selectors {
		put32(b[stateSegs+i*segSize:], uint32(v))
	}
	if c.Selectors[0] == 0 { // unknown: the level is, and is all that readers take from it
		put32(b[stateSegs:], uint32(c.CPL))
	}
	for seg, base := range map[int]uint64{3: c.FSBase, 4: c.GSBase, 6: c.LDT, 7: c.TR, 8: c.GDT, 9: c.IDT} {
		put64(b[stateSegs+seg*segSize+segBase:], base)
	}
	put32(b[stateSegs+8*segSize+segLimit:], c.GDTLimit)
	put32(b[stateSegs+9*segSize+segLimit:], c.IDTLimit)
	for i, v := range [...]uint64{c.CR0, 0, c.CR2, c.CR3, c.CR4} {
		put64(b[stateCR+8*i:], v)
	}
	put64(b[stateKGS:], c.KernelGSBase)
	return b
}
