package shell

import (
	"encoding/binary"
	"errors"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/image"
	"github.com/outsight-vmi/outsight/virt"
)

// bashList finds readline's list. history_list is a function that returns it,
// history_length says how long it is, history_base how it is numbered: in a bash that
// exports them, in the library that it is linked with, or, of one that is linked
// statically, in its machine code.
func (h *memory) bashList() (list virt.Addr, count, base int, how Source) {
	for _, find := range []struct {
		how Source
		of  func() (variables, error)
	}{{BySymbol, h.readlineSymbols}, {ByCode, h.readlineCode}} {
		v, err := find.of()
		if err == nil {
			list, count, base, err = h.readline(v)
		}
		if err == nil && list != 0 { // else it is looked for by its shape
			return list, count, base, find.how
		}
	}
	return 0, 0, 0, ""
}

// variables is where readline has what it knows of its list.
type variables struct{ list, length, base virt.Addr }

// readline reads the variables; list is 0 for a list that is empty or cannot be one.
func (h *memory) readline(v variables) (list virt.Addr, count, base int, err error) {
	if list, err = h.load(v.list); err != nil {
		return 0, 0, 0, err
	}
	n, err := h.space.U32(v.length)
	if err != nil {
		return 0, 0, 0, err
	}
	from, err := h.space.U32(v.base)
	if err != nil || n == 0 || n > maxHistory || int32(from) < 0 {
		return 0, 0, 0, err
	}
	return list, int(n), int(from), nil
}

// load reads the pointer at a.
func (h *memory) load(a virt.Addr) (virt.Addr, error) {
	if h.wordSize() == 4 {
		v, err := h.space.U32(a)
		return virt.Addr(v), err
	}
	v, err := h.space.U64(a)
	return virt.Addr(v), err
}

// exported is where the first of the images that exports a symbol has it, as the dynamic
// linker looks it up. The program comes first: one that is not position-independent has a
// copy of its library's variables.
func (h *memory) exported(name string) (a virt.Addr, err error) {
	err = image.ErrNoExports
	for _, i := range h.images {
		var d *image.Exports
		if d, err = image.ExportsOf(h.files, i.Start); err != nil {
			continue
		}
		if a, err = d.Symbol(name); err == nil {
			return a, nil
		}
	}
	return 0, err
}

func (h *memory) readlineSymbols() (v variables, err error) {
	code, err := h.exported("history_list")
	if err != nil {
		return v, err
	}
	var err1, err2 error
	v.length, err1 = h.exported("history_length")
	v.base, err2 = h.exported("history_base")
	if err := errors.Join(err1, err2); err != nil {
		return v, err
	}
	var b [24]byte
	if _, err := h.files.ReadAt(b[:], code); err != nil {
		return v, err
	}
	var ok bool
	if v.list, ok = h.returned(b[:], code); !ok {
		return v, image.ErrNoExports
	}
	return v, nil
}

// returned is the variable whose value a function at a returns, if that is all that its
// code does.
func (h *memory) returned(code []byte, a virt.Addr) (virt.Addr, bool) {
	switch h.abi {
	case linux.ABIIA32:
		return returnedVariable32(code, a, func(thunk virt.Addr) bool {
			var b [4]byte
			_, err := h.files.ReadAt(b[:], thunk)
			return err == nil && string(b[:]) == "\x8b\x04\x24\xc3" // mov (%esp), %eax; ret
		})
	case linux.ABIX32:
		return returnedVariable(code, a, "\x8b\x05")
	}
	return returnedVariable(code, a, "\x48\x8b\x05")
}

// returnedVariable is that of 64-bit code: mov variable(%rip), %rax; ret. mov is that
// instruction without the distance, which is of %eax where pointers have 32 bits.
func returnedVariable(code []byte, a virt.Addr, mov string) (virt.Addr, bool) {
	const endbr, ret, distance = "\xf3\x0f\x1e\xfa", 0xc3, 4
	if len(code) >= len(endbr) && string(code[:len(endbr)]) == endbr {
		code, a = code[len(endbr):], a+virt.Addr(len(endbr))
	}
	end := len(mov) + distance
	if len(code) <= end || string(code[:len(mov)]) != mov || code[end] != ret {
		return 0, false
	}
	return a + virt.Addr(end) + virt.Addr(int64(int32(binary.LittleEndian.Uint32(code[len(mov):])))), true
}

