package network

import (
	"encoding/binary"
	"fmt"
)

// cbpfMax is how many instructions a classic BPF program can have (BPF_MAXINSNS).
const cbpfMax = 4096

// Classic BPF (include/uapi/linux/bpf_common.h, filter.h): the class, and for each
// class its size, mode, operation and source.
const (
	cbpfLD, cbpfLDX, cbpfST, cbpfSTX, cbpfALU, cbpfJMP, cbpfRET, cbpfMISC = 0, 1, 2, 3, 4, 5, 6, 7

	cbpfIMM, cbpfABS, cbpfIND, cbpfMEM, cbpfLEN, cbpfMSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xa0
	cbpfX, cbpfA                                         = 0x08, 0x10
)

// cbpfAncillary names the offsets from SKF_AD_OFF, which load what the packet does
// not hold.
var cbpfAncillary = [...]string{
	"proto", "type", "ifidx", "nla", "nlan", "mark", "queue", "hatype", "rxhash",
	"cpu", "alu_xor_x", "vlan_tci", "vlan_avail", "payload", "random", "vlan_tpid",
}

var cbpfALUNames = [...]string{"add", "sub", "mul", "div", "or", "and", "lsh", "rsh", "neg", "mod", "xor"}

// DisassembleClassic prints a classic BPF program, which is what SO_ATTACH_FILTER
// and seccomp take, as tcpdump -d does: a line for each instruction of eight bytes.
// Instructions that do not exist are shown as their numbers, bytes that are too few
// for one are left out.
func DisassembleClassic(code []byte) []string {
	var lines []string
	for i := 0; len(code) >= 8 && i < cbpfMax; i, code = i+1, code[8:] {
		op := binary.LittleEndian.Uint16(code)
		jt, jf, k := int(code[2]), int(code[3]), binary.LittleEndian.Uint32(code[4:])
		name, operand, jump := cbpfText(op, k)
		line := fmt.Sprintf("(%03d) %-8s", i, name)
		switch {
		case jump && op>>4&0xf == 0: // ja
			line += fmt.Sprintf(" %d", uint64(i)+1+uint64(k))
		case jump:
			line += fmt.Sprintf(" %-16s jt %d jf %d", operand, i+1+jt, i+1+jf)
		case operand != "":
			line += " " + operand
		default:
			line = line[:len(line)-8+len(name)]
		}
		lines = append(lines, line)
	}
	return lines
}

func cbpfText(op uint16, k uint32) (name, operand string, jump bool) {
	unknown := func() (string, string, bool) { return "unknown", fmt.Sprintf("%#x %#x", op, k), false }
	switch op & 7 {
	case cbpfLD, cbpfLDX:
		return cbpfLoad(op, k)
	case cbpfST:
		return "st", fmt.Sprintf("M[%d]", k), false
	case cbpfSTX:
		return "stx", fmt.Sprintf("M[%d]", k), false
	case cbpfALU:
		n := int(op >> 4 & 0xf)
		switch {
		case n >= len(cbpfALUNames):
			return unknown()
		case cbpfALUNames[n] == "neg":
			return "neg", "", false
		case op&cbpfX != 0:
			return cbpfALUNames[n], "x", false
		case n >= 4 && n <= 5 || n == 10:
			return cbpfALUNames[n], fmt.Sprintf("#%#x", k), false
		}
		return cbpfALUNames[n], fmt.Sprintf("#%d", k), false
	case cbpfJMP:
		names := [...]string{"ja", "jeq", "jgt", "jge", "jset"}
		n := int(op >> 4 & 0xf)
		switch {
		case n >= len(names):
			return unknown()
		case op&cbpfX != 0:
			return names[n], "x", true
		}
		return names[n], fmt.Sprintf("#%#x", k), true
	case cbpfRET:
		switch {
		case op&cbpfA != 0:
			return "ret", "a", false
		case op&cbpfX != 0:
			return "ret", "x", false
		}
		return "ret", fmt.Sprintf("#%d", k), false
	default:
		if op&0x80 != 0 {
			return "txa", "", false
		}
		return "tax", "", false
	}
}

func cbpfLoad(op uint16, k uint32) (name, operand string, jump bool) {
	const adOff = 0xffff_f000 // SKF_AD_OFF
	suffix := [...]string{"", "h", "b", ""}[op>>3&3]
	x := ""
	if op&7 == cbpfLDX {
		x = "x"
	}
	switch op & 0xe0 {
	case cbpfIMM:
		return "ld" + x, fmt.Sprintf("#%#x", k), false
	case cbpfLEN:
		return "ld" + x, "#pktlen", false
	case cbpfMEM:
		return "ld" + x, fmt.Sprintf("M[%d]", k), false
	case cbpfMSH:
		return "ldxb", fmt.Sprintf("4*([%d]&0xf)", k), false
	case cbpfABS:
		if k >= adOff && int(k-adOff) < 4*len(cbpfAncillary) && (k-adOff)%4 == 0 {
			return "ld" + suffix, "#" + cbpfAncillary[(k-adOff)/4], false
		}
		return "ld" + suffix, fmt.Sprintf("[%d]", k), false
	case cbpfIND:
		return "ld" + suffix, fmt.Sprintf("[x + %d]", k), false
	}
	return "unknown", fmt.Sprintf("%#x %#x", op, k), false
}
