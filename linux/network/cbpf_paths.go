package network

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// ClassicBase says where the offset of a load counts from.
type ClassicBase string

// The bases.
const (
	FromStart      ClassicBase = ""          // of what the socket sees of the packet
	BehindIP       ClassicBase = "ip"        // behind an IPv4 header of variable length
	BehindTCP      ClassicBase = "tcp"       // behind that and another header of variable length
	FromSomewhere  ClassicBase = "somewhere" // from an offset that the packet holds otherwise
	NotOfThePacket ClassicBase = "ancillary" // Offset is from SKF_AD_OFF
	PacketLength   ClassicBase = "length"    // the value is the length of the packet
)

// ClassicLoad is a value that a classic BPF program takes of a packet.
type ClassicLoad struct {
	Base ClassicBase
	// IP is where the IPv4 header lies whose length counts, with the bases that are behind one.
	IP     uint32
	Offset uint32 // without the lengths of those headers, which come on top
	Size   uint32 // in bytes: 1, 2 or 4
	Mask   uint32 // the bits of it that count
}

func (l ClassicLoad) String() string {
	var s string
	switch l.Base {
	case FromStart:
		s = fmt.Sprintf("[%d:%d]", l.Offset, l.Size)
	case BehindIP:
		s = fmt.Sprintf("[iphdr + %d:%d]", l.Offset, l.Size)
	case BehindTCP:
		s = fmt.Sprintf("[iphdr + tcphdr + %d:%d]", l.Offset, l.Size)
	case NotOfThePacket:
		s = "#" + cbpfAncillary[l.Offset/4%uint32(len(cbpfAncillary))]
	case PacketLength:
		s = "#pktlen"
	default:
		s = fmt.Sprintf("[? + %d:%d]", l.Offset, l.Size)
	}
	if l.Mask != ^uint32(0) {
		s += fmt.Sprintf("&%#x", l.Mask)
	}
	return s
}

// ClassicDemand is one comparison with a constant that a packet has to pass.
type ClassicDemand struct {
	ClassicLoad
	Op    string // "==", "!=", ">", "<=", ">=", "<", "&" (some of these bits), "!&" (none of them)
	Value uint32
}

func (d ClassicDemand) String() string { return fmt.Sprintf("%s %s %#x", d.ClassicLoad, d.Op, d.Value) }

// ClassicPath is what a packet must be like to be let through in one way.
type ClassicPath []ClassicDemand

// Equal is the value that a path demands of what is loaded, by one comparison or by two that
// leave no other; ok is false if it leaves several.
func (p ClassicPath) Equal(l ClassicLoad) (v uint32, ok bool) {
	low, high := uint32(0), ^uint32(0)
	for _, d := range p {
		if d.ClassicLoad != l {
			continue
		}
		switch {
		case d.Op == "==":
			return d.Value, true
		case d.Op == ">=":
			low = max(low, d.Value)
		case d.Op == ">" && d.Value < ^uint32(0):
			low = max(low, d.Value+1)
		case d.Op == "<=":
			high = min(high, d.Value)
		case d.Op == "<" && d.Value > 0:
			high = min(high, d.Value-1)
		}
	}
	return low, low == high
}

const (
	maxClassicPaths = 1 << 10 // that are kept
	maxClassicSteps = 1 << 18
	maxDemands      = 256 // of one path
	classicMemory   = 16  // BPF_MEMWORDS
)

// ClassicPaths follows a classic BPF program (see [DisassembleClassic]) in all ways that let a
// packet through, each with what it demands of the packet. Comparisons of what it does not
// understand demand nothing. It reports whether these are all ways.
func ClassicPaths(code []byte) (paths []ClassicPath, whole bool) {
	w := classicWalk{code: code[:min(len(code)/8, cbpfMax)*8], steps: maxClassicSteps, whole: true}
	w.walk(0, classicState{}, nil)
	return w.paths, w.whole
}

// classicValue is what a register holds.
type classicValue struct {
	kind classicKind
	load ClassicLoad // of a load
	// n is a constant; of a header's length what was added to it. Of a load it was added
	// (or, if xored, put in by xor) before it is compared.
	n     uint32
	xored bool
}

type classicKind uint8

const (
	classicUnknown classicKind = iota
	classicConstant
	classicOfLoad
	classicHeader // the length of the IPv4 header at load.IP, or with Base BehindTCP that and another's
)

type classicState struct {
	a, x classicValue
	mem  [classicMemory]classicValue
}

type classicWalk struct {
	code  []byte
	steps int
	paths []ClassicPath
	whole bool
}

// walk follows the program from instruction pc on. Jumps lead forward only.
func (w *classicWalk) walk(pc int, s classicState, path ClassicPath) {
	for ; ; pc++ {
		if w.steps--; w.steps < 0 || len(w.paths) >= maxClassicPaths || len(path) > maxDemands {
			w.whole = false
			return
		}
		if pc >= len(w.code)/8 {
			return // the kernel takes no such program
		}
		i := w.code[8*pc:]
		op, k := binary.LittleEndian.Uint16(i), binary.LittleEndian.Uint32(i[4:])
		switch op & 7 {
		case cbpfRET:
			if op&cbpfA == 0 && k == 0 {
				return
			}
			w.paths = append(w.paths, slices.Clone(path))
			return
		case cbpfJMP:
			if op>>4&0xf == 0 {
				pc += int(min(k, cbpfMax))
				continue
			}
			w.branch(pc, op, k, s, path)
			return
		default:
			s.step(op, k)
		}
	}
}

