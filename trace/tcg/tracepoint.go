package tcg

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/btf"
)

// Tracepoint is a tracepoint of a guest's kernel, with what is to be fetched where it is passed.
type Tracepoint struct {
	Name   string
	Values []Value // numbers first, in their order, as its records have them; then texts
	probe  *userProbe
}

// Value is a value that is fetched of an argument of a tracepoint.
type Value struct {
	Argument     int      // number of it, from 0
	Memory       bool     // the value lies where it leads; else it is the argument itself
	Steps        []uint64 // offsets of pointers to follow: each from the address so far
	Offset       uint64   // behind the last one
	Text         bool     // a string lies there
	Tag          uint8    // of a text's item
	Size         uint8    // of a number, in bytes
	Shift, Width uint8    // of a bit field; width 0: none
}

// TracepointID is the mark of the records of tracepoint n of those that a decoder has.
func TracepointID(n int) uint16 { return uint16(idProbe + n) }

// ParseTracepoint reads "NAME [LABEL=]ARG …" as a probe's text is read: ARG is an argument of the tracepoint by name, with
// members behind.
func ParseTracepoint(l *guest.Look, text string) (*Tracepoint, error) {
	spec, err := l.Linux.Types()
	if err == nil {
		var t *Tracepoint
		if t, err = parseTracepoint(spec, text); err == nil {
			return t, nil
		}
	}
	return nil, fmt.Errorf("tracepoint %q: %w", text, err)
}

func parseTracepoint(spec *btf.Spec, text string) (*Tracepoint, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return nil, fmt.Errorf("a name is missing")
	}
	// Its arguments have names in the function that calls its probes (since 5.10), behind a pointer of that function's own.
	params := spec.Params(spec.Declared("__traceiter_" + words[0]))
	if len(params) == 0 {
		return nil, fmt.Errorf("the guest's kernel has no tracepoint of this name: outsight tracepoints --all lists them")
	}
	t := &Tracepoint{Name: words[0], probe: &userProbe{text: text, name: words[0]}}
	if err := t.probe.parseArgs(&expression{spec: spec, params: params[1:]}, words[1:]); err != nil {
		return nil, err
	}
	var texts []Value
	for i, a := range t.probe.args {
		n := slices.Index(parameters[:], a.register)
		if n < 0 || n >= len(params)-1 {
			return nil, fmt.Errorf("%s: a tracepoint has no registers: name one of its arguments", a.label)
		}
		v := Value{n, a.memory, a.steps, a.offset, a.text, uint8(i), a.size, a.shift, a.width}
		if a.text {
			texts = append(texts, v)
		} else {
			t.Values = append(t.Values, v)
		}
	}
	t.Values = append(t.Values, texts...)
	return t, nil
}
