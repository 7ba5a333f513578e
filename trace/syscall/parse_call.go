package syscall

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

var tables = [...]func() []*Call{
	sync.OnceValue(func() []*Call { return makeTable(ABI64, numbers64) }),
	sync.OnceValue(func() []*Call { return makeTable(ABI32, numbers32) }),
}

// Table is all system calls of an ABI, by number; nil where there is none. It is not to be
// changed.
func Table(abi ABI) []*Call {
	if int(abi) >= len(tables) {
		return nil
	}
	return tables[abi]()
}

// makeTable reads lines of NUMBER NAME, or NUMBER NAME LIKE where the call is described by another name.
func makeTable(abi ABI, numbers string) []*Call {
	p := newParser(abi)
	_, texts := lines(callsText, "(")
	variants := map[string][]string{} // by name
	names, _ := lines(callsText, "(")
	for _, n := range names {
		if name, _, ok := strings.Cut(n, "/"); ok {
			variants[name] = append(variants[name], n)
		}
	}
	var table []*Call
	for line := range strings.Lines(numbers) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		like := f[len(f)-1]
		nr := int(parseNumber(f[0]))
		text, ok := texts[fmt.Sprintf("%s@%d", like, abi.Width()*8)]
		if !ok {
			text, ok = texts[like]
		}
		c := &Call{Name: f[1], Number: nr, ABI: abi, selector: -1}
		if ok {
			p.call(c, text)
			if c.Name == "socketcall" {
				p.throughMemory(c, texts)
			}
			for _, v := range variants[like] {
				p.variant(c, v, texts[v])
			}
		} else {
			c.Args = unknownArgs(p)
		}
		for len(table) <= nr {
			table = append(table, nil)
		}
		table[nr] = c
	}
	return table
}

// unknownArgs are the arguments of a call of which only the name is known, as strace has
// them.
func unknownArgs(p *parser) []Arg {
	args := make([]Arg, 6)
	for i := range args {
		args[i] = Arg{Name: fmt.Sprintf("arg%d", i), Type: "unsigned long", t: p.typ("ulong.x")}
	}
	return args
}

func (p *parser) call(c *Call, text string) {
	text, result, _ := strings.Cut(text, ") = ")
	c.result = resultStyles(strings.TrimSpace(result))
	c.NoReturn = c.result == resultNever
	c.Args = p.args(c, strings.TrimSuffix(text, ")"), nil)
}

// variant adds what NAME/ARG=VALUES says.
func (p *parser) variant(c *Call, head, text string) {
	_, when, _ := strings.Cut(head, "/")
	name, list, ok := strings.Cut(when, "=")
	name, bits, masked := strings.Cut(name, "&")
	mask := uint64(0xffffffff)
	if masked {
		mask = parseNumber(bits)
	}
	selector := slices.IndexFunc(c.Args, func(a Arg) bool { return a.Name == name })
	if !ok || selector < 0 || c.selector >= 0 && (c.selector != selector || c.mask != mask) {
		fail("invalid variant %q", head)
	}
	c.selector, c.mask = selector, mask
	cond := &Condition{Arg: selector, Mask: mask}
	for v := range strings.SplitSeq(list, ",") {
		value, named := uint64(0), false
		if t := c.Args[selector].t; t.set != nil {
			value, named = t.set.value(v)
		}
		if !named {
			value = parseNumber(v)
		}
		cond.Values = append(cond.Values, value&cond.Mask)
	}
	text, result, _ := strings.Cut(text, ") = ")
	w := &variant{result: resultStyles(strings.TrimSpace(result))}
	w.args = p.args(c, strings.TrimSuffix(text, ")"), cond)
	if c.variants == nil {
		c.variants = map[uint64]*variant{}
	}
	for _, v := range cond.Values {
		if c.variants[v] != nil {
			fail("%s: two variants for %#x", head, v)
		}
		c.variants[v] = w
	}
}

// args reads a list of arguments, and adds the pieces that they need to c.
func (p *parser) args(c *Call, text string, cond *Condition) []Arg {
	var args []Arg
	if text == "" {
		return args
	}
	list := strings.Split(text, ", ")
	names := make([]string, len(list))
	for i, s := range list {
		names[i], _, _ = strings.Cut(s, " ") // with the - of what is not shown
	}
	for i, s := range list {
		_, ty, _ := strings.Cut(s, " ")
		args = append(args, p.arg(c, names, i, strings.TrimSpace(ty), cond))
	}
	if len(args) > 6 {
		fail("%s: too many arguments", c.Name)
	}
	return args
}

