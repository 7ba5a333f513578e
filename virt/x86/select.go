package x86

import (
	"fmt"
	"math/bits"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/outsight-vmi/outsight/virt"
)

// Reader reads guest memory at a virtual address.
type Reader interface {
	ReadAt(p []byte, va virt.Addr) (int, error)
}

// Selector is a function that hands over to one of many others, as the number in
// its argument says: a switch, compiled to comparisons or to a jump table.
type Selector struct {
	Memory Reader
	Start  virt.Addr
	Size   uint64 // in bytes
	// Name is the symbol that starts at an address, empty if none does. It says
	// the kernel's thunks for indirect jumps and returns.
	Name func(virt.Addr) string

	code map[virt.Addr]x86asm.Inst
}

// Target is where a number leads.
type Target struct {
	Addr virt.Addr // of the function; 0 if it returns without calling one
	Site virt.Addr // of the instruction that goes there
	// Traced says that the function begins with a call, as ftrace puts one there.
	Traced bool
}

// maxSteps bounds how many instructions one number may take. A tree of
// comparisons takes 15 for 500 numbers.
const maxSteps = 512

// Follow follows the function with number in argument arg (x86asm.RDI, RSI …) up
// to the first call of, or jump to, another function. Errors wrap [ErrCode], or
// are those of reading.
func (s *Selector) Follow(arg x86asm.Reg, number uint32) (Target, error) {
	var c cpu
	c.set(arg, uint64(number))
	t := Target{}
	at := s.Start
	for range maxSteps {
		inst, err := s.decode(at)
		if err != nil {
			return t, err
		}
		next := at + virt.Addr(inst.Len)
		t.Site = at
		switch op := inst.Op; {
		case op == x86asm.RET:
			return t, nil
		case op == x86asm.JMP || op == x86asm.CALL || jumpsIf(op):
			if jumpsIf(op) {
				taken, known := c.condition(op)
				if !known {
					return t, fmt.Errorf("code at %#x: %w: it decides by something else than the number", uint64(at), ErrCode)
				}
				if !taken {
					at = next
					continue
				}
			}
			to, known := s.goal(&c, &inst, next)
			if !known {
				return t, fmt.Errorf("code at %#x: %w: %v leads to an address that is not known", uint64(at), ErrCode, inst.Op)
			}
			if uint64(to-s.Start) < s.Size && op != x86asm.CALL {
				at = to
				continue
			}
			name := s.Name(to)
			if op == x86asm.CALL && (at-s.Start <= 8 || name == "__fentry__") {
				t.Traced = true // in the place that every function keeps for tracing
				at = next
				continue
			}
			if strings.HasSuffix(name, "return_thunk") {
				return t, nil
			}
			if reg, ok := strings.CutPrefix(name, "__x86_indirect_thunk_"); ok {
				v, known := c.get(regNamed(reg))
				if !known {
					return t, fmt.Errorf("code at %#x: %w: jumps by %s, which is not known", uint64(at), ErrCode, reg)
				}
				if to = virt.Addr(v); uint64(to-s.Start) < s.Size {
					at = to
					continue
				}
			}
			t.Addr = to
			return t, nil
		case op == x86asm.INT:
			return t, fmt.Errorf("code at %#x: %w: a breakpoint", uint64(at), ErrCode)
		default:
			c.step(&inst, next, s.Memory)
			at = next
		}
	}
	return t, fmt.Errorf("code at %#x: %w: number %d does not come out within %d instructions", uint64(s.Start), ErrCode, number, maxSteps)
}

func (s *Selector) decode(at virt.Addr) (x86asm.Inst, error) {
	if i, ok := s.code[at]; ok {
		return i, nil
	}
	if uint64(at-s.Start) >= s.Size {
		return x86asm.Inst{}, fmt.Errorf("code at %#x: %w: beyond the function at %#x", uint64(at), ErrCode, uint64(s.Start))
	}
	var b [MaxInstruction]byte
	n, err := s.Memory.ReadAt(b[:], at)
	if err != nil && n == 0 {
		return x86asm.Inst{}, fmt.Errorf("code at %#x: %w", uint64(at), err)
	}
	i, err := Decode(b[:n])
	if err != nil {
		return i, fmt.Errorf("code at %#x: %w", uint64(at), err)
	}
	if s.code == nil {
		s.code = map[virt.Addr]x86asm.Inst{}
	}
	s.code[at] = i
	return i, nil
}

