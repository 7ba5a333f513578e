package tcg

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/linux/peek"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/virt"
)

// userProbe is a probe of the user's.
type userProbe struct {
	text  string
	name  string // what its events are called
	at    []virt.Addr
	file  *fileProbe // of a program or library; nil: of the kernel
	args  []probeArg
	write [2]uint64 // address and length that is watched; length 0: none
}

// probeArg is a value that a probe fetches.
type probeArg struct {
	label    string
	register string   // that has its first value
	steps    []uint64 // offsets of pointers to load: each from the address so far
	offset   uint64   // behind the last one
	memory   bool     // the value lies there; else it is the register's
	text     bool     // a string lies there
	size     uint8    // of the number, in bytes
	signed   bool
	hex      bool
	shift    uint8 // of a bit field, and its width; 0: none
	width    uint8
}

// parameters are the registers of a function's parameters.
var parameters = [6]string{"rdi", "rsi", "rdx", "rcx", "r8", "r9"}

// parseProbe reads "FUNCTION[+OFFSET|%return] [LABEL=]ARG …", with PATH:FUNCTION for one of a file.
func parseProbe(l *guest.Look, text string) (*userProbe, error) {
	p, err := parseProbeText(l, text)
	if err != nil {
		return nil, fmt.Errorf("probe %q: %w", text, err)
	}
	return p, nil
}

func parseProbeText(l *guest.Look, text string) (*userProbe, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return nil, fmt.Errorf("a function is missing")
	}
	if words[0][0] == '/' {
		return parseFileProbe(text, words)
	}
	function, back := strings.CutSuffix(words[0], "%return")
	p := &userProbe{text: text, name: words[0]}
	s := l.Linux
	if back {
		owners, err := s.Owners()
		if err != nil {
			return nil, err
		}
		if p.at = returnsOf(s, owners, function); len(p.at) == 0 {
			return nil, fmt.Errorf("%s: no function of the kernel, or it returns nowhere", function)
		}
	} else {
		a, err := peek.Kernel(s).Resolve(function)
		if err != nil {
			return nil, err
		}
		p.at = []virt.Addr{virt.Addr(a)}
	}
	spec, err := s.Types()
	if err != nil {
		return nil, err
	}
	base, _, moved := strings.Cut(function, "+")
	e := expression{spec: spec, back: back}
	if !moved && !back {
		e.params = spec.Params(spec.Declared(base))
	}
	return p, p.parseArgs(&e, words[1:])
}

// parseArgs reads the arguments of a probe.
func (u *userProbe) parseArgs(e *expression, words []string) error {
	for _, w := range words {
		a, err := e.parse(w)
		if err != nil {
			return fmt.Errorf("%s: %w", w, err)
		}
		u.args = append(u.args, a)
	}
	if len(u.args) > 24 {
		return fmt.Errorf("%d arguments are more than 24", len(u.args))
	}
	return nil
}

// expression reads arguments of a probe: PARAMETER, %REGISTER or $retval, with members behind, and a
// type.
type expression struct {
	spec   *btf.Spec
	params []btf.Member
	back   bool
}

func (e *expression) parse(text string) (a probeArg, err error) {
	a.label = text
	if label, rest, ok := strings.Cut(text, "="); ok {
		a.label, text = label, rest
	}
	text, form, formed := strings.Cut(text, ":")
	if dereferences(text) {
		if err := e.dereference(&a, text, 0); err != nil || !formed {
			return a, err
		}
		return a, e.form(&a, 0, form)
	}
	end := strings.IndexAny(text, ".-")
	base, path := text, ""
	if end >= 0 {
		base, path = text[:end], text[end:]
	}
	id, err := e.base(&a, base)
	if err != nil {
		return a, err
	}
	for path != "" {
		pointer := strings.HasPrefix(path, "->")
		path = strings.TrimPrefix(strings.TrimPrefix(path, "->"), ".")
		member := path
		if end := strings.IndexAny(path, ".-"); end >= 0 {
			member, path = path[:end], path[end:]
		} else {
			path = ""
		}
		if id, err = e.member(&a, id, member, pointer); err != nil {
			return a, err
		}
	}
	if formed {
		return a, e.form(&a, id, form)
	}
	return a, e.natural(&a, id)
}

