package tcg

import (
	"slices"

	"github.com/outsight-vmi/outsight/trace/plugin"
)

// registers32 are those of int $0x80. The vDSO's other instructions need registers for themselves: see [compiler.arguments32].
var registers32 = [6]string{"rbx", "rcx", "rdx", "rsi", "rdi", "rbp"}

// wide leaves calls of a 32-bit process to the program of those: AMD's processors make them with the same instruction. The
// code segment says so where the place of the instruction does not: as it was when the instruction was translated, for it takes long to read.
func (c *compiler) wide() {
	wide := c.Label()
	c.If(sPC, ">", 1<<32-1, wide)
	if c.keep[abi64] != nil && c.keep[abi32] != nil {
		maybe := c.Label()
		c.IfIn(sNumber, slices.Concat(c.keep[abi64], c.keep[abi32]), maybe)
		c.Jump(wide)
		c.Set(maybe)
	}
	known := c.Label()
	c.Ctx(sX, plugin.CtxCode)
	c.If(sX, "!=", 0, known)
	c.Reg(sX, "cs")
	c.Set(known)
	c.If(sX, "!=", userCS64, c.compat)
	c.Set(wide)
}

// arguments32 fetches the arguments of a 32-bit call. By sysenter, EBP is the stack, which has the sixth; by AMD's syscall, which
// destroys ECX, EBP is the second (arch/x86/entry/vdso/vdso32/system_call.S).
func (c *compiler) arguments32() {
	int80, sysenter := c.Label(), c.Label()
	for i, r := range registers32 {
		c.Reg(arg(i), r)
		c.And(arg(i), arg(i), 0xffffffff)
	}
	c.Ctx(sX, plugin.CtxKind)
	c.If(sX, "==", plugin.Int80, int80)
	c.Add(sY, arg(5), 0)
	c.If(sX, "==", plugin.Sysenter, sysenter)
	c.Add(arg(1), arg(5), 0)
	c.Reg(sY, "rsp")
	c.And(sY, sY, 0xffffffff)
	c.Set(sysenter)
	c.Load(arg(5), sY, 0, 4, 0)
	c.Set(int80)
}
