package linux

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

const (
	maxParams     = 1024 // of one module; amdgpu has some 100
	maxParamText  = 4096 // bytes of one value: sysfs shows no more than a page
	maxParamItems = 256  // of an array
	maxSections   = 1024 // of one module
)

// Parameter is one parameter of a module, with its value now.
type Parameter struct {
	Name  string
	Value string // as /sys/module/*/parameters shows it; empty unless Known
	Known bool   // whether its type is one of the kernel's own
	Type  string // int, bool, charp …, param_array_get of an array; the name of its operations where it has its own way
	Mode  uint16 // of its file in /sys/module; 0: it has none
	Ops   virt.Addr
}

// paramLayout is struct kernel_param and what its values are kept in.
type paramLayout struct {
	name, ops, perm, arg, get             kobj.Field
	strMax, str                           kobj.Field
	arrMax, arrSize, arrNum, arrOps, elem kobj.Field
	stride                                uint32
	types                                 map[virt.Addr]string // by address of the function that shows it
}

// paramTypes are the ways in which the kernel itself shows parameters, param_get_*
// (kernel/params.c), beside that of arrays. A module's own operations often have one
// of them, and check only what is set.
var paramTypes = []string{
	"byte", "short", "ushort", "int", "uint", "long", "ulong", "ullong", "hexint",
	"charp", "string", "bool", "invbool",
}

func (s *System) paramLayout() (*paramLayout, error) {
	o, err := kobj.LayoutOf(s.Walker, "parameters of modules", func(r *kobj.Resolver, o *paramLayout) {
		const p, a = "kernel_param", "kparam_array"
		o.name, o.ops, o.perm, o.arg = r.Field(p, "name"), r.Field(p, "ops"), r.Field(p, "perm"), r.Field(p, "arg")
		o.stride = r.Size(p)
		o.get = r.Field("kernel_param_ops", "get")
		o.strMax, o.str = r.Field("kparam_string", "maxlen"), r.Field("kparam_string", "string")
		o.arrMax, o.arrSize, o.arrNum = r.Field(a, "max"), r.Field(a, "elemsize"), r.Field(a, "num")
		o.arrOps, o.elem = r.Field(a, "ops"), r.Field(a, "elem")
		names := []string{"param_array_get"}
		for _, t := range paramTypes {
			names = append(names, "param_get_"+t)
		}
		r.Prefetch(names...)
		o.types = map[virt.Addr]string{}
		for _, name := range names {
			if a, ok := s.Address(name); ok {
				o.types[a] = strings.TrimPrefix(name, "param_get_")
			}
		}
	})
	return o, err
}

// Parameters are m's parameters, in the order in which its author declared them.
// Those without a file in /sys/module are among them.
func (m *Module) Parameters() (ps []Parameter, err error) {
	ml, err := m.s.moduleLayout()
	if err != nil {
		return nil, err
	}
	o, err := m.s.paramLayout()
	if err != nil {
		return nil, err
	}
	r := m.s.Reader()
	kp, n := r.Pointer(m.Addr, ml.kp), r.Uint(m.Addr, ml.numKP)
	if n > maxParams {
		return nil, fmt.Errorf("parameters of module %s: %w: %d of them", m.Name, kobj.ErrBroken, n)
	}
	for i := range n {
		p := kp + virt.Addr(uint32(i)*o.stride)
		// parse_args and sysfs leave out what stands before a point.
		name := r.CString(r.Pointer(p, o.name), MaxName)
		v := Parameter{Name: name[strings.LastIndexByte(name, '.')+1:], Ops: r.Pointer(p, o.ops), Mode: uint16(r.Uint(p, o.perm))}
		v.Type = o.types[r.Pointer(v.Ops, o.get)]
		if v.Type == "" {
			v.Type, _, _ = m.Symbol(v.Ops)
		} else {
			v.Value, v.Known = o.value(&r, v.Type, r.Pointer(p, o.arg), true)
		}
		if r.Err != nil {
			return ps, fmt.Errorf("parameters of module %s: %w", m.Name, r.Err)
		}
		ps = append(ps, v)
	}
	return ps, nil
}