// returnedVariable32 is that of 32-bit code: mov variable, %eax; ret, or where code is
// position-independent call thunk; add $distance, %eax; mov distance(%eax), %eax; ret.
// isThunk says of the function that is called that it returns where it was called from.
func returnedVariable32(code []byte, a virt.Addr, isThunk func(virt.Addr) bool) (virt.Addr, bool) {
	const endbr, ret = "\xf3\x0f\x1e\xfb", 0xc3
	if len(code) >= len(endbr) && string(code[:len(endbr)]) == endbr {
		code, a = code[len(endbr):], a+virt.Addr(len(endbr))
	}
	word := func(off int) uint32 { return binary.LittleEndian.Uint32(code[off:]) }
	switch {
	case len(code) >= 6 && code[0] == 0xa1 && code[5] == ret:
		return virt.Addr(word(1)), true
	case len(code) >= 17 && code[0] == 0xe8 && code[5] == 0x05 && string(code[10:12]) == "\x8b\x80" && code[16] == ret:
		next := uint32(a) + 5
		if !isThunk(virt.Addr(next + word(1))) {
			return 0, false
		}
		return virt.Addr(next + word(6) + word(12)), true
	}
	return 0, false
}

// maxShellCode bounds the code of a shell that is searched: bash has about 1 MiB.
const maxShellCode = 8 << 20

// readlineCode finds the variables by the code of history_get, which subtracts
// history_base from its argument, compares that with history_length and then takes the
// list: sub base, %r; cmp %r, length; jle; test %r, %r; js; mov list, %q.
func (h *memory) readlineCode() (v variables, err error) {
	if len(h.images) == 0 {
		return v, image.ErrNoExports
	}
	program := h.images[0]
	const chunk, overlap = 1 << 16, 64
	b := make([]byte, chunk+overlap)
	for at := program.Start; at < min(program.End, program.Start+maxShellCode); at += chunk {
		n, err := h.files.ReadAt(b[:min(len(b), int(program.End-at))], at)
		if err != nil && n == 0 {
			continue // between two mappings, or not in memory
		}
		if v, ok := historyGet(b[:n], at, h.abi); ok {
			if list, count, _, err := h.readline(v); err == nil && count > 0 {
				if first, err := h.load(list); err == nil && h.bashEntry(first) != nil {
					return v, nil
				}
			}
		}
	}
	return v, image.ErrNoExports
}

// historyGet looks for the code of history_get in code that lies at a.
func historyGet(code []byte, a virt.Addr, abi linux.ABI) (v variables, ok bool) {
	const sub, cmp, longest = 0x2b, 0x39, 32
	for off := 0; off+longest <= len(code); off++ {
		if code[off] != sub {
			continue
		}
		base, ok1 := codeOperand(code, off+1, a, abi)
		if !ok1 || code[base.end] != cmp {
			continue
		}
		length, ok2 := codeOperand(code, base.end+1, a, abi)
		if !ok2 || length.reg != base.reg {
			continue
		}
		// jle, test, js: two bytes each.
		at := length.end + 6
		if string(code[length.end:length.end+1]) != "\x7e" || code[at-2] != 0x78 || code[at-4] != 0x85 {
			continue
		}
		if abi.WordSize() == 8 {
			at++ // REX.W
		}
		if list, ok3 := codeOperand(code, at+1, a, abi); ok3 && code[at] == 0x8b {
			return variables{list: list.at, length: length.at, base: base.at}, true
		}
	}
	return v, false
}

// operand is a register and a variable in memory that an instruction takes.
type operand struct {
	reg byte
	at  virt.Addr
	end int // of the instruction, in its code
}

// codeOperand decodes the ModRM byte at off and what follows: a variable by its distance
// from the instruction pointer, by its address, or where 32-bit code is position-independent by
// the distance from a register.
func codeOperand(code []byte, off int, a virt.Addr, abi linux.ABI) (o operand, ok bool) {
	if off+5 > len(code) {
		return o, false
	}
	modrm, value := code[off], binary.LittleEndian.Uint32(code[off+1:])
	o.reg, o.end = modrm>>3&7, off+5
	mod, rm := modrm>>6, modrm&7
	const near, far, inMemory, sib = 0, 2, 5, 4
	switch {
	case mod == near && rm == inMemory && abi == linux.ABIIA32:
		o.at = virt.Addr(value)
	case mod == near && rm == inMemory:
		o.at = a + virt.Addr(o.end) + virt.Addr(int64(int32(value)))
	case mod == far && rm != sib && abi == linux.ABIIA32:
		got, ok := globalOffsets(code, off, a, rm)
		if !ok {
			return o, false
		}
		o.at = virt.Addr(got + value)
	default:
		return o, false
	}
	return o, true
}

// globalOffsets is what position-independent 32-bit code before off put into a register:
// call thunk; add $distance, %r.
func globalOffsets(code []byte, off int, a virt.Addr, reg byte) (v uint32, ok bool) {
	const call, furthest = 0xe8, 64
	for at := off - 6; at >= 5 && at > off-furthest; at-- {
		imm, size := 0, 0
		switch {
		case code[at] == 0x81 && code[at+1] == 0xc0|reg:
			imm, size = at+2, 6
		case code[at] == 0x05 && reg == 0:
			imm, size = at+1, 5
		}
		if size != 0 && code[at-5] == call && at+size <= off {
			return uint32(a) + uint32(at) + binary.LittleEndian.Uint32(code[imm:]), true
		}
	}
	return 0, false
}
