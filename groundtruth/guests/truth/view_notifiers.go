package main

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"strings"
)

// chainHeads are heads of notifier chains, by their names in /proc/kallsyms.
var chainHeads = map[string]string{
	"reboot_notifier_list": "blocking", "panic_notifier_list": "atomic", "die_chain": "atomic", "inetaddr_chain": "blocking",
	"inet6addr_chain": "atomic", "keyboard_notifier_list": "atomic", "vt_notifier_list": "atomic", "netlink_chain": "blocking",
	"module_notify_list": "blocking", "restart_handler_list": "atomic", "crypto_chain": "blocking", "memory_chain": "blocking",
	"oom_notify_list": "blocking", "netdev_chain": "raw", "pm_chain_head": "blocking", "x86_mce_decoder_chain": "blocking",
	"tracepoint_notify_list": "blocking", "power_off_handler_list": "atomic",
}

func init() {
	// No file of the guest lists notifiers. But /proc/kcore is its memory as its kernel
	// reads it, and /proc/kallsyms says where the heads and the functions are.
	views["notifiers"] = func(emit func(any) error) error {
		core, err := elf.Open("/proc/kcore")
		if err != nil {
			return err
		}
		defer func() { _ = core.Close() }()
		heads, functions := map[string]uint64{}, map[uint64]string{}
		err = eachSymbol(func(a uint64, kind, name, module string) error {
			if _, ok := chainHeads[name]; ok && module == "" {
				heads[name] = a
			}
			if strings.ContainsAny(kind, "tTwW") {
				if functions[a] != "" {
					functions[a] = "several"
					return nil
				}
				functions[a] = name
				if module != "" {
					functions[a] += " [" + module + "]"
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for name, at := range heads {
			if err := tellChain(core, name, at, functions, emit); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}
}

func tellChain(core *elf.File, name string, at uint64, functions map[uint64]string, emit func(any) error) error {
	head, err := kernelWords(core, at, 6)
	if err != nil {
		return err
	}
	var block uint64
	switch chainHeads[name] {
	case "raw":
		block = head[0]
	case "atomic":
		block = head[1] // behind a lock
	default:
		// Behind a struct rw_semaphore, which ends in the list of who waits: since 7.1 the
		// first of them only.
		if block = head[5]; head[3] != at+3*8 {
			block = head[4]
		}
	}
	for range 1000 {
		if block == 0 {
			return nil
		}
		b, err := kernelWords(core, block, 3) // function, next, priority
		if err != nil {
			return err
		}
		row := map[string]any{
			"chain": name, "kind": chainHeads[name], "address": fmt.Sprintf("%#x", block), "function": fmt.Sprintf("%#x", b[0]),
			"priority": int32(uint32(b[2])),
		}
		if symbol, module, ok := strings.Cut(functions[b[0]], " "); symbol != "" && symbol != "several" {
			row["function_symbol"], row["function_owner"] = symbol, "kernel"
			if ok {
				row["function_owner"] = module
			}
		}
		if err := emit(row); err != nil {
			return err
		}
		block = b[1]
	}
	return fmt.Errorf("no end")
}

// kernelWords reads n words of the kernel's memory.
func kernelWords(core *elf.File, at uint64, n int) ([]uint64, error) {
	for _, p := range core.Progs {
		if p.Type != elf.PT_LOAD || at < p.Vaddr || at-p.Vaddr > p.Memsz-uint64(8*n) {
			continue
		}
		b := make([]byte, 8*n)
		if _, err := p.ReadAt(b, int64(at-p.Vaddr)); err != nil {
			return nil, fmt.Errorf("/proc/kcore at %#x: %w", at, err)
		}
		words := make([]uint64, n)
		for i := range words {
			words[i] = binary.LittleEndian.Uint64(b[8*i:])
		}
		return words, nil
	}
	return nil, fmt.Errorf("/proc/kcore: %#x is not in it", at)
}
