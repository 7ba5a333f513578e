// Package hooks is where a Linux guest's kernel lets code be called or replaced: system
// calls, the interrupt descriptor table, security modules, ftrace, kprobes, tracepoints,
// notifiers, binary formats and algorithms.
package hooks