// goal is where a jump or call leads.
func (s *Selector) goal(c *cpu, inst *x86asm.Inst, next virt.Addr) (virt.Addr, bool) {
	if rel, ok := inst.Args[0].(x86asm.Rel); ok {
		return next + virt.Addr(int64(rel)), true
	}
	v, ok := c.value(inst.Args[0], 8, next, s.Memory)
	return virt.Addr(v), ok
}

func jumpsIf(op x86asm.Op) bool {
	switch op {
	case x86asm.JE, x86asm.JNE, x86asm.JA, x86asm.JAE, x86asm.JB, x86asm.JBE, x86asm.JG, x86asm.JGE, x86asm.JL, x86asm.JLE, x86asm.JS, x86asm.JNS:
		return true
	}
	return false
}

// cpu is what is known of the registers and flags.
type cpu struct {
	regs  [16]uint64
	known [16]bool
	// flags of the last comparison: of a-b, or of a&b, in width bytes.
	a, b       uint64
	width      int
	isTest     bool
	flagsKnown bool
}

// index splits a register into its number and its width in bytes.
func index(r x86asm.Reg) (i, width int, ok bool) {
	switch {
	case r >= x86asm.RAX && r <= x86asm.R15:
		return int(r - x86asm.RAX), 8, true
	case r >= x86asm.EAX && r <= x86asm.R15L:
		return int(r - x86asm.EAX), 4, true
	case r >= x86asm.AX && r <= x86asm.R15W:
		return int(r - x86asm.AX), 2, true
	}
	return 0, 0, false // bytes, and what no switch uses
}

var regNames = []string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}

func regNamed(name string) x86asm.Reg {
	for i, n := range regNames {
		if n == name {
			return x86asm.RAX + x86asm.Reg(i)
		}
	}
	return 0
}

func cut(v uint64, width int) uint64 {
	if width >= 8 {
		return v
	}
	return v & (1<<(8*width) - 1)
}

func extend(v uint64, width int) int64 {
	shift := 64 - 8*width
	return int64(v<<shift) >> shift
}

func (c *cpu) get(r x86asm.Reg) (uint64, bool) {
	i, w, ok := index(r)
	if !ok || !c.known[i] {
		return 0, false
	}
	return cut(c.regs[i], w), true
}

func (c *cpu) set(r x86asm.Reg, v uint64) {
	i, w, ok := index(r)
	if !ok {
		return
	}
	switch w {
	case 8:
		c.regs[i], c.known[i] = v, true
	case 4: // a write of 32 bits clears the others
		c.regs[i], c.known[i] = cut(v, 4), true
	default:
		c.regs[i] = c.regs[i]&^0xffff | cut(v, 2)
	}
}

// forget makes a register unknown, byte registers included.
func (c *cpu) forget(r x86asm.Reg) {
	if i, _, ok := index(r); ok {
		c.known[i] = false
		return
	}
	c.known = [16]bool{}
}

// address is where a memory operand lies.
func (c *cpu) address(m x86asm.Mem, next virt.Addr) (virt.Addr, bool) {
	if m.Segment != 0 && m.Segment != x86asm.DS && m.Segment != x86asm.CS {
		return 0, false
	}
	a := uint64(m.Disp)
	if m.Disp>>32 == 0 { // the processor extends the sign; the decoder not always
		a = uint64(int64(int32(m.Disp)))
	}
	switch m.Base {
	case 0:
	case x86asm.RIP:
		a += uint64(next)
	default:
		v, ok := c.get(m.Base)
		if !ok {
			return 0, false
		}
		a += v
	}
	if m.Index != 0 {
		v, ok := c.get(m.Index)
		if !ok {
			return 0, false
		}
		a += v * uint64(m.Scale)
	}
	return virt.Addr(a), true
}

// value is an operand of width bytes, if it is known.
func (c *cpu) value(arg x86asm.Arg, width int, next virt.Addr, mem Reader) (uint64, bool) {
	switch v := arg.(type) {
	case x86asm.Imm:
		return cut(uint64(v), width), true
	case x86asm.Reg:
		return c.get(v)
	case x86asm.Mem:
		a, ok := c.address(v, next)
		if !ok || width < 1 || width > 8 {
			return 0, false
		}
		var b [8]byte
		if n, err := mem.ReadAt(b[:width], a); err != nil || n < width {
			return 0, false
		}
		var x uint64
		for i := width - 1; i >= 0; i-- {
			x = x<<8 | uint64(b[i])
		}
		return x, true
	}
	return 0, false
}

