package syscall

import (
	_ "embed" // the tables
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// The tables. A line of calls.txt is
//
//	NAME(ARG TYPE, ARG TYPE, …) = RESULT
//	NAME/ARG=VALUE,VALUE(…) = RESULT
//
// where the second form is for some values of an argument (ioctl's request). "= RESULT" is left out for a
// decimal number. NAME@32 is the call as it is in ia32, if that is not the same. Types are:
//
//	s8 u8 s16 u16 s32 u32 s64 u64 long ulong ptr, or an alias of these
//	u32.x u32.o u32.STYLE   in hexadecimal, in octal, in a way of styles.go
//	u32|SET u32=SET         bits, or one value, of sets.txt
//	char[N] TYPE[N]         in structures: text, and arrays
//	NAME                    a structure of structs.txt, or a blob of blobs.go
//
// and for arguments only:
//
//	<T >T >!T               pointer to T: read before, after; after, also if the call failed
//	<>T <=>T                read before and after, written as [1 => 2] and as [1] => [2]
//	<T[COUNT]               … to an array. COUNT: N, ARG, result, *ARG (the int to which ARG points)
//	path str strv envp      strings
//	<buf[COUNT] <iov[COUNT] a user's bytes, and vectors of them
//	@NAME                   everything by a function of custom.go
//	TYPE?ARG&BITS           an argument that exists only if ARG has one of BITS
//
// A structure of structs.txt is NAME: FIELD TYPE, …, laid out as C does. -FIELD is not shown, "..." stands
// for what is not. TYPE@N sets its offset.
//
// A set of sets.txt, or of sets_net.txt for sockets, is NAME UNKNOWN_??? NAME=VALUE NAME=VALUE/MASK …: what is shown for unknown bits, and
// names in the order in which they are written.
var (
	//go:embed calls.txt
	callsText string
	//go:embed structs.txt
	structsText string
	//go:embed sets.txt
	setsText string
	//go:embed sets_net.txt
	netSetsText string
	//go:embed numbers64.txt
	numbers64 string
	//go:embed numbers32.txt
	numbers32 string
)

// aliases are other names of number types.
var aliases = map[string]string{
	"int": "s32", "uint": "u32", "size": "ulong", "pid": "s32", "fd": "s32", "dfd": "s32.dfd",
	"uid": "u32.uid", "addr": "ptr", "loff": "s64", "off": "long", "hex": "ulong.x", "sig": "s32.sig",
	"umode": "u16.perm", "dev": "u32.dev", "time": "long", "clock": "u32=clocks",
}

type direction uint8

const (
	byValue direction = iota
	in
	out
	inOut
	inOutApart
	outAlways
)

// lines yields name and text of the lines of a table. A line that begins with a blank goes on.
func lines(text, sep string) (names []string, texts map[string]string) {
	texts = map[string]string{}
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			texts[last] += " " + strings.TrimSpace(line)
		default:
			name, rest, _ := strings.Cut(line, sep)
			last = name
			if _, ok := texts[name]; !ok {
				names = append(names, name)
			}
			texts[name] = rest
		}
	}
	return names, texts
}

// allSets are the sets, made when one is first used.
var allSets = sync.OnceValue(func() map[string]*set {
	_, texts := lines(setsText+netSetsText, " ")
	all := make(map[string]*set, len(texts))
	for name, text := range texts {
		all[name] = newSet(text)
	}
	return all
})

func setOf(name string) *set {
	s := allSets()[name]
	if s == nil {
		fail("sets.txt and sets_net.txt have no %s", name)
	}
	return s
}

func parseNumber(s string) uint64 {
	v, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		u, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			panic("trace/syscall: invalid number " + s)
		}
		return u
	}
	return uint64(v)
}

// parser makes calls of the tables, for one ABI. The tables are part of the program: a
// mistake there panics, and TestTables finds it.
type parser struct {
	abi     ABI
	structs map[string]string
	types   map[string]*typ
}

