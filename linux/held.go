package linux

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// FileHolder is one file descriptor of a process.
type FileHolder struct {
	PID int32
	FD  int
}

func (h FileHolder) String() string { return fmt.Sprintf("%d/%d", h.PID, h.FD) }

// heldLayout is how file descriptors lead to kernel objects.
type heldLayout struct {
	files, fdt, maxFDs, fds, op, private kobj.Field
}

func (s *System) heldLayout() (*heldLayout, error) {
	return kobj.LayoutOf(s.Walker, "file descriptors", func(r *kobj.Resolver, o *heldLayout) {
		o.files, o.fdt = r.Field("task_struct", "files"), r.Field("files_struct", "fdt")
		o.maxFDs, o.fds = r.Field("fdtable", "max_fds"), r.Field("fdtable", "fd")
		o.op, o.private = r.Field("file", "f_op"), r.Field("file", "private_data")
	})
}

// HeldObject is a kernel object behind a file descriptor.
type HeldObject struct {
	FileHolder
	Ops    virt.Addr // struct file_operations
	File   virt.Addr // struct file
	Object virt.Addr // its private data

	slot virt.Addr // of the table of descriptors
}

// StillHeld reports whether the descriptor leads to the same file now: what was read of one that
// was closed meanwhile is not the guest's. Nor is what was read while its memory was free, which
// [System.Fresh] reads again: the kernel gives the next file that is opened the memory of the last
// that was closed.
func (s *System) StillHeld(h HeldObject) bool {
	file, err := s.Space.Live().U64(h.slot)
	return err == nil && virt.Addr(file) == h.File
}

const (
	maxHeldFDs = 1 << 20 // of one process; the default of fs.nr_open
	heldBudget = 8 << 20 // of all
	maxNotHeld = 64      // descriptors of one process that lead to no file
)

// HeldObjects calls f for each file descriptor of each process whose operations are
// one of ops (names of struct file_operations), and fail for what cannot be read.
// Processes that share a table of descriptors each hold what is in it. Descriptors in
// flight over a socket are not seen.
func (s *System) HeldObjects(ctx context.Context, ops []string, f func(HeldObject), fail func(error)) error {
	o, err := s.heldLayout()
	if err != nil {
		return err
	}
	if err := s.Prefetch(ops...); err != nil {
		return err
	}
	var wanted []virt.Addr
	for _, name := range ops {
		if a, ok := s.Address(name); ok {
			wanted = append(wanted, a)
		}
	}
	if len(wanted) == 0 {
		return nil // the kernel has no such objects
	}
	return s.held(ctx, o, wanted, f, fail)
}

// HeldFiles is HeldObjects for every file descriptor, whatever operations it has.
func (s *System) HeldFiles(ctx context.Context, f func(HeldObject), fail func(error)) error {
	o, err := s.heldLayout()
	if err != nil {
		return err
	}
	return s.held(ctx, o, nil, f, fail)
}

// held is HeldObjects for operations of these addresses, or for all.
func (s *System) held(ctx context.Context, o *heldLayout, wanted []virt.Addr, f func(HeldObject), fail func(error)) error {
	w := heldWalk{s: s, o: o, r: s.Reader(), wanted: wanted, left: heldBudget, known: map[virt.Addr]virt.Addr{}}
	for t, err := range s.Processes(ctx) {
		if err == nil {
			err = w.table(t, f)
		}
		if err != nil {
			fail(err)
		}
		if w.left <= 0 {
			fail(fmt.Errorf("file descriptors: %w", kobj.ErrBudget))
			return nil
		}
	}
	return nil
}

// heldTries is how often the table of a process is read that changes meanwhile.
const heldTries = 3

type heldWalk struct {
	s      *System
	o      *heldLayout
	r      kobj.Reader
	wanted []virt.Addr // nil: all
	left   int
	known  map[virt.Addr]virt.Addr // operations by struct file, as many share one
}

func (w *heldWalk) table(t Task, f func(HeldObject)) error {
	found, err := w.look(t)
	for try := 1; err != nil && try < heldTries; try++ {
		// A file that was closed, or a process that ended, while its table was read.
		now := w.s.Walker.Fresh()
		if now == w.s.Walker {
			break
		}
		w.r = now.Reader()
		found, err = w.look(t)
	}
	w.r = w.s.Reader()
	if err != nil {
		return fmt.Errorf("file descriptors of task at %#x: %w", uint64(t.Addr), err)
	}
	for _, h := range found {
		f(h)
	}
	return nil
}

// look collects first, so that no fault of the caller's is taken for the guest's.
func (w *heldWalk) look(t Task) (found []HeldObject, err error) {
	o, r := w.o, &w.r
	r.Err = nil
	pid := int32(r.U32(t.Addr + virt.Addr(w.s.o.tgid)))
	files := r.Pointer(t.Addr, o.files)
	if files == 0 || r.Err != nil {
		return nil, r.Err // a kernel thread's are init's, a zombie has none
	}
	fdt := r.Pointer(files, o.fdt)
	n := int(min(r.Uint(fdt, o.maxFDs), maxHeldFDs))
	list := r.Pointer(fdt, o.fds)
	const chunk = phys.PageSize / 8
	var words [chunk]virt.Addr
	bad := 0
	for first := 0; first < n && r.Err == nil && w.left > 0; first += chunk {
		part := words[:min(chunk, n-first)]
		w.left -= len(part)
		raw := r.Bytes(list+virt.Addr(8*first), 8*len(part))
		for i := range part {
			part[i] = virt.Addr(binary.LittleEndian.Uint64(raw[8*i:]))
		}
		for i, file := range part {
			if file == 0 {
				continue
			}
			ops, ok := w.known[file]
			if !ok {
				if ops = r.Pointer(file, o.op); r.Err != nil {
					err, r.Err = r.Err, nil // of this one; the others may be fine
					if bad++; bad > maxNotHeld {
						return found, fmt.Errorf("table at %#x: %w: its entries are not files: %w", uint64(list), kobj.ErrBroken, err)
					}
					continue
				}
				w.known[file] = ops
			}
			if w.wanted == nil || slices.Contains(w.wanted, ops) {
				found = append(found, HeldObject{FileHolder{pid, first + i}, ops, file, r.Pointer(file, o.private), list + virt.Addr(8*(first+i))})
			}
		}
	}
	if r.Err != nil {
		return found, r.Err
	}
	return found, err
}
