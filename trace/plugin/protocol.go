package plugin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// What crosses the border to the plugin, as in plugin/qemu/protocol.h. TestProtocol compares
// the two.
const (
	protocol = 5
	magic    = 0x74737566

	msgHello   = 1
	msgProgram = 2
	msgReady   = 3
	msgError   = 4

	messageSize = 16
	helloSize   = 48
	headerSize  = 32 // of a program

	page         = 4096
	maxRecord    = 128 << 10
	maxProgram   = 8 << 20
	maxProbes    = 4096
	maxCode      = 1 << 18
	maxRanges    = 64
	maxRegisters = 64
	slots        = 32
	scratch      = 32
)

// Where a probe stands.
type Where uint32

// The places.
const (
	AtSyscall  Where = 1 // before a system call instruction of the kinds in Arg
	AtAddress  Where = 2 // before the instruction at the virtual address
	AtPhysical Where = 3 // before the instruction at the guest-physical address, wherever it is mapped
	AtWrite    Where = 4 // after a store into Length bytes at the virtual address
	AtControl  Where = 5 // before a load of control register Arg
	AtNewPage  Where = 6 // before the first instruction in a page that was not seen with these bytes
	AtReturn   Where = 7 // before a return from an interrupt (iret)
	AtSleep    Where = 8 // when a vCPU has nothing to do, and when it goes on; without registers and holds
)

// What an AtAddress probe has in Arg. Each vCPU has a gate, which is open at the start: see [Assembler.Gate].
const (
	Gated = 1 // its program runs only while the gate is open
	Opens = 2 // it has no program: the instruction opens the gate, which costs next to nothing
)

// Kinds of system call instructions.
const (
	Syscall  = 1 // syscall
	Sysenter = 2 // sysenter
	Int80    = 4 // int $0x80
)

// Words that a program can ask for of the place where it runs.
const (
	CtxVCPU    = iota
	CtxPC      // virtual address of the instruction
	CtxAddress // of the store
	CtxSize    // of the store, in bytes
	CtxValue   // stored, or loaded into the control register; 1 if the vCPU goes on, 0 if it sleeps
	CtxKind    // of the system call instruction, or the control register's number
	CtxHash    // of the new page
	CtxCode    // selector of the code segment when a system call instruction was translated; 0: unknown
	ctxWords
)

// Flags of a record.
const (
	Fault     = 1 // something could not be read
	Truncated = 2 // the record was full before the program's end
	Waits     = 4 // the vCPU waits for a decision
	padding   = 0x8000
)

// Status says how much of an item is there.
type Status uint8

// The states of an item.
const (
	Whole      Status = 0
	Cut        Status = 1 // there is more
	Unreadable Status = 2 // what follows the bytes that are here
)

// Hello is what a plugin says of itself.
type Hello struct {
	APIMin, APICur  int      // of QEMU's plugin interface
	VCPUs, MaxVCPUs int      // now, and the most that there can be
	Target          string   // "x86_64"
	Registers       []string // that programs can read
	Memory          bool     // guest memory can be read by virtual address
	Values          bool     // of stores
	Gates           bool     // a gate that is shut spares the callback; else all gates are always open
}

var le = binary.LittleEndian

func parseHello(b []byte) (h Hello, err error) {
	if len(b) < helloSize {
		return h, fmt.Errorf("a greeting of %d bytes is too short", len(b))
	}
	if p := le.Uint32(b); p != protocol {
		return h, fmt.Errorf("the plugin speaks protocol %d, and this outsight %d: install the plugin that belongs to it (outsight plugin install) and restart the machine", p, protocol)
	}
	h.APIMin, h.APICur = int(le.Uint32(b[4:])), int(le.Uint32(b[8:]))
	h.VCPUs, h.MaxVCPUs = int(le.Uint32(b[12:])), int(le.Uint32(b[16:]))
	h.Memory, h.Values, h.Gates = le.Uint32(b[20:])&2 != 0, le.Uint32(b[20:])&4 != 0, le.Uint32(b[20:])&8 != 0
	h.Target = strings.TrimRight(string(b[32:48]), "\x00")
	names := strings.Split(strings.TrimSuffix(string(b[helloSize:]), "\x00"), "\x00")
	if n := int(le.Uint32(b[24:])); n > 0 {
		if len(names) != n {
			return h, errors.New("the greeting's registers are incomplete")
		}
		h.Registers = names
	}
	if h.MaxVCPUs < 1 || h.MaxVCPUs > 256 {
		return h, fmt.Errorf("the greeting has %d vCPUs", h.MaxVCPUs)
	}
	return h, nil
}
