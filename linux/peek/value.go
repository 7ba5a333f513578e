package peek

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/virt"
)

// Bounds of one value in text.
const (
	maxElements  = 16
	maxValueText = 512
	maxObject    = 1 << 16 // bytes
)

// value decodes the object of type id at a.
func (t *Type) value(id btf.TypeID, a uint64, bits [2]uint8) (string, error) {
	size, ok := t.spec.Sizeof(id)
	if !ok {
		return "", nil
	}
	n := uint64(size)
	if bits[1] != 0 {
		n = (uint64(bits[0]) + uint64(bits[1]) + 7) / 8
	}
	b := make([]byte, min(n, maxObject))
	if _, err := t.m.ReadAt(b, a); err != nil {
		return "", err
	}
	d := decoder{t: t, left: maxValueText}
	if d.value(id, b, bits, 0); d.left < 0 {
		d.out.WriteString("…")
	}
	return d.out.String(), nil
}

type decoder struct {
	t    *Type
	out  strings.Builder
	left int // bytes of text
}

func (d *decoder) put(s string) {
	if d.left >= 0 {
		d.out.WriteString(s)
		d.left -= len(s)
	}
}

func (d *decoder) value(id btf.TypeID, b []byte, bits [2]uint8, depth int) {
	const maxNest = 8
	_, typ, ok := d.t.spec.Strip(id)
	if !ok || d.left < 0 || depth > maxNest {
		d.put("…")
		return
	}
	switch typ.Kind() {
	case btf.KindInt:
		d.put(integer(typ, word(b, bits), bits, len(b)))
	case btf.KindPtr:
		v := word(b, bits)
		if text, ok := d.text(typ, v); ok {
			d.put(fmt.Sprintf("%#x %q", v, text))
			return
		}
		d.pointer(v)
	case btf.KindEnum, btf.KindEnum64:
		d.constant(typ, word(b, bits))
	case btf.KindFloat:
		d.float(b)
	case btf.KindArray:
		d.array(id, b, depth)
	case btf.KindStruct, btf.KindUnion:
		d.members(typ, b, depth)
	}
}

// word is the number in b, little endian, or the bit field in it.
func word(b []byte, bits [2]uint8) (v uint64) {
	for i := range min(len(b), 8) {
		v |= uint64(b[i]) << (8 * i)
	}
	if bits[1] != 0 && bits[1] < 64 {
		v = v >> bits[0] & (1<<bits[1] - 1)
	}
	return v
}

func integer(typ btf.Type, v uint64, bits [2]uint8, size int) string {
	encoding := typ.IntEncoding()
	width := 8 * min(size, 8)
	if bits[1] != 0 {
		width = int(bits[1])
	}
	switch {
	case encoding&btf.IntBool != 0 && v < 2:
		return strconv.FormatBool(v == 1)
	case encoding&btf.IntSigned != 0 && width > 0 && width < 64:
		return strconv.FormatInt(int64(v<<(64-width))>>(64-width), 10)
	case encoding&btf.IntSigned != 0:
		return strconv.FormatInt(int64(v), 10)
	}
	return strconv.FormatUint(v, 10)
}

// text is what a pointer to char leads to, if that is text: up to 64 bytes.
func (d *decoder) text(pointer btf.Type, v uint64) (string, bool) {
	size, ok := d.t.spec.Sizeof(pointer.Ref())
	if _, typ, is := d.t.spec.Strip(pointer.Ref()); !ok || !is || size != 1 || typ.Kind() != btf.KindInt || v == 0 {
		return "", false
	}
	var b [64]byte
	n, _ := d.t.m.ReadAt(b[:], v) // it may end before a page that is not there
	if n == 0 || bytes.IndexByte(b[:n], 0) < 0 && n < len(b) {
		return "", false
	}
	return asText(b[:n])
}

// pointer writes an address, with the symbol of the kernel's that it leads to.
func (d *decoder) pointer(v uint64) {
	d.put(fmt.Sprintf("%#x", v))
	if name := d.t.m.SymbolAt(v); name != "" {
		d.put(" <" + name + ">")
	}
}

// SymbolAt is the symbol of the kernel's image at or before a, with the distance from
// it; empty outside the image.
func (m *Memory) SymbolAt(a uint64) string {
	end, ok := m.s.Address("_end")
	if !ok || virt.Addr(a) < m.s.Text || virt.Addr(a) >= end {
		return ""
	}
	table, err := m.s.Table()
	if err != nil {
		return ""
	}
	name, off, ok := table.At(int64(virt.Addr(a) - m.s.Text))
	if !ok {
		return ""
	}
	if off == 0 {
		return name
	}
	return fmt.Sprintf("%s+%#x", name, off)
}

func (d *decoder) constant(typ btf.Type, v uint64) {
	all, signed := d.t.spec.Enumerators(typ)
	n := int64(v)
	if size := typ.SizeOf(); signed && size < 8 {
		n = int64(v<<(64-8*size)) >> (64 - 8*size)
	}
	for _, e := range all {
		if e.Value == n {
			d.put(e.Name)
			return
		}
	}
	d.put(strconv.FormatInt(n, 10))
}

func (d *decoder) float(b []byte) {
	switch len(b) {
	case 4:
		d.put(fmt.Sprint(math.Float32frombits(binary.LittleEndian.Uint32(b))))
	case 8:
		d.put(fmt.Sprint(math.Float64frombits(binary.LittleEndian.Uint64(b))))
	default:
		d.put(fmt.Sprintf("% x", b))
	}
}

// array writes the elements; one of bytes that hold text as text.
func (d *decoder) array(id btf.TypeID, b []byte, depth int) {
	element, ok := d.t.spec.Element(id)
	size, ok2 := d.t.spec.Sizeof(element)
	if !ok || !ok2 || size == 0 {
		d.put("[]")
		return
	}
	if _, typ, ok := d.t.spec.Strip(element); ok && typ.Kind() == btf.KindInt && size == 1 {
		if text, ok := asText(b); ok {
			d.put(strconv.Quote(text))
			return
		}
	}
	d.put("[")
	n := len(b) / int(size)
	for i := range min(n, maxElements) {
		if i > 0 {
			d.put(", ")
		}
		d.value(element, b[i*int(size):(i+1)*int(size)], [2]uint8{}, depth+1)
	}
	if n > maxElements {
		d.put(fmt.Sprintf(", … %d more", n-maxElements))
	}
	d.put("]")
}

// asText is b up to its first NUL, if that is printable and not nothing.
func asText(b []byte) (string, bool) {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	for _, c := range b {
		if c < ' ' || c > '~' {
			return "", false
		}
	}
	return string(b), len(b) > 0
}

func (d *decoder) members(typ btf.Type, b []byte, depth int) {
	d.put("{")
	for i, m := range d.t.spec.Members(typ) {
		if d.left < 0 {
			break
		}
		if i > 0 {
			d.put(", ")
		}
		if m.Name != "" {
			d.put(m.Name + " = ")
		}
		off := int(m.BitOff / 8)
		size, _ := d.t.spec.Sizeof(m.Type)
		bits := [2]uint8{uint8(m.BitOff % 8), uint8(m.BitSize)}
		end := off + int(size)
		if bits[1] != 0 {
			end = off + (int(bits[0])+int(bits[1])+7)/8
		}
		if off > len(b) || end > len(b) {
			d.put("…")
			continue
		}
		d.value(m.Type, b[off:end], bits, depth+1)
	}
	d.put("}")
}