func (e *expression) base(a *probeArg, name string) (btf.TypeID, error) {
	if ok, err := e.machine(a, name); ok || err != nil {
		return 0, err
	}
	var names []string
	for i, p := range e.params {
		if i < len(parameters) && p.Name == name {
			a.register = parameters[i]
			return p.Type, nil
		}
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		return 0, fmt.Errorf("no parameter is known here by name: use a register, such as %%rdi")
	}
	return 0, fmt.Errorf("no parameter %s; there are %s", name, strings.Join(names, ", "))
}

// member goes on to a member, and through a pointer if there is one.
func (e *expression) member(a *probeArg, id btf.TypeID, name string, pointer bool) (btf.TypeID, error) {
	if id == 0 {
		return 0, fmt.Errorf("what has member %s has no type", name)
	}
	_, t, ok := e.spec.Strip(id)
	if !ok {
		return 0, fmt.Errorf("what has member %s has no type", name)
	}
	if pointer != (t.Kind() == btf.KindPtr) {
		return 0, fmt.Errorf("member %s: write -> behind a pointer, and . behind a structure", name)
	}
	if pointer {
		if a.memory { // the pointer lies in memory itself
			a.steps = append(a.steps, a.offset)
		}
		a.memory, a.offset = true, 0
		if _, t, ok = e.spec.Strip(t.Ref()); !ok {
			return 0, fmt.Errorf("member %s: its structure has no type", name)
		}
	}
	f, ok := e.spec.FieldOf(t, name)
	if !ok {
		return 0, fmt.Errorf("member %s: %w", name, btf.ErrNotFound)
	}
	a.offset += uint64(f.Offset)
	a.shift, a.width = f.BitOff, f.BitSize
	return f.Type, nil
}

// natural shows a value as its type says.
func (e *expression) natural(a *probeArg, id btf.TypeID) error {
	if id == 0 {
		return nil
	}
	resolved, t, ok := e.spec.Strip(id)
	size, known := e.spec.Sizeof(id)
	switch {
	case !ok:
		return fmt.Errorf("its type is not known")
	case t.Kind() == btf.KindArray:
		if element, ok := e.spec.Element(resolved); ok && e.isChar(element) {
			a.text = true
			return nil
		}
		return fmt.Errorf("it is an array: show it with a type, such as :x64")
	case t.Kind() == btf.KindStruct || t.Kind() == btf.KindUnion:
		return fmt.Errorf("it is a structure: name a member")
	case !known || size == 0 || size > 8:
		return fmt.Errorf("it has %d bytes: show it with a type, such as :x64", size)
	}
	a.size = uint8(size)
	a.hex = t.Kind() == btf.KindPtr
	a.signed = t.IntEncoding()&btf.IntSigned != 0
	if a.width > 0 { // a bit field is fetched with what lies around it
		a.size, a.signed = 8, false
	}
	return nil
}

func (e *expression) isChar(id btf.TypeID) bool {
	size, ok := e.spec.Sizeof(id)
	_, t, is := e.spec.Strip(id)
	return ok && is && size == 1 && t.Kind() == btf.KindInt
}

// form shows a value as the user says: s32, u64, x8, string.
func (e *expression) form(a *probeArg, id btf.TypeID, form string) error {
	if form == "string" {
		if a.memory && id != 0 {
			if _, t, _ := e.spec.Strip(id); t.Kind() == btf.KindPtr { // the pointer to it lies in memory
				a.steps, a.offset = append(a.steps, a.offset), 0
			}
		}
		a.memory, a.text = true, true
		return nil
	}
	bits, err := strconv.Atoi(strings.TrimLeft(form, "sux"))
	if err != nil || len(form) < 2 || !strings.Contains("sux", form[:1]) || bits != 8 && bits != 16 && bits != 32 && bits != 64 {
		return fmt.Errorf("unknown type %q: s, u or x with 8, 16, 32 or 64, or string", form)
	}
	a.size, a.signed, a.hex, a.width = uint8(bits/8), form[0] == 's', form[0] == 'x', 0
	return nil
}

