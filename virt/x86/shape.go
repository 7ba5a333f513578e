package x86

// Shape is how an instruction's bytes divide: enough to compare code that was moved,
// without a meaning for each instruction.
type Shape struct {
	Len    int // of the instruction, in bytes
	Opcode int // where the opcode begins, behind prefixes and REX
	// Rel is where a distance from the instruction's end is, RelLen how long: the target of
	// a branch, or an operand that is addressed relative to the instruction pointer. RelLen
	// is 0 where there is none.
	Rel, RelLen int
}

// What follows an opcode.
const (
	shapeModRM  = 1 << iota // a ModRM byte, with what it asks for
	shapeImm8               // an immediate of 8 bits
	shapeImm16              // one of 16
	shapeImm32              // one of 32, or of 16 with an operand-size prefix
	shapeRel8               // a branch by 8 bits
	shapeRel32              // a branch by 32
	shapeGroup3             // an immediate, if the ModRM byte says TEST
	shapeImm64              // 64 with REX.W, else as shapeImm32
	shapeOffset             // an absolute address of 64 bits
	shapeNone               // no such instruction in 64-bit mode
	shapeRegs               // with a ModRM byte: it names registers, whatever its mod
)

// shapes1 and shapes2 are the one-byte opcodes and those behind 0f (Intel's manual, volume
// 2, appendix A).
var shapes1, shapes2 = makeShapes()

func makeShapes() (one, two [256]uint16) {
	set := func(t *[256]uint16, v uint16, from, to int) {
		for i := from; i <= to; i++ {
			t[i] = v
		}
	}
	for row := 0; row < 0x40; row += 8 { // arithmetic
		set(&one, shapeModRM, row, row+3)
		one[row+4], one[row+5] = shapeImm8, shapeImm32
		set(&one, shapeNone, row+6, row+7)
	}
	set(&one, shapeNone, 0x60, 0x62)
	one[0x63] = shapeModRM
	one[0x68], one[0x69], one[0x6a], one[0x6b] = shapeImm32, shapeModRM|shapeImm32, shapeImm8, shapeModRM|shapeImm8
	set(&one, shapeRel8, 0x70, 0x7f)
	set(&one, shapeModRM, 0x80, 0x8f)
	one[0x80], one[0x81], one[0x82], one[0x83] = shapeModRM|shapeImm8, shapeModRM|shapeImm32, shapeNone, shapeModRM|shapeImm8
	one[0x9a] = shapeNone
	set(&one, shapeOffset, 0xa0, 0xa3)
	one[0xa8], one[0xa9] = shapeImm8, shapeImm32
	set(&one, shapeImm8, 0xb0, 0xb7)
	set(&one, shapeImm64, 0xb8, 0xbf)
	one[0xc0], one[0xc1], one[0xc2] = shapeModRM|shapeImm8, shapeModRM|shapeImm8, shapeImm16
	one[0xc6], one[0xc7], one[0xc8], one[0xca], one[0xcd] = shapeModRM|shapeImm8, shapeModRM|shapeImm32, shapeImm16|shapeImm8, shapeImm16, shapeImm8
	one[0xce] = shapeNone
	set(&one, shapeModRM, 0xd0, 0xd3)
	one[0xd4], one[0xd5] = shapeNone, shapeNone
	set(&one, shapeModRM, 0xd8, 0xdf)
	set(&one, shapeRel8, 0xe0, 0xe3)
	set(&one, shapeImm8, 0xe4, 0xe7)
	one[0xe8], one[0xe9], one[0xea], one[0xeb] = shapeRel32, shapeRel32, shapeNone, shapeRel8
	one[0xf6], one[0xf7] = shapeModRM|shapeGroup3|shapeImm8, shapeModRM|shapeGroup3|shapeImm32
	one[0xfe], one[0xff] = shapeModRM, shapeModRM

	set(&two, shapeModRM, 0, 0xff)
	for _, op := range []int{0x05, 0x06, 0x07, 0x08, 0x09, 0x0b, 0x0e, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x37, 0x77, 0xa0, 0xa1, 0xa2, 0xa8, 0xa9, 0xaa} {
		two[op] = 0
	}
	for _, op := range []int{0x04, 0x0a, 0x0c, 0x24, 0x25, 0x26, 0x27, 0x36, 0x39, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f} {
		two[op] = shapeNone
	}
	for _, op := range []int{0x0f, 0x70, 0x71, 0x72, 0x73, 0xa4, 0xac, 0xba, 0xc2, 0xc4, 0xc5, 0xc6} {
		two[op] = shapeModRM | shapeImm8
	}
	set(&two, shapeModRM|shapeRegs, 0x20, 0x23) // control and debug registers
	set(&two, shapeRel32, 0x80, 0x8f)
	set(&two, 0, 0xc8, 0xcf)
	return one, two
}