func (p *parser) arg(c *Call, names []string, i int, ty string, cond *Condition) Arg {
	a := Arg{Name: strings.TrimPrefix(names[i], "-"), Type: ty, tag: -1, hidden: names[i][0] == '-'}
	if t, only, ok := strings.Cut(ty, "?"); ok {
		name, bits, _ := strings.Cut(only, "&")
		a.onlyArg, a.only = int8(p.index(names, name)), parseNumber(bits)
		ty = t
	}
	if name, ok := strings.CutPrefix(ty, "@"); ok {
		k, ok := customs[name]
		if !ok {
			fail("%s: no function %q", c.Name, name)
		}
		a.fn = k.fn
		if k.pieces != nil {
			for n, piece := range k.pieces(p.abi, i) {
				tag := c.addPiece(piece, cond, k.fresh || n > 0)
				if n == 0 {
					a.tag = tag
				}
			}
		}
		if k.stack != nil {
			a.tag, a.frame = len(c.Pieces), true
			c.Stack = k.stack(p.abi)
		}
		if k.typ != "" {
			a.t = p.typ(k.typ)
		}
		return a
	}
	a.dir, ty = directionOf(ty)
	base := ty
	if a.dir != byValue {
		if b, count, ok := strings.Cut(ty, "["); ok && !strings.HasPrefix(ty, "char[") {
			base, a.array = b, true
			a.count = p.countOf(names, strings.TrimSuffix(count, "]"))
		}
	}
	p.pointer(c, &a, i, base, cond)
	return a
}

func (p *parser) index(names []string, name string) int {
	i := slices.Index(names, name)
	if i < 0 {
		fail("no argument %q", name)
	}
	return i
}

func directionOf(ty string) (direction, string) {
	for _, d := range []struct {
		prefix string
		dir    direction
	}{{"<=>", inOutApart}, {"<>", inOut}, {"<", in}, {">!", outAlways}, {">", out}} {
		if t, ok := strings.CutPrefix(ty, d.prefix); ok {
			return d.dir, t
		}
	}
	return byValue, ty
}

func (p *parser) countOf(names []string, s string) Count {
	switch {
	case s == "result":
		return Count{From: Result}
	case s[0] == '*':
		return Count{From: Pointed, N: uint32(p.index(names, s[1:]))}
	case s[0] >= '0' && s[0] <= '9':
		return Count{From: Fixed, N: uint32(parseNumber(s))}
	}
	return Count{From: Argument, N: uint32(p.index(names, s))}
}

// pointer gives an argument its type, its function if it is text, and its pieces.
func (p *parser) pointer(c *Call, a *Arg, i int, base string, cond *Condition) {
	piece := Piece{Arg: i, Count: a.count, Always: a.dir == outAlways}
	if a.dir == out || a.dir == outAlways {
		piece.When = Return
	}
	switch base {
	case "path":
		piece.Shape, piece.Limit, a.fn = String, maxPath, argPath
	case "str":
		piece.Shape, piece.Limit, piece.Data, a.fn = String, maxData, true, argString
	case "strv":
		piece.Shape, piece.Limit, piece.Data, piece.Most, a.fn = Strings, maxData, true, maxElements, argStrings
	case "envp":
		piece.Size, piece.Count, piece.Limit, a.fn = uint32(p.abi.Width()), Count{From: Fixed, N: 512}, uint32(512*p.abi.Width()), argEnv
	case "buf":
		piece.Size, piece.Limit, piece.Data, a.fn = 1, maxData, true, argBuffer
	case "hexbuf":
		piece.Size, piece.Limit, piece.Data, a.fn = 1, maxData, true, argHexBuffer
	case "xbuf": // of which a zero at the end is not shown
		piece.Size, piece.Limit, piece.Data, a.fn = 1, maxData, true, argValue
	case "lbuf": // that is not there if there was no room
		piece.Size, piece.Limit, piece.Data, a.fn = 1, maxData, true, argList
	case "cstr": // bytes that end with the zero, or at the count
		piece.Size, piece.Limit, piece.Data, a.fn = 1, maxData, true, argCString
	default:
		a.t = p.typ(base)
		if a.dir == byValue {
			return
		}
		piece.Size = a.t.size
		if !a.array {
			piece.Count = Count{From: Fixed, N: 1}
		}
		piece.Limit = min(max(a.t.size, 4096), a.t.size*maxElements)
		if b, ok := blobs[base]; ok && b.size == 0 {
			piece.Limit = b.limit
		}
		if piece.Count.From == Fixed {
			piece.Limit = piece.Size * piece.Count.N
		}
	}
	if a.dir == inOut || a.dir == inOutApart {
		a.tag = c.addPiece(piece, cond, true)
		piece.When = Return
		c.addPiece(piece, cond, true)
		return
	}
	a.tag = c.addPiece(piece, cond, false)
}

// addPiece adds a piece, or the condition to one that is the same. fresh asks for one of its own, so that
// tags follow each other.
func (c *Call) addPiece(piece Piece, cond *Condition, fresh bool) int {
	for n := range c.Pieces {
		q := &c.Pieces[n]
		if fresh || cond == nil || q.If == nil || q.If.Arg != cond.Arg || !samePiece(*q, piece) {
			continue
		}
		merged := *q.If
		merged.Values = append(slices.Clone(merged.Values), cond.Values...)
		q.If = &merged
		return n
	}
	if cond != nil {
		own := *cond
		piece.If = &own
	}
	c.Pieces = append(c.Pieces, piece)
	if len(c.Pieces) > 255 {
		fail("%s: too many pieces", c.Name)
	}
	return len(c.Pieces) - 1
}

func samePiece(a, b Piece) bool {
	return a.Arg == b.Arg && a.When == b.When && a.Always == b.Always && a.Add == b.Add && a.Shape == b.Shape &&
		a.Size == b.Size && a.Count == b.Count && a.Limit == b.Limit && a.Data == b.Data && len(a.Deref) == 0 && len(b.Deref) == 0
}
