package tcg

import (
	"fmt"
	"strconv"
	"strings"
)

// What probes can fetch without knowing types, as perf probe writes it: %REGISTER, $retval, $stack, $stackN, and
// +OFFSET(ARG) or -OFFSET(ARG) for what lies in memory.

// machineRegisters are perf's names of registers that have another one in QEMU.
var machineRegisters = map[string]string{
	"ax": "rax", "bx": "rbx", "cx": "rcx", "dx": "rdx", "si": "rsi", "di": "rdi", "bp": "rbp", "sp": "rsp", "ip": "rip",
	"flags": "eflags",
}

// machine reads a register; ok is false if name is none.
func (e *expression) machine(a *probeArg, name string) (ok bool, err error) {
	if r, ok := strings.CutPrefix(name, "%"); ok {
		if full, ok := machineRegisters[r]; ok {
			r = full
		}
		if r == "" || len(r) > 15 || strings.Trim(r, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return false, fmt.Errorf("invalid register %q", name)
		}
		a.register, a.size, a.hex = r, 8, true
		return true, nil
	}
	if name == "$retval" {
		if !e.back {
			return false, fmt.Errorf("there is a result only where the function returns: FUNCTION%%return")
		}
		a.register, a.size, a.signed = "rax", 8, true
		return true, nil
	}
	if n, ok := strings.CutPrefix(name, "$stack"); ok {
		a.register, a.size, a.hex = "rsp", 8, true
		if n == "" {
			return true, nil
		}
		word, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			return false, fmt.Errorf("%s: a number is missing behind $stack", name)
		}
		a.memory, a.offset = true, 8*word
		return true, nil
	}
	return false, nil
}

// dereferences says whether an argument is of the form +OFFSET(ARG).
func dereferences(text string) bool { return text != "" && (text[0] == '+' || text[0] == '-') }

// maxDereferences bounds the pointers that one argument follows.
const maxDereferences = 16

// dereference reads +OFFSET(ARG): what lies OFFSET bytes behind the address that ARG is.
func (e *expression) dereference(a *probeArg, text string, depth int) error {
	if !dereferences(text) {
		if _, err := e.base(a, text); err != nil {
			return err
		}
		return nil
	}
	number, inner, ok := strings.Cut(text[1:], "(")
	inner, closed := strings.CutSuffix(inner, ")")
	if !ok || !closed || depth == maxDereferences {
		return fmt.Errorf("write what lies in memory as +OFFSET(ARG), such as +8(%%di), at most %d deep", maxDereferences)
	}
	n, err := strconv.ParseUint(number, 0, 63)
	if err != nil {
		return fmt.Errorf("invalid offset %q", number)
	}
	if text[0] == '-' {
		n = -n
	}
	if err := e.dereference(a, inner, depth+1); err != nil {
		return err
	}
	if a.memory {
		a.steps = append(a.steps, a.offset)
	}
	a.memory, a.offset, a.size, a.signed, a.hex = true, n, 8, false, true
	return nil
}