// step does what an instruction that goes nowhere does to registers and flags.
func (c *cpu) step(inst *x86asm.Inst, next virt.Addr, mem Reader) {
	width := 8
	dst, isReg := inst.Args[0].(x86asm.Reg)
	if isReg {
		if _, w, ok := index(dst); ok {
			width = w
		}
	} else if inst.MemBytes != 0 {
		width = min(inst.MemBytes, 8)
	}
	src, okSrc := c.value(inst.Args[1], width, next, mem)
	old, okOld := c.value(inst.Args[0], width, next, mem)
	put := func(v uint64, ok bool) {
		if !isReg {
			return
		}
		if ok {
			c.set(dst, cut(v, width))
		} else {
			c.forget(dst)
		}
	}
	switch inst.Op {
	case x86asm.NOP, x86asm.PUSH, x86asm.LFENCE:
	case x86asm.MOV:
		put(src, okSrc)
	case x86asm.MOVZX, x86asm.MOVSX, x86asm.MOVSXD:
		c.widen(inst, dst, isReg, next, mem)
	case x86asm.LEA:
		m, ok := inst.Args[1].(x86asm.Mem)
		a, known := c.address(m, next)
		put(uint64(a), ok && known)
	case x86asm.CMP, x86asm.TEST:
		c.compare(old, src, width, inst.Op == x86asm.TEST, okOld && okSrc)
	case x86asm.SUB:
		c.compare(old, src, width, false, okOld && okSrc)
		put(old-src, okOld && okSrc)
	case x86asm.AND:
		c.compare(old, src, width, true, okOld && okSrc)
		put(old&src, okOld && okSrc)
	case x86asm.XOR:
		same := isReg && inst.Args[0] == inst.Args[1]
		v := old ^ src
		if same {
			v = 0
		}
		c.compare(v, v, width, true, same || okOld && okSrc)
		put(v, same || okOld && okSrc)
	case x86asm.SBB: // of a register from itself: a mask of the carry flag
		below, known := c.condition(x86asm.JB)
		var v uint64
		if below {
			v = ^uint64(0)
		}
		put(v, known && isReg && inst.Args[0] == inst.Args[1])
		c.flagsKnown = false
	case x86asm.ADD:
		put(old+src, okOld && okSrc)
		c.flagsKnown = false
	case x86asm.SHL:
		put(old<<(src&63), okOld && okSrc)
		c.flagsKnown = false
	default: // changes what it may change
		if isReg {
			c.forget(dst)
		}
		c.flagsKnown = false
	}
}

func (c *cpu) widen(inst *x86asm.Inst, dst x86asm.Reg, isReg bool, next virt.Addr, mem Reader) {
	from := inst.MemBytes
	if r, ok := inst.Args[1].(x86asm.Reg); ok {
		_, from, _ = index(r)
	}
	v, ok := c.value(inst.Args[1], from, next, mem)
	if !isReg {
		return
	}
	if !ok || from == 0 || bits.OnesCount(uint(from)) != 1 {
		c.forget(dst)
		return
	}
	if inst.Op != x86asm.MOVZX {
		v = uint64(extend(v, from))
	}
	c.set(dst, v)
}

func (c *cpu) compare(a, b uint64, width int, test, known bool) {
	c.a, c.b, c.width, c.isTest, c.flagsKnown = cut(a, width), cut(b, width), width, test, known
}

// condition says whether a conditional jump is taken.
func (c *cpu) condition(op x86asm.Op) (taken, known bool) {
	if !c.flagsKnown {
		return false, false
	}
	a, b := c.a, c.b
	if c.isTest { // of a AND no carry and no overflow are left: as compared with 0
		a, b = a&b, 0
	}
	sa, sb := extend(a, c.width), extend(b, c.width)
	switch op {
	case x86asm.JE:
		return a == b, true
	case x86asm.JNE:
		return a != b, true
	case x86asm.JA:
		return a > b, true
	case x86asm.JAE:
		return a >= b, true
	case x86asm.JB:
		return a < b, true
	case x86asm.JBE:
		return a <= b, true
	case x86asm.JG:
		return sa > sb, true
	case x86asm.JGE:
		return sa >= sb, true
	case x86asm.JL:
		return sa < sb, true
	case x86asm.JLE:
		return sa <= sb, true
	case x86asm.JS:
		return extend(cut(a-b, c.width), c.width) < 0, true
	case x86asm.JNS:
		return extend(cut(a-b, c.width), c.width) >= 0, true
	}
	return false, false
}
