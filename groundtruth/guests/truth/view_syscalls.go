package main

import (
	"maps"
	"slices"
)

// exceptions are the architecture's own, by vector (Intel SDM volume 3, 6.3.1), as
// the kernel calls their handlers.
var exceptions = map[int]string{
	0: "asm_exc_divide_error", 1: "asm_exc_debug", 2: "asm_exc_nmi", 3: "asm_exc_int3", 4: "asm_exc_overflow", 5: "asm_exc_bounds",
	6: "asm_exc_invalid_op", 7: "asm_exc_device_not_available", 8: "asm_exc_double_fault", 10: "asm_exc_invalid_tss",
	11: "asm_exc_segment_not_present", 12: "asm_exc_stack_segment", 13: "asm_exc_general_protection", 14: "asm_exc_page_fault",
	16: "asm_exc_coprocessor_error", 17: "asm_exc_alignment_check", 18: "asm_exc_machine_check", 19: "asm_exc_simd_coprocessor_error",
}

func init() {
	views["syscalls"] = func(emit func(any) error) error {
		known, err := kernelFunctions()
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(syscallNumbers)) {
			a := known["__x64_sys_"+name]
			if a == "" { // named otherwise in the kernel, or not built
				continue
			}
			if err := emit(map[string]any{"abi": "64", "nr": syscallNumbers[name], "name": name, "used": true, "expected": true, "handler": a, "handler_owner": "kernel"}); err != nil {
				return err
			}
		}
		return nil
	}
	views["idt"] = func(emit func(any) error) error {
		known, err := kernelFunctions()
		if err != nil {
			return err
		}
		for _, vector := range slices.Sorted(maps.Keys(exceptions)) {
			name := exceptions[vector]
			if a := known[name]; a != "" {
				row := map[string]any{"vector": vector, "handler": a, "handler_symbol": name, "handler_owner": "kernel", "present": true}
				if err := emit(row); err != nil {
					return err
				}
			}
		}
		return nil
	}
}
