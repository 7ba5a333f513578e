package qemu

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// options are what stands behind one flag: "q35,accel=kvm" with the implied key
// "type", or the same as JSON.
type options map[string]string

// parseOptions parses the value of a flag. A comma is written twice inside a
// value (qemu(1), "KEY=VALUE" syntax). A bare word is implied=word when it comes
// first, and otherwise a switch: word=on.
func parseOptions(s, implied string) options {
	o := options{}
	if strings.HasPrefix(s, "{") {
		d := json.NewDecoder(strings.NewReader(s))
		d.UseNumber()
		var v map[string]any
		if d.Decode(&v) == nil {
			o.flatten("", v)
		}
		return o
	}
	for n := 0; s != ""; n++ {
		var item string
		item, s = cutItem(s)
		key, value, ok := strings.Cut(item, "=")
		switch {
		case ok:
		case n == 0 && implied != "":
			key, value = implied, item
		case strings.HasPrefix(item, "no"): // the old form of key=off
			key, value = item[2:], "off"
		default:
			value = "on"
		}
		o[key] = value
	}
	return o
}

// cutItem splits s behind its first item.
func cutItem(s string) (item, rest string) {
	var b bytes.Buffer
	for i := 0; i < len(s); i++ {
		if s[i] == ',' {
			if i+1 < len(s) && s[i+1] == ',' {
				i++
			} else {
				return b.String(), s[i+1:]
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// flatten writes JSON as dotted keys, which is how QEMU's other syntax has it.
func (o options) flatten(prefix string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			o.flatten(strings.TrimPrefix(prefix+"."+k, "."), e)
		}
	case []any:
		for i, e := range v {
			o.flatten(prefix+"."+strconv.Itoa(i), e)
		}
	case bool:
		o[prefix] = map[bool]string{true: "on", false: "off"}[v]
	case nil:
	default:
		o[prefix] = fmt.Sprint(v)
	}
}

// on reports whether switch key is set.
func (o options) on(key string) bool {
	switch o[key] {
	case "on", "yes", "true", "y":
		return true
	}
	return false
}

// parseSize parses a size; without a suffix it counts in unit bytes. 0 is
// anything that is not one.
func parseSize(s string, unit uint64) uint64 {
	if s == "" {
		return 0
	}
	shift, digits := 0, s[:len(s)-1]
	switch s[len(s)-1] {
	case 'b', 'B':
	case 'k', 'K':
		shift = 10
	case 'm', 'M':
		shift = 20
	case 'g', 'G':
		shift = 30
	case 't', 'T':
		shift = 40
	default:
		digits, shift = s, -1
	}
	v, err := strconv.ParseUint(digits, 0, 64)
	if err != nil {
		f, err := strconv.ParseFloat(digits, 64) // "1.5G"
		if err != nil || !(f >= 0 && f < 1<<20) || shift < 0 {
			return 0
		}
		return uint64(f * float64(uint64(1)<<shift))
	}
	if shift >= 0 {
		unit = 1 << shift
	}
	if v > 1<<62/unit {
		return 0
	}
	return v * unit
}
