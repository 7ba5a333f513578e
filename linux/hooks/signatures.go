package hooks

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Signature is what the kernel notes of a system call for tracing (struct syscall_metadata):
// what its source declares.
type Signature struct {
	Name   string // without "sys_"
	Number int
	Types  []string // "const char *"
	Args   []string // "filename"
}

const (
	maxSyscallArgs = 6
	maxSyscallName = 64
	maxSyscallType = 128 // the longest of 7.2 has 48
)

// ErrNoSignatures says that the kernel was built without CONFIG_FTRACE_SYSCALLS.
var ErrNoSignatures = errors.New("the kernel notes no signatures of system calls (CONFIG_FTRACE_SYSCALLS)")

// Signatures returns the signatures of the 64-bit system calls by number; nil where the kernel notes none. What can
// be read is there also if there is an error.
func Signatures(ctx context.Context, s *linux.System) ([]*Signature, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := maxSyscalls
	if _, size, ok := s.TableAt("sys_call_table"); ok {
		n = int(min(size/8, maxSyscalls))
	}
	all, err := signatures(s, n, true)
	if err == nil && all == nil {
		return nil, ErrNoSignatures
	}
	return all, err
}

type syscallLayout struct{ name, nr, count, types, args kobj.Field }

// signatures reads the first n signatures, or only the names; nil if the kernel has none.
func signatures(s *linux.System, n int, whole bool) ([]*Signature, error) {
	o, err := kobj.LayoutOf(s.Walker, "signatures of system calls", func(r *kobj.Resolver, o *syscallLayout) {
		o.name, o.nr = r.Field("syscall_metadata", "name"), r.Field("syscall_metadata", "syscall_nr")
		o.count = r.Field("syscall_metadata", "nb_args")
		o.types, o.args = r.Field("syscall_metadata", "types"), r.Field("syscall_metadata", "args")
	})
	if err != nil {
		return nil, nil //nolint:nilerr // built without: the symbols alone show it
	}
	array, err := s.Pointer("syscalls_metadata")
	if err != nil || array == 0 {
		return nil, nil //nolint:nilerr // built without
	}
	entries, err := s.Pointers(array, n)
	if err != nil {
		return nil, fmt.Errorf("signatures of system calls: %w", err)
	}
	var errs []error
	all := make([]*Signature, n)
	r := s.Reader()
	for nr, e := range entries {
		if e == 0 || r.Int(e, o.nr) != int64(nr) {
			continue
		}
		m := &Signature{Number: nr, Name: strings.TrimPrefix(r.CString(r.Pointer(e, o.name), maxSyscallName), "sys_")}
		if whole {
			count := int(r.Int(e, o.count))
			if count < 0 || count > maxSyscallArgs {
				errs = append(errs, fmt.Errorf("signature of system call %d at %#x: %d arguments", nr, e, count))
				continue
			}
			m.Types = signatureStrings(&r, r.Pointer(e, o.types), count, maxSyscallType)
			m.Args = signatureStrings(&r, r.Pointer(e, o.args), count, maxSyscallName)
		}
		if r.Err != nil {
			errs = append(errs, fmt.Errorf("signature of system call %d at %#x: %w", nr, e, r.Err))
			r = s.Reader()
			continue
		}
		all[nr] = m
	}
	if len(errs) > 0 {
		return all, fmt.Errorf("signatures of system calls: %d cannot be read: %w", len(errs), errs[0])
	}
	return all, nil
}

// signatureStrings reads n strings through the pointers at a.
func signatureStrings(r *kobj.Reader, a virt.Addr, n, limit int) []string {
	all := make([]string, 0, n)
	for i := range n {
		all = append(all, r.CString(r.Ptr(a+virt.Addr(8*i)), limit))
	}
	return all
}