// value is the parameter at arg as its operations show it.
func (o *paramLayout) value(r *kobj.Reader, kind string, arg virt.Addr, array bool) (_ string, known bool) {
	whole := func(size uint32) uint64 { return r.Uint(arg, kobj.FieldAt(0, size)) }
	part := func(size uint32) int64 { return r.Int(arg, kobj.FieldAt(0, size)) }
	switch kind {
	case "byte":
		return strconv.FormatUint(whole(1), 10), true
	case "short":
		return strconv.FormatInt(part(2), 10), true
	case "ushort":
		return strconv.FormatUint(whole(2), 10), true
	case "int":
		return strconv.FormatInt(part(4), 10), true
	case "uint":
		return strconv.FormatUint(whole(4), 10), true
	case "long":
		return strconv.FormatInt(part(8), 10), true
	case "ulong", "ullong":
		return strconv.FormatUint(whole(8), 10), true
	case "hexint":
		return fmt.Sprintf("%#08x", whole(4)), true
	case "bool":
		return yesNo(whole(1) != 0), true
	case "invbool":
		return yesNo(whole(1) == 0), true
	case "charp":
		p := r.Ptr(arg)
		if p == 0 {
			return "(null)", true // as printf has it
		}
		return r.CString(p, maxParamText), true
	case "string":
		return r.CString(r.Pointer(arg, o.str), int(min(r.Uint(arg, o.strMax), maxParamText))), true
	case "param_array_get":
		if !array {
			return "", false // of arrays there are none
		}
		return o.arrayValue(r, arg)
	}
	return "", false
}

// arrayValue joins the elements with commas (param_array_get).
func (o *paramLayout) arrayValue(r *kobj.Reader, arg virt.Addr) (string, bool) {
	n := r.Uint(arg, o.arrMax)
	if num := r.Pointer(arg, o.arrNum); num != 0 {
		n = uint64(r.U32(num))
	}
	size, elem, kind := r.Uint(arg, o.arrSize), r.Pointer(arg, o.elem), o.types[r.Pointer(r.Pointer(arg, o.arrOps), o.get)]
	var b strings.Builder
	for i := range min(n, maxParamItems) {
		v, ok := o.value(r, kind, elem+virt.Addr(i*size), false)
		if !ok || r.Err != nil {
			return "", false
		}
		if i > 0 {
			b.WriteByte(',')
		}
		if b.WriteString(v); b.Len() > maxParamText {
			break
		}
	}
	return b.String(), true
}

func yesNo(b bool) string {
	if b {
		return "Y"
	}
	return "N"
}

// Section is a section of a module's file, and where it was loaded.
type Section struct {
	Name string
	Addr virt.Addr
}

// sectionLayout is struct module_sect_attrs.
type sectionLayout struct {
	bins, name, addr kobj.Field
}

// Sections are where m's sections were loaded, as /sys/module/*/sections shows to
// root, in the order of its file. Those of its initialisation are gone from memory.
func (m *Module) Sections(ctx context.Context) (sections []Section, err error) {
	ml, err := m.s.moduleLayout()
	if err != nil {
		return nil, err
	}
	o, err := kobj.LayoutOf(m.s.Walker, "sections of modules", func(r *kobj.Resolver, o *sectionLayout) {
		// The group's list of files ends with a null. Each is a bin_attribute,
		// behind which the address stands, or since 6.14 in its private.
		o.bins = r.Field("module_sect_attrs", "grp.bin_attrs")
		o.name = r.Field("bin_attribute", "attr.name")
		if o.addr = r.Optional("module_sect_attr", "address"); !o.addr.Present() {
			o.addr = r.Field("bin_attribute", "private")
		}
	})
	if err != nil {
		return nil, err
	}
	r := m.s.Reader()
	attrs := r.Pointer(m.Addr, ml.sectAttrs)
	if attrs == 0 {
		return nil, r.Err // without CONFIG_KALLSYMS
	}
	list := r.Pointer(attrs, o.bins)
	for range maxSections {
		bin := r.Ptr(list)
		if bin == 0 || ctx.Err() != nil {
			break
		}
		sections = append(sections, Section{r.CString(r.Pointer(bin, o.name), MaxName), r.Pointer(bin, o.addr)})
		if r.Err != nil {
			break
		}
		list += 8
	}
	if r.Err != nil {
		return sections, fmt.Errorf("sections of module %s: %w", m.Name, r.Err)
	}
	return sections, ctx.Err()
}