// ShapeOf finds the shape of the 64-bit instruction at the start of b. It allocates
// nothing, and knows every instruction by its form, those without a name too.
func ShapeOf(b []byte) (s Shape, ok bool) {
	b = b[:min(len(b), MaxInstruction)]
	i, wide, short, addr32 := 0, false, false, false
prefixes:
	for ; i < len(b); i++ {
		switch b[i] {
		case 0x66:
			short = true
		case 0x67:
			addr32 = true
		case 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0xf0, 0xf2, 0xf3:
		default:
			break prefixes
		}
	}
	if i < len(b) && b[i]&0xf0 == 0x40 { // REX
		wide = b[i]&8 != 0
		i++
	}
	s.Opcode = i
	op, i, ok := opcode(b, i)
	if !ok || op&shapeNone != 0 {
		return s, false
	}
	if op&shapeModRM != 0 {
		if i >= len(b) {
			return s, false
		}
		modrm := b[i]
		i++
		if op&shapeGroup3 != 0 && modrm&0x30 != 0 {
			op &^= shapeImm8 | shapeImm32
		}
		if op&shapeRegs == 0 {
			if i, ok = s.operand(b, i, modrm); !ok {
				return s, false
			}
		}
	}
	word := 4
	if short {
		word = 2
	}
	for _, p := range []struct {
		bit uint16
		n   int
	}{{shapeImm16, 2}, {shapeImm8, 1}, {shapeImm32, word}} {
		if op&p.bit != 0 {
			i += p.n
		}
	}
	switch {
	case op&shapeImm64 != 0 && wide:
		i += 8
	case op&shapeImm64 != 0:
		i += word
	case op&shapeOffset != 0 && addr32:
		i += 4
	case op&shapeOffset != 0:
		i += 8
	case op&shapeRel8 != 0:
		s.Rel, s.RelLen = i, 1
		i++
	case op&shapeRel32 != 0: // an operand-size prefix makes no difference on Intel's
		s.Rel, s.RelLen = i, 4
		i += 4
	}
	s.Len = i
	return s, i <= len(b)
}

// opcode reads the opcode at b[i:], and returns what follows it, and where.
func opcode(b []byte, i int) (shape uint16, next int, ok bool) {
	if i >= len(b) {
		return 0, i, false
	}
	switch b[i] {
	case 0x0f:
		if i+1 >= len(b) {
			return 0, i, false
		}
		switch b[i+1] {
		case 0x38:
			return shapeModRM, i + 3, true
		case 0x3a:
			return shapeModRM | shapeImm8, i + 3, true
		}
		return shapes2[b[i+1]], i + 2, true
	case 0xc5: // VEX of two bytes
		if i+2 >= len(b) {
			return 0, i, false
		}
		return shapes2[b[i+2]], i + 3, true
	case 0xc4, 0x62: // VEX of three, EVEX
		n := 3
		if b[i] == 0x62 {
			n = 4
		}
		if i+n >= len(b) {
			return 0, i, false
		}
		switch b[i+1] & 0x1f {
		case 1:
			if b[i] == 0xc4 || b[i+1]&0x08 == 0 {
				return shapes2[b[i+n]], i + n + 1, true
			}
		case 3:
			return shapeModRM | shapeImm8, i + n + 1, true
		}
		return shapeModRM, i + n + 1, true
	}
	return shapes1[b[i]], i + 1, true
}

// operand passes over what a ModRM byte asks for.
func (s *Shape) operand(b []byte, i int, modrm byte) (next int, ok bool) {
	mod, rm := modrm>>6, modrm&7
	if mod == 3 {
		return i, true
	}
	if rm == 4 { // SIB
		if i >= len(b) {
			return i, false
		}
		if mod == 0 && b[i]&7 == 5 {
			i += 4
		}
		i++
	}
	switch {
	case mod == 0 && rm == 5:
		s.Rel, s.RelLen = i, 4
		i += 4
	case mod == 1:
		i++
	case mod == 2:
		i += 4
	}
	return i, true
}

// IsNop reports whether an instruction of that shape does nothing: the one-byte nop and
// the long ones, with any prefixes.
func (s Shape) IsNop(b []byte) bool {
	op := b[s.Opcode:s.Len]
	switch {
	case len(op) == 1 && op[0] == 0x90:
		for _, p := range b[:s.Opcode] {
			if p != 0x66 && p != 0x2e {
				return false // f3 90 is pause, 41 90 exchanges registers
			}
		}
		return true
	case len(op) > 2 && op[0] == 0x0f && op[1] == 0x1f && op[2]&0x38 == 0:
		return true
	}
	return false
}
