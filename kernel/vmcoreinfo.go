package kernel

import (
	"bytes"
	"strconv"
	"strings"
)

// maxVmcoreinfo bounds the note, in bytes; the kernel gives it one page.
const maxVmcoreinfo = 4096

// Vmcoreinfo is what the kernel provides to crash-dump tools about itself
// (Documentation/admin-guide/kdump/vmcoreinfo.rst): lines KEY=VALUE, where KEY
// may be like SYMBOL(name).
type Vmcoreinfo map[string]string

// ParseVmcoreinfo reads the text of a note. Malformed lines are
// skipped.
func ParseVmcoreinfo(text []byte) Vmcoreinfo {
	text = text[:min(len(text), maxVmcoreinfo)]
	if i := bytes.IndexByte(text, 0); i >= 0 {
		text = text[:i]
	}
	v := Vmcoreinfo{}
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if ok && key != "" {
			v[key] = value
		}
	}
	return v
}

// Symbol is the address that the note gives for a symbol.
func (v Vmcoreinfo) Symbol(name string) (uint64, bool) {
	n, err := strconv.ParseUint(v["SYMBOL("+name+")"], 16, 64)
	return n, err == nil
}

// Number is a value that the note gives in decimal, or in hex after 0x.
func (v Vmcoreinfo) Number(name string) (int64, bool) {
	text, ok := v["NUMBER("+name+")"]
	if !ok {
		return 0, false
	}
	if u, err := strconv.ParseUint(text, 0, 64); err == nil {
		return int64(u), true
	}
	n, err := strconv.ParseInt(text, 0, 64)
	return n, err == nil
}

// KernelOffset is by how much KASLR moved the kernel, in bytes.
func (v Vmcoreinfo) KernelOffset() (uint64, bool) {
	n, err := strconv.ParseUint(v["KERNELOFFSET"], 16, 64)
	return n, err == nil
}
