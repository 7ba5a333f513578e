package check

import (
	"context"
	"iter"
)

func init() {
	Register(Check{
		ID:        "kernel-rodata",
		Title:     "Read-only data of the kernel that differs from the image that the kernel was booted from",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source: `__start_rodata..__end_rodata against the vmlinuz, moved by its relocations: tables of operations, sys_call_table, strings, the export table, types (BTF), the
image of the vDSO`,
		Proves: `A constant of the kernel was changed after boot, though its pages are read-only: a function in a table of operations, an entry of the system call table, the code
that every process gets as its vDSO. Nothing in the kernel writes there once it is sealed.`,
		Blind: `What is sealed after initialisation (__ro_after_init, static call and jump tables), data that is writable, and the table of exceptions. What was changed
and changed back between two looks. Without an image nothing is compared: kernel-text says where one is found.`,
		Next: `Look at what the changed pointer leads to with the command shown and "outsight disassemble TARGET ADDRESS". Dump the guest before anything else is done to it.`,
		Example: `A function in the table of operations of /proc was replaced:

    $ outsight check lab:demo
    SEVERITY  CONFIDENCE  CHECK          TITLE
    critical  certain     kernel-rodata  kernel read-only data at proc_root_operations+0x40 is not the kernel's: nothing changes this once it is sealed
    $ outsight read lab:demo 0xffffffff9a20cf40 8`,
		Steady: true,
		Run:    kernelRodata,
	})
}

func kernelRodata(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return s.imageDifferences(ctx, s.Rodata)
}
