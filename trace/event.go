// Package trace is events: what happens in a guest, from whatever source can see it. Its one schema
// ([Columns]) is what output, filters, and the manual are made of.
//
// Sources are in the packages below: trace/tcg (the plugin in QEMU's TCG), trace/breakpoint (QEMU's gdb stub),
// trace/polling (two looks compared).
package trace

import (
	"time"

	"github.com/outsight-vmi/outsight/table"
)

// Kind is what sort of thing happened.
type Kind string

// The kinds.
const (
	KindSyscall  Kind = "syscall"  // a system call, when it has returned
	KindFork     Kind = "fork"     // a process was born
	KindExec     Kind = "exec"     // a process runs another program
	KindExit     Kind = "exit"     // a process ended
	KindConnect  Kind = "connect"  // a connection to elsewhere
	KindAccept   Kind = "accept"   // a connection from elsewhere
	KindListen   Kind = "listen"   // a socket that waits for connections
	KindClose    Kind = "close"    // a socket that is no longer there
	KindModule   Kind = "module"   // a module was loaded
	KindUnload   Kind = "unload"   // a module was removed
	KindCreds    Kind = "creds"    // a process's credentials changed
	KindMount    Kind = "mount"    // a file system was mounted
	KindUnmount  Kind = "unmount"  // … unmounted
	KindUnlink   Kind = "unlink"   // a log was deleted or emptied
	KindDevice   Kind = "device"   // a network interface came, went or changed
	KindBPF      Kind = "bpf"      // a BPF program came or went
	KindFinding  Kind = "finding"  // a finding of check's came or went
	KindProbe    Kind = "probe"    // a probe of the user's
	KindWrite    Kind = "write"    // a store into a watched range
	KindNewCode  Kind = "code"     // memory that no file backs can be executed
	KindRefused  Kind = "refused"  // a system call that asks for rights, or to change the kernel, was refused
	KindLost     Kind = "lost"     // events that found no room
	KindBoot     Kind = "boot"     // the guest booted again
	KindTerminal Kind = "terminal" // something was typed or shown at a terminal
	KindIOURing  Kind = "io_uring" // an operation of io_uring, when it has completed
	KindSession  Kind = "session"  // the recording of a terminal began or ended

	// Address spaces: processes without any knowledge of the system.
	KindSpaceCreate Kind = "addrspace-create" // one was loaded for the first time
	KindSpaceSwitch Kind = "addrspace-switch" // a processor goes on with another
	KindSpaceExit   Kind = "addrspace-exit"   // its page tables are gone
)

// Source says where an event comes from, and so what it can be trusted with.
type Source string

// The sources.
const (
	FromPlugin     Source = "plugin"     // each event, as it happens (TCG)
	FromBreakpoint Source = "breakpoint" // each event at a few places, as it happens; the guest stops for a moment
	FromPlanted    Source = "planted"    // each event, as it happens, from BPF programs that the guest's own kernel runs
	FromPolling    Source = "polling"    // what differs between two looks: what was shorter than that is not seen
)

// Event is one thing that happened. Sources reuse it: who keeps one copies it.
type Event struct {
	Time    time.Time // by the host's clock
	Guest   time.Time // by the guest's; zero: unknown
	Source  Source
	Kind    Kind
	VCPU    int // -1: unknown
	TID     int32
	Process *Process // never changes; nil: unknown
	Name    string   // of the system call, or of what was probed
	Args    string   // decoded, as strace writes them
	Fields  []string // the same, as NAME=VALUE each
	Object  string   // what it is about: a path, an address, a module
	Result  string   // "3", "-1 ENOENT (No such file or directory)"
	Return  int64    // as the kernel returned it; only where Returned
	Errno   string   // "ENOENT"; empty: no error
	// Returned says that there is a result; a system call may not return at all.
	Returned bool
	Duration time.Duration // from entry to return, by the host's clock; 0: unknown
	Terminal *Terminal     // of KindTerminal; else nil
	Note     string        // what marks it: why it matters, or what could not be read
	Lost     uint64        // events of the stream that were lost before this one, in all
}

// Process is what was known of a process when an event happened.
type Process struct {
	PID, PPID int32
	Comm      string
	Exe       string
	UID       uint32
	Container string        // short name; empty: none
	Parent    string        // comm of the parent
	Started   time.Duration // since boot: tells processes of one PID apart
}

var nobody = &Process{PID: -1, PPID: -1}

func (e *Event) process() *Process {
	if e.Process == nil {
		return nobody
	}
	return e.Process
}

func text(s string) table.Value {
	if s == "" {
		return table.Missing(table.None)
	}
	return table.TextValue(s)
}