// idProbe is the mark of the first probe of the user's.
const idProbe = 1000

// probe writes the program of a probe of the user's.
func (c *compiler) probe(n int, u *userProbe) {
	begin := c.Probe
	for _, at := range u.at {
		begin(plugin.Probe{Where: plugin.AtAddress, Address: uint64(at), ID: uint16(idProbe + n)})
		begin = c.Also
	}
	if u.file != nil {
		for _, at := range u.file.at {
			begin(plugin.Probe{Where: plugin.AtPhysical, Address: uint64(at), ID: uint16(idProbe + n)})
			begin = c.Also
		}
		if len(u.file.at) == 0 {
			return // its code is not in memory yet
		}
	}
	if u.write[1] > 0 {
		c.Probe(plugin.Probe{Where: plugin.AtWrite, Address: u.write[0], Length: u.write[1], ID: uint16(idProbe + n)})
	}
	drop, emit := c.Label(), c.Label()
	user, found := c.Label(), c.Label()
	c.Ctx(sPC, plugin.CtxPC)
	c.If(sPC, "<", 1<<63, user)
	c.Reg(sGS, "gs_base")
	c.Jump(found)
	c.Set(user)
	c.Reg(sGS, "k_gs_base")
	c.Set(found)
	// Between the entry of the kernel and its swapgs the task cannot be known: then there is none.
	c.Load(sTask, sGS, int64(c.o.current), 8, emit)
	c.who(drop)
	c.Jump(emit)
	c.Set(drop)
	if len(c.pids) > 0 {
		c.Drop()
	}
	c.Set(emit)
	for _, s := range []plugin.Slot{sTask, sIDs, sPC, sBorn} {
		c.Put(s)
	}
	if u.write[1] > 0 {
		for _, w := range []int{plugin.CtxAddress, plugin.CtxSize, plugin.CtxValue} {
			c.Ctx(sX, w)
			c.Put(sX)
		}
	}
	for _, a := range u.args {
		if a.text {
			continue
		}
		c.value(&a)
		c.Put(sX)
	}
	for i := range u.args {
		if a := &u.args[i]; a.text {
			skip := c.address(a)
			c.String(uint8(i), sX, min(c.limit, 4096))
			c.Set(skip)
		}
	}
	c.End()
}

// address puts where a value lies into sX; it goes to the label that it returns if that cannot be known.
func (c *compiler) address(a *probeArg) (fail plugin.Label) {
	fail = c.Label()
	c.Reg(sX, a.register)
	for _, off := range a.steps {
		c.Load(sX, sX, int64(off), 8, fail)
	}
	c.Add(sX, sX, a.offset)
	return fail
}

// value puts a number into sX.
func (c *compiler) value(a *probeArg) {
	if !a.memory {
		c.Reg(sX, a.register)
		if a.size < 8 {
			c.And(sX, sX, 1<<(8*a.size)-1)
		}
		return
	}
	fail := c.address(a)
	c.Load(sX, sX, 0, a.size, 0)
	if a.width > 0 {
		c.Shr(sX, sX, uint32(a.shift))
		c.And(sX, sX, 1<<a.width-1)
	}
	c.Set(fail)
}

// append writes a number as its type says.
func (a *probeArg) append(b []byte, v uint64) []byte {
	if a.hex {
		return strconv.AppendUint(append(b, "0x"...), v, 16)
	}
	if !a.signed {
		return strconv.AppendUint(b, v, 10)
	}
	shift := 64 - 8*uint(a.size)
	return strconv.AppendInt(b, int64(v<<shift)>>shift, 10)
}
