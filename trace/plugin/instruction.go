package plugin

// Op is what an instruction does, for those who translate a program for another machine.
type Op = op

// The operations of [Instruction]: see the methods of [Assembler] that write them.
const (
	OpEnd     = opEnd
	OpDrop    = opDrop
	OpImm     = opImm     // Dst = Imm
	OpReg     = opReg     // Dst = register Name
	OpAdd     = opAdd     // Dst = Src + Imm
	OpAddSlot = opAdds    // Dst += Src
	OpAnd     = opAnd     // Dst = Src & Imm
	OpShl     = opShl     // Dst = Src << Arg
	OpShr     = opShr     // Dst = Src >> Arg
	OpMul     = opMul     // Dst = Src * Imm
	OpFaulted = opFaulted // Dst = 1 if something could not be read
	OpLoad    = opLoad    // Dst = Size bytes at Src + Imm; a Jump if they cannot be read
	OpCopy    = opCopy    // item Size: Dst bytes at Src, at most Arg
	OpString  = opStr     // item Size: the string at Src, at most Arg bytes
	OpStrings = opStrv    // items Size: of the vector at Src, with pointers of Dst bytes: Imm strings at most, of Arg bytes
	OpGather  = opVec     // item Size: Dst pairs of words of Imm bytes at Src, at most Arg bytes
	OpJump    = opJmp
	OpEqual   = opJeq   // Src == Imm
	OpDiffer  = opJne   // Src != Imm
	OpLess    = opJlt   // Src < Imm
	OpMore    = opJgt   // Src > Imm
	OpAny     = opJset  // Src & Imm
	OpSame    = opJsame // Dst == Src
)

// Slots is how many slots the machine has.
const Slots = slots

// Instruction is one of a program.
type Instruction struct {
	Op             Op
	Dst, Src, Size uint8
	Arg            uint32 // of a jump, the index of the instruction that it leads to
	Imm            uint64
	Jump           bool   // it leads to Arg
	Name           string // of a register
}

// Instructions are what was assembled so far, as one piece. Labels at its end lead to its length.
func (a *Assembler) Instructions() ([]Instruction, error) {
	if a.err != nil {
		return nil, a.err
	}
	is := make([]Instruction, len(a.code))
	for n, c := range a.code {
		i := Instruction{Op: c.op, Dst: c.dst, Src: c.src, Size: c.size, Arg: c.arg, Imm: c.imm}
		if c.label != 0 {
			to, err := a.target(n, c.label)
			if err != nil {
				return nil, err
			}
			i.Jump, i.Arg = true, to
		}
		if c.op == opReg {
			i.Name = a.registers[c.arg]
		}
		is[n] = i
	}
	return is, nil
}
