// Package vm is a virtual machine seen from outside: its memory, and whatever
// else its monitor lets one see and do. It finds the machines of this host and
// opens the TARGETs of the command line.
//
// A [Host] knows drivers, one for each monitor; package vm/local has one with all
// of them. A [Machine] has memory; everything else is an optional capability of its
// [Control].
package vm

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/phys"
)

// Source is how a machine's memory is read.
type Source string

// The sources.
const (
	SourceNone    Source = ""        // not at all
	SourceShared  Source = "shared"  // mapped, zero copy
	SourcePrivate Source = "private" // copied out of the monitor's process
	SourceDump    Source = "dump"    // a file, which stands still
)

// State is what a machine does, in QEMU's words (qapi/run-state.json).
type State string

// The states that matter here. Others are passed on as QEMU calls them.
const (
	StateUnknown   State = ""
	StateRunning   State = "running"
	StatePaused    State = "paused"
	StatePrelaunch State = "prelaunch" // created with -S and never started
	StateShutdown  State = "shutdown"
	StateDump      State = "dump" // not a live machine
)

// Info is what is known of a machine without opening it.
type Info struct {
	Name    string // as given to the monitor; "" if it has none
	Alias   string // what else its manager calls it: Proxmox's VMID, Incus's PROJECT_NAME; "": nothing
	UUID    string // as given to the monitor; "": unknown
	Manager string // what runs the monitor: "libvirt"; "": unknown
	PID     int    // 0 for a dump
	UID     int    // user that runs it
	User    string // its name, or the number
	VMM     string // "qemu", "firecracker", "cloud-hypervisor", "kvm", "file"
	Accel   string // "kvm", "tcg"; "": unknown
	Arch    string // of the guest: "x86_64", "aarch64"; "": unknown
	Machine string // machine type: "q35", "pc-i440fx-10.0"; "": unknown
	RAM     uint64 // in bytes; 0: unknown
	CPUs    int    // number of virtual CPUs; 0: unknown
	QMP     string // path of a QMP socket; "": none
	Plugin  string // path of the socket of outsight's plugin in a QEMU that translates; "": none
	Kernel  string // path of the kernel that the monitor itself boots; "": none, its firmware boots
	Initrd  string // path of the initial root file system that it gives to that kernel; "": none
	State   State
	Format  string    // of a dump, for people: "raw", "ELF core"; "" for a live machine
	Source  Source    // how the memory can be read
	Missing string    // why it cannot be read, or cannot be read better; one sentence
	Created time.Time // when its process started, in whole seconds, or the dump was written
	Version string    // of the monitor; "": unknown
	Command []string  // command line of the monitor
	driver  Driver
}

// Machine is an open machine. Close it.
type Machine struct {
	Info
	// Memory is the guest-physical memory. Where Proven is false, its map is the
	// likeliest of several: see [phys.Placeable].
	Memory phys.Memory
	// Proven says that the map came from the monitor itself.
	Proven bool
	// Registers are what its monitor showed while it was opened; nil: nothing.
	// [RegisterReader] has those of now.
	Registers []Registers
	// Notes are what the user should know about how it was opened: "the QMP
	// socket is in use: the memory map is a guess".
	Notes []string
	// Control is what else the driver can do with the machine.
	Control Control

	once sync.Once
	err  error
}

// Close closes the machine's control and its memory. A machine that was paused must
// have been resumed before.
func (m *Machine) Close() error {
	m.once.Do(func() {
		var control, memory error
		if c := m.Control.Closer; c != nil {
			control = c.Close()
		}
		if c, ok := m.Memory.(io.Closer); ok {
			memory = c.Close()
		}
		m.err = errors.Join(control, memory)
	})
	return m.err
}

// Live reports whether m is a machine that runs, or could, rather than a dump.
func (m *Machine) Live() bool { return m.Source != SourceDump }

// CheckStarted is nil unless the machine was created but never started, or has
// been shut down, so that there is nothing in its memory: the reason to give when
// no kernel was found in it.
func (m *Machine) CheckStarted() error {
	switch m.State {
	case StatePrelaunch:
		return &Error{
			Kind: ErrNotStarted, What: "look into " + m.Title(),
			Why: "the machine was created but has not been started yet",
			Do:  "start it (QMP cont, virsh resume, vm.boot) and try again",
		}
	case "inmigrate":
		return &Error{
			Kind: ErrNotStarted, What: "look into " + m.Title(),
			Why: "the machine waits for an incoming migration",
			Do:  "try again when it has arrived",
		}
	}
	return nil
}

// Registers are those of one virtual CPU that matter for finding the kernel and
// the running task. Under PTI, CR3 is a user's when the CPU was in user mode.
type Registers struct {
	CPU                int
	RIP, RSP, RFLAGS   uint64
	General            [16]uint64 // RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8 to R15
	Selectors          [6]uint16  // CS, DS, ES, FS, GS, SS
	CR0, CR2, CR3, CR4 uint64
	EFER               uint64 // 0 if unknown to the monitor
	FSBase, GSBase     uint64
	KernelGSBase       uint64 // 0 if unknown to the monitor
	GDT, IDT, TR, LDT  uint64 // linear base addresses
	// Limits of the tables: the offset of the last byte; 0 if unknown to the monitor.
	GDTLimit, IDTLimit uint32
	// Debug are DR0 to DR7, if HasDebug says that the monitor shows them.
	Debug    [8]uint64
	HasDebug bool
	CPL      int // privilege level: 0 kernel, 3 user
	Halted   bool
	// Partial says that only RIP, RSP, RFLAGS, General, Selectors, FSBase and CPL are known,
	// as in the dump that a crashed kernel's kdump made.
	Partial bool
}
