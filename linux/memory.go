package linux

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// maxArgs bounds the arguments of one process, in bytes. The kernel allows a
// quarter of the stack's limit, 2 MiB by default.
const maxArgs = 2 << 20

// stringSize is what a string costs beside its bytes.
const stringSize = 16

// UserSpace is the address space of the process whose mm_struct is at mm.
func (s *System) UserSpace(mm virt.Addr) (_ *virt.Space, err error) {
	pgd, err := s.Space.U64(mm + virt.Addr(s.o.pgd))
	if err != nil {
		return nil, fmt.Errorf("mm at %#x: %w", uint64(mm), err)
	}
	page, err := s.Space.Translate(virt.Addr(pgd))
	if err != nil {
		return nil, fmt.Errorf("page tables of mm at %#x: %w", uint64(mm), err)
	}
	return s.Space.WithRoot(page.PA), nil
}

// ExecutablePath is the path of what the process whose mm_struct is at mm was started
// from, and whether it was unlinked; empty without one.
func (l *ProcessReader) ExecutablePath(mm virt.Addr) (path string, deleted bool, err error) {
	path, err = kobj.Read(&l.r, func() (path string) {
		if file := l.r.Ptr(mm + virt.Addr(l.s.o.exeFile)); file != 0 && l.r.Err == nil {
			path, deleted = l.filePath(file)
		}
		return path
	})
	return path, deleted, err
}

// memory reads what p's mm_struct says.
func (l *ProcessReader) memory(ctx context.Context, p *Process, mm virt.Addr) {
	o, r := l.s.o, &l.r
	if l.reads(PartSize) {
		p.VSize = r.U64(mm+virt.Addr(o.totalVM)) * phys.PageSize
		l.part(p, PartSize)
	}
	if l.reads(PartResident) {
		p.RSS = l.rss(ctx, p, mm) * phys.PageSize
		l.part(p, PartResident)
	}
	if l.reads(PartExecutable) {
		if file := r.Ptr(mm + virt.Addr(o.exeFile)); file != 0 && r.Err == nil {
			p.Exe, p.ExeDeleted = l.filePath(file)
		}
		l.part(p, PartExecutable)
	}
	if !l.reads(PartArguments) {
		return
	}
	args, err := l.args(mm)
	p.Args = args
	if err != nil {
		p.Missing = append(p.Missing, MissingPart{PartArguments, err})
	}
}

// rss is how many pages are resident: the exact number, which is what
// /proc/PID/smaps_rollup shows. /proc/PID/stat of some kernels shows less, because
// it leaves out what each CPU (6.2 to 6.15) or thread (until 6.1) has not yet
// added to the sum.
func (l *ProcessReader) rss(ctx context.Context, p *Process, mm virt.Addr) uint64 {
	// MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, MM_SHMEMPAGES.
	counters := [...]uint32{0, 1, 3}
	o, r := l.s.o, &l.r
	if o.rssPercpu && l.s.CPUAreasErr != nil {
		r.Err = l.s.CPUAreasErr // the sum would lack what some of them hold
		return 0
	}
	var sum int64
	for _, i := range counters {
		at := mm + virt.Addr(o.rss)
		if !o.rssPercpu {
			sum += int64(r.U64(at + virt.Addr(8*i)))
			continue
		}
		at += virt.Addr(i * o.pcSize)
		sum += int64(r.U64(at + virt.Addr(o.pcCount)))
		slot := r.Ptr(at + virt.Addr(o.pcCounters))
		for _, cpu := range l.s.CPUAreas {
			if slot != 0 {
				sum += int64(int32(r.U32(slot + cpu)))
			}
		}
	}
	if o.taskRSS != kobj.NoOffset && o.taskRSSLen > 3 {
		for t, err := range l.Threads(ctx, p.Task) {
			if err != nil {
				r.Err = err
				break
			}
			for _, i := range counters {
				sum += int64(int32(r.U32(t.Addr + virt.Addr(o.taskRSS+4*i))))
			}
		}
	}
	return uint64(max(sum, 0))
}

// args reads a process's arguments as /proc/PID/cmdline does (fs/proc/base.c,
// get_mm_cmdline): the strings that exec put on the stack, unless the process
// wrote a title over them.
func (l *ProcessReader) args(mm virt.Addr) ([]string, error) {
	o, r := l.s.o, &l.r
	start, end := r.Ptr(mm+virt.Addr(o.argStart)), r.Ptr(mm+virt.Addr(o.argEnd))
	if r.Err != nil || start >= end {
		err := r.Err
		r.Err = nil
		return nil, err
	}
	space, err := l.s.UserSpace(mm)
	if err != nil {
		return nil, err
	}
	size := uint64(end - start)
	limit := min(maxArgs, uint64(l.textLeft))
	cut := size > limit
	if cut {
		size = limit
	}
	l.spend(int(size)) // the room for it costs, whether or not it can be read
	b := r.Scratch(int(size))
	n, err := space.ReadAt(b, start)
	switch {
	case err == nil && cut:
		err = fmt.Errorf("%d bytes at %#x: cut after %d", uint64(end-start), uint64(start), size)
	case err == nil && b[n-1] != 0:
		return l.title(space, start)
	}
	args := splitArgs(b[:n])
	l.spend(len(args) * stringSize)
	return args, err
}

// title reads what a process wrote over its arguments without a terminator at the
// end of them: up to the first NUL within a page (get_mm_proctitle).
func (l *ProcessReader) title(space *virt.Space, start virt.Addr) ([]string, error) {
	b := l.r.Scratch(phys.PageSize)
	n, err := space.ReadAt(b, start)
	if n == 0 {
		return nil, err
	}
	b = b[:n]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i+1]
	}
	args := splitArgs(b)
	if !l.spend(len(b) + len(args)*stringSize) {
		return nil, kobj.ErrBudget
	}
	return args, nil
}

// splitArgs splits NUL-terminated strings; the last terminator may be missing.
func splitArgs(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}