// branch follows both ways of a comparison, as far as they do not contradict the path.
func (w *classicWalk) branch(pc int, op uint16, k uint32, s classicState, path ClassicPath) {
	i := w.code[8*pc:]
	yes, no := pc+1+int(i[2]), pc+1+int(i[3])
	if op&cbpfX != 0 {
		if s.x.kind != classicConstant {
			if w.walk(yes, s, path); yes != no {
				w.walk(no, s, path)
			}
			return
		}
		k = s.x.n
	}
	d, ok := s.a.compared(op>>4&0xf, k)
	if !ok || yes == no {
		if w.walk(yes, s, path); yes != no {
			w.walk(no, s, path)
		}
		return
	}
	not := d
	not.Op = map[string]string{"==": "!=", ">": "<=", ">=": "<", "&": "!&"}[d.Op]
	for _, way := range []struct {
		to int
		d  ClassicDemand
	}{{yes, d}, {no, not}} {
		if !path.contradicts(way.d) {
			w.walk(way.to, s, append(path[:len(path):len(path)], way.d))
		}
	}
}

// contradicts reports whether no packet can pass the path and d.
func (p ClassicPath) contradicts(d ClassicDemand) bool {
	for _, known := range p {
		if known.ClassicLoad != d.ClassicLoad || known.Op != "==" {
			continue
		}
		if d.Op == "==" && known.Value != d.Value || d.Op == "!=" && known.Value == d.Value {
			return true
		}
	}
	return false
}

// compared is the demand that the value passes a comparison.
func (v classicValue) compared(op uint16, k uint32) (d ClassicDemand, ok bool) {
	names := [...]string{1: "==", 2: ">", 3: ">=", 4: "&"}
	if v.kind != classicOfLoad || int(op) >= len(names) {
		return d, false
	}
	d = ClassicDemand{v.load, names[op], k}
	switch {
	case v.n == 0:
	case d.Op != "==":
		return d, false // of a sum that may have gone round
	case v.xored:
		d.Value ^= v.n
	default:
		d.Value -= v.n
	}
	return d, true
}

// step does an instruction that neither jumps nor returns.
func (s *classicState) step(op uint16, k uint32) {
	switch op & 7 {
	case cbpfLD:
		s.a = s.load(op, k)
	case cbpfLDX:
		s.x = s.load(op, k)
	case cbpfST:
		s.mem[k%classicMemory] = s.a
	case cbpfSTX:
		s.mem[k%classicMemory] = s.x
	case cbpfALU:
		operand := classicValue{kind: classicConstant, n: k}
		if op&cbpfX != 0 {
			operand = s.x
		}
		s.a = s.a.with(op>>4&0xf, operand)
	case cbpfMISC:
		if op&0x80 != 0 {
			s.a = s.x
		} else {
			s.x = s.a
		}
	}
}

func (s *classicState) load(op uint16, k uint32) classicValue {
	const adOff = 0xffff_f000 // SKF_AD_OFF
	l := ClassicLoad{Offset: k, Size: [...]uint32{4, 2, 1, 4}[op>>3&3], Mask: ^uint32(0)}
	switch op & 0xe0 {
	case cbpfIMM:
		return classicValue{kind: classicConstant, n: k}
	case cbpfMEM:
		return s.mem[k%classicMemory]
	case cbpfLEN:
		l.Base, l.Offset, l.Size = PacketLength, 0, 4
	case cbpfMSH:
		return classicValue{kind: classicHeader, load: ClassicLoad{Base: BehindIP, IP: k}}
	case cbpfABS:
		if k >= adOff {
			l.Base, l.Offset = NotOfThePacket, k-adOff
		}
	case cbpfIND:
		switch s.x.kind {
		case classicConstant:
			l.Offset += s.x.n
		case classicHeader:
			l.Base, l.IP, l.Offset = s.x.load.Base, s.x.load.IP, k+s.x.n
		default:
			l.Base = FromSomewhere
		}
	default:
		return classicValue{}
	}
	return classicValue{kind: classicOfLoad, load: l}
}

// with does an arithmetic operation, as far as what comes of it is of use.
func (v classicValue) with(op uint16, by classicValue) classicValue {
	const add, sub, and, xor = 0, 1, 5, 10
	switch {
	case op == add && v.kind == classicHeader && by.kind == classicConstant:
		v.n += by.n
		return v
	case op == add && by.kind == classicHeader && v.kind == classicConstant:
		by.n += v.n
		return by
	case op == add && by.kind == classicHeader && v.kind != classicHeader:
		by.load.Base = BehindTCP // what is added is taken for the length of the next header
		return by
	case op == add && v.kind == classicHeader && by.kind != classicHeader:
		v.load.Base = BehindTCP
		return v
	case v.kind == classicConstant && by.kind == classicConstant:
		switch op {
		case add:
			v.n += by.n
			return v
		case sub:
			v.n -= by.n
			return v
		case and:
			v.n &= by.n
			return v
		case xor:
			v.n ^= by.n
			return v
		}
	case v.kind == classicOfLoad && by.kind == classicConstant:
		switch {
		case op == and && v.n == 0:
			v.load.Mask &= by.n
			return v
		case op == add && !v.xored:
			v.n += by.n
			return v
		case op == sub && !v.xored:
			v.n -= by.n
			return v
		case op == xor && (v.xored || v.n == 0):
			v.n, v.xored = v.n^by.n, true
			return v
		}
	}
	return classicValue{}
}