func newParser(abi ABI) *parser {
	_, s := lines(structsText, ":")
	return &parser{abi, s, map[string]*typ{}}
}

func fail(format string, args ...any) { panic("trace/syscall: " + fmt.Sprintf(format, args...)) }

// number makes a number type; nil: it is none.
func (p *parser) number(name string) *typ {
	t := &typ{}
	switch name {
	case "long":
		t.size, t.signed = uint32(p.abi.Width()), true
	case "ulong":
		t.size = uint32(p.abi.Width())
	case "ptr":
		t.size, t.kind = uint32(p.abi.Width()), kPointer
	case "s8", "s16", "s32", "s64", "u8", "u16", "u32", "u64":
		n, _ := strconv.Atoi(name[1:])
		t.size, t.signed = uint32(n/8), name[0] == 's'
	default:
		return nil
	}
	t.align = min(t.size, uint32(p.abi.Width())) // i386 aligns 64 bits to 4 bytes
	return t
}

// typ makes a type, or finds the one that was made before.
func (p *parser) typ(name string) *typ {
	if t := p.types[name]; t != nil {
		return t
	}
	t := p.newType(name)
	p.types[name] = t
	return t
}

func (p *parser) newType(name string) *typ {
	if elem, n, ok := strings.Cut(name, "["); ok {
		count := uint32(parseNumber(strings.TrimSuffix(n, "]")))
		if elem == "char" {
			return &typ{kind: kChars, size: count, align: 1}
		}
		e := p.typ(elem)
		return &typ{kind: kArray, size: count * e.size, align: e.align, elem: e, n: int(count)}
	}
	if a, ok := aliases[name]; ok {
		return p.typ(a)
	}
	if text, ok := p.structs[fmt.Sprintf("%s@%d", name, p.abi.Width()*8)]; ok {
		return p.structure(text)
	}
	if text, ok := p.structs[name]; ok {
		return p.structure(text)
	}
	if b, ok := blobs[name]; ok {
		if p.abi == ABI32 && b.size32 != 0 {
			b.size = b.size32
		}
		return &typ{kind: kBlob, size: max(b.size, 1), align: max(b.align, 1), blob: b.fn}
	}
	base, how := name, ""
	if i := strings.IndexAny(name, ".=|"); i > 0 {
		base, how = name[:i], name[i:]
	}
	if a, ok := aliases[base]; ok {
		base = a
	}
	t := p.number(base)
	if t == nil {
		fail("invalid type %q", name)
	}
	switch {
	case how == "":
	case how == ".x":
		t.kind = kHex
	case how == ".o":
		t.kind = kOctal
	case how[0] == '|':
		t.kind, t.set = kFlags, setOf(how[1:])
	case how[0] == '=':
		t.kind, t.set = kEnum, setOf(how[1:])
	default:
		t.kind, t.style = kStyle, styles[how[1:]]
		if t.style == nil {
			fail("type %q has no style", name)
		}
	}
	return t
}

// structure lays fields out.
func (p *parser) structure(text string) *typ {
	t := &typ{kind: kStruct, align: 1}
	for f := range strings.SplitSeq(text, ",") {
		name, ty, ok := strings.Cut(strings.TrimSpace(f), " ")
		if !ok {
			if name != "..." {
				fail("invalid member %q", f)
			}
			t.fields = append(t.fields, field{more: true})
			continue
		}
		ty, at, moved := strings.Cut(strings.TrimSpace(ty), "@")
		ft := p.typ(ty)
		t.size = (t.size + ft.align - 1) &^ (ft.align - 1)
		if moved {
			t.size = uint32(parseNumber(at))
		}
		if name[0] != '-' {
			t.fields = append(t.fields, field{name: name, t: ft, offset: t.size})
		}
		t.size += ft.size
		t.align = max(t.align, ft.align)
	}
	t.size = (t.size + t.align - 1) &^ (t.align - 1)
	return t
}
