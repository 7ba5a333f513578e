// Package x86 reads machine code of a guest: it decodes instructions and follows
// code that selects one of many functions by a number, without running any of it.
package x86

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/arch/x86/x86asm"
)

// MaxInstruction is the longest instruction there is, in bytes.
const MaxInstruction = 15

// ErrCode says that bytes are not code that is understood.
var ErrCode = errors.New("not understood as code")

// fixups are instructions of today's kernels that the decoder misreads or does not
// know. What matters here is their length: they change no register.
var fixups = []struct {
	code []byte
	name string
}{
	{[]byte{0xf3, 0x0f, 0x1e, 0xfa}, "endbr64"}, // read as a lone prefix
	{[]byte{0xf3, 0x0f, 0x1e, 0xfb}, "endbr32"},
	{[]byte{0x0f, 0x01, 0xca}, "clac"},
	{[]byte{0x0f, 0x01, 0xcb}, "stac"},
}

// Name is what the instruction at the start of b is called, if it is one that
// [Decode] stands a NOP in for; else empty.
func Name(b []byte) string {
	for _, f := range fixups {
		if bytes.HasPrefix(b, f.code) {
			return f.name
		}
	}
	return ""
}

// Decode decodes the 64-bit instruction at the start of b. What it stands in for
// comes as a NOP of the right length. Errors wrap [ErrCode].
func Decode(b []byte) (x86asm.Inst, error) { return DecodeMode(b, 64) }

// DecodeMode is Decode for code of 16, 32 or 64 bits.
func DecodeMode(b []byte, bits int) (inst x86asm.Inst, err error) {
	for _, f := range fixups {
		if bytes.HasPrefix(b, f.code) {
			return x86asm.Inst{Op: x86asm.NOP, Len: len(f.code), Mode: bits}, nil
		}
	}
	// A hostile guest chooses these bytes: a slip of the decoder is an error.
	defer func() {
		if r := recover(); r != nil {
			inst, err = x86asm.Inst{}, fmt.Errorf("% x: %w: %v", b[:min(len(b), MaxInstruction)], ErrCode, r)
		}
	}()
	// Kernels pad calls with cs prefixes, so that alternatives of them fit.
	pad := 0
	for pad < len(b)-1 && pad < 4 && b[pad] == 0x2e && (b[pad+1] == 0x2e || b[pad+1] == 0xe8 || b[pad+1] == 0xe9) {
		pad++
	}
	inst, err = x86asm.Decode(b[pad:min(len(b), pad+MaxInstruction)], bits)
	if err != nil {
		return inst, fmt.Errorf("% x: %w: %w", b[:min(len(b), MaxInstruction)], ErrCode, err)
	}
	if inst.Len <= 0 {
		return inst, fmt.Errorf("% x: %w", b[:min(len(b), MaxInstruction)], ErrCode)
	}
	inst.Len += pad
	return inst, nil
}