func moment(t time.Time) table.Value {
	if t.IsZero() {
		return table.Missing(table.None)
	}
	return table.TimeValue(t)
}

func number(n int64, ok bool) table.Value {
	if !ok {
		return table.Missing(table.None)
	}
	return table.IntValue(n)
}

// Columns are the columns of events.
var Columns = table.Columns[Event]{
	{Name: "time", Type: table.Time, Doc: "When it happened, by the host's clock.", Get: func(e *Event) table.Value { return moment(e.Time) }},
	{Name: "event", Type: table.Text, Doc: "What happened: syscall, io_uring, exec, exit, connect, module, addrspace-create ….", Get: func(e *Event) table.Value { return text(string(e.Kind)) }},
	{Name: "pid", Type: table.Int, Doc: "Process that did it, in the initial PID namespace; missing where unknown.", Get: func(e *Event) table.Value { return number(int64(e.process().PID), e.process().PID >= 0) }},
	{Name: "tid", Type: table.Int, Extra: true, Doc: "Its thread.", Get: func(e *Event) table.Value { return number(int64(e.TID), e.TID > 0) }},
	{Name: "comm", Type: table.Text, Doc: "Name of the process (task_struct.comm).", Get: func(e *Event) table.Value { return text(e.process().Comm) }},
	{Name: "name", Type: table.Text, Doc: "System call, operation of io_uring, or what was probed.", Get: func(e *Event) table.Value { return text(e.Name) }},
	{Name: "object", Type: table.Text, Doc: "What it is about: a path, an address, a module, the root of an address space.", Get: func(e *Event) table.Value { return text(e.Object) }},
	{Name: "args", Type: table.Text, Doc: "Arguments, decoded as strace writes them.", Get: func(e *Event) table.Value { return text(e.Args) }},
	{Name: "result", Type: table.Text, Doc: "What a system call or operation returned; missing where it did not return.", Get: func(e *Event) table.Value { return text(e.Result) }},
	{Name: "note", Type: table.Text, Doc: "Why it matters, or what could not be read.", Get: func(e *Event) table.Value { return text(e.Note) }},
	{Name: "guest_time", Type: table.Time, Extra: true, Doc: "When it happened, by the guest's clock; missing where unknown.", Get: func(e *Event) table.Value { return moment(e.Guest) }},
	{Name: "source", Type: table.Text, Extra: true, Doc: "Who saw it: plugin (TCG), planted, breakpoint, polling.", Get: func(e *Event) table.Value { return text(string(e.Source)) }},
	{Name: "vcpu", Type: table.Int, Extra: true, Doc: "Virtual CPU on which it happened; missing where unknown.", Get: func(e *Event) table.Value { return number(int64(e.VCPU), e.VCPU >= 0) }},
	{Name: "ppid", Type: table.Int, Extra: true, Doc: "Parent of the process.", Get: func(e *Event) table.Value { return number(int64(e.process().PPID), e.process().PPID >= 0) }},
	{Name: "parent", Type: table.Text, Extra: true, Doc: "Name of the parent.", Get: func(e *Event) table.Value { return text(e.process().Parent) }},
	{Name: "exe", Type: table.Text, Extra: true, Doc: "Executable of the process.", Get: func(e *Event) table.Value { return text(e.process().Exe) }},
	{Name: "uid", Type: table.Int, Extra: true, Doc: "User of the process (real UID).", Get: func(e *Event) table.Value { return number(int64(e.process().UID), e.process().PID >= 0) }},
	{Name: "container", Type: table.Text, Extra: true, Doc: "Container of the process; missing where it is in none.", Get: func(e *Event) table.Value { return text(e.process().Container) }},
	{Name: "fields", Type: table.List, Extra: true, Doc: "Arguments, as NAME=VALUE each.", Get: func(e *Event) table.Value { return table.ListValue(e.Fields) }},
	{Name: "return", Type: table.Int, Extra: true, Doc: "What a system call returned, as a number.", Get: func(e *Event) table.Value { return number(e.Return, e.Returned) }},
	{Name: "errno", Type: table.Text, Extra: true, Doc: "Error that it returned, by name; missing where it is none.", Get: func(e *Event) table.Value { return text(e.Errno) }},
	{Name: "duration", Type: table.Duration, Extra: true, Doc: "From entry to return, by the host's clock, in seconds; of an address space that ended, how long it was there.", Get: func(e *Event) table.Value {
		if e.Duration == 0 {
			return table.Missing(table.None)
		}
		return table.DurationValue(e.Duration)
	}},
	{Name: "lost", Type: table.Uint, Extra: true, Doc: "Events that were lost before this one, in all.", Get: func(e *Event) table.Value { return table.UintValue(e.Lost) }},
}
