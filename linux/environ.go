package linux

import (
	"errors"
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/virt"
)

// EnvVariable is one string of a process's environment.
type EnvVariable struct {
	Name, Value string
	Set         bool // it has a "=": without one, all of it is the name
}

// maxEnviron bounds the environment of one process, in bytes; the kernel's limit is
// the one of [maxArgs], for both together.
const maxEnviron = 2 << 20

// Environment is the environment of the process that t leads, in the order in which
// it lies in its memory, as /proc/PID/environ shows it: what exec put there, with
// what the process wrote over it since. What it set later (setenv) is elsewhere.
// The variables before an error are good. Kernel threads and zombies have none.
func (l *ProcessReader) Environment(t Task) (_ []EnvVariable, err error) {
	o, r := l.s.o, &l.r
	r.Err = nil
	flags, mm := r.U32(t.Addr+virt.Addr(o.flags)), r.Ptr(t.Addr+virt.Addr(o.mm))
	if r.Err != nil {
		return nil, fmt.Errorf("environment of task %#x: %w", uint64(t.Addr), r.Err)
	}
	if mm == 0 || flags&flagKthread != 0 {
		return nil, nil
	}
	start, end := r.Ptr(mm+virt.Addr(o.envStart)), r.Ptr(mm+virt.Addr(o.envEnd))
	if r.Err != nil || start >= end {
		return nil, r.Err
	}
	space, err := l.s.UserSpace(mm)
	if err != nil {
		return nil, err
	}
	var cut error
	size := uint64(end - start)
	if limit := min(maxEnviron, uint64(l.textLeft)); size > limit {
		cut = fmt.Errorf("environment of %d bytes at %#x: cut after %d", size, uint64(start), limit)
		size = limit
	}
	l.spend(int(size))
	b := r.Scratch(int(size))
	n, err := space.ReadAt(b, start)
	if err != nil {
		err = fmt.Errorf("environment at %#x: %w", uint64(start), err)
	}
	vars := splitEnviron(string(b[:n]))
	l.spend(len(vars) * 3 * stringSize)
	return vars, errors.Join(err, cut)
}

// splitEnviron splits NUL-terminated "name=value" strings. Empty ones are what is
// left of variables that were cleared, and are skipped.
func splitEnviron(b string) []EnvVariable {
	var vars []EnvVariable
	for len(b) > 0 {
		var one string
		one, b, _ = strings.Cut(b, "\x00")
		if one == "" {
			continue
		}
		v := EnvVariable{}
		v.Name, v.Value, v.Set = strings.Cut(one, "=")
		vars = append(vars, v)
	}
	return vars
}
