package linux

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// FileLock is a lock on a file, or one that is waited for.
type FileLock struct {
	Kind    string // POSIX, OFDLCK, FLOCK, LEASE, DELEG, LAYOUT as in /proc/locks; ACCESS is a POSIX lock of the kernel's own
	Mode    string // READ, WRITE, or of a lease also UNLCK: it is being given up
	PID     int32  // who took it, in the initial PID namespace
	Device  Device
	Inode   uint64
	Start   int64
	End     int64 // the last byte; -1: to the end of the file
	Blocked bool  // it waits for Blocker
	Blocker virt.Addr
	Path    string
	Deleted bool
	Address virt.Addr
}

type lockLayout struct {
	link, flags, kind, pid, file, start, end kobj.Field
	requests, member, blocker                kobj.Field
	hlist                                    kobj.Field
	inode, ino, super, dev                   kobj.Field
}

func (s *System) lockLayout() (*lockLayout, error) {
	return kobj.LayoutOf(s.Walker, "file locks", func(r *kobj.Resolver, o *lockLayout) {
		r.Prefetch("file_lock_list")
		const l = "file_lock"
		member := func(name string) kobj.Field { return r.Field(l, "c.flc_"+name, "fl_"+name) } // 6.9
		o.link, o.flags, o.kind, o.pid = member("link"), member("flags"), member("type"), member("pid")
		o.file, o.requests, o.member, o.blocker = member("file"), member("blocked_requests"), member("blocked_member"), member("blocker")
		o.start, o.end = r.Field(l, "fl_start"), r.Field(l, "fl_end")
		o.hlist = r.Field("file_lock_list_struct", "hlist")
		o.inode, o.ino, o.super = r.Field("file", "f_inode"), r.Field("inode", "i_ino"), r.Field("inode", "i_sb")
		o.dev = r.Field("super_block", "s_dev")
	})
}

// maxLocks bounds how many locks are looked at.
const maxLocks = 1 << 18

// FileLocks yields the locks on files, processor by processor as the kernel lists
// them, each with those that wait for it behind it.
func (s *System) FileLocks(ctx context.Context) iter.Seq2[*FileLock, error] {
	return func(yield func(*FileLock, error) bool) {
		o, err := s.lockLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		if err := s.CPUAreasErr; err != nil && !yield(nil, fmt.Errorf("file locks: %w", err)) {
			return
		}
		w := &lockWalk{s: s, ctx: ctx, o: o, l: s.NewProcessReader(), left: maxLocks, seen: map[virt.Addr]struct{}{}, yield: yield}
		for cpu := range s.CPUAreas {
			head, err := s.PerCPU("file_lock_list", cpu)
			if err != nil {
				yield(nil, fmt.Errorf("file locks: %w", err))
				return
			}
			for node, err := range s.HList(ctx, o.hlist.At(head), maxLocks) {
				if err != nil {
					err = fmt.Errorf("file locks: %w", err)
				}
				if err == nil && !w.lock(node-virt.Addr(o.link.Offset), 0) || err != nil && !yield(nil, err) {
					return
				}
			}
		}
	}
}

type lockWalk struct {
	s     *System
	ctx   context.Context
	o     *lockLayout
	l     *ProcessReader
	left  int
	seen  map[virt.Addr]struct{}
	yield func(*FileLock, error) bool
}

// lock yields the lock at a and those that wait for it; false ends the walk.
func (w *lockWalk) lock(a virt.Addr, depth int) bool {
	const maxDepth = 64 // of locks that wait for locks that wait
	if w.left--; w.left < 0 || depth > maxDepth {
		return w.yield(nil, fmt.Errorf("file locks: %w", kobj.ErrBudget)) && w.left >= 0
	}
	if _, twice := w.seen[a]; twice {
		return w.yield(nil, fmt.Errorf("file lock at %#x: %w: it is there twice", uint64(a), kobj.ErrBroken))
	}
	w.seen[a] = struct{}{}
	k := &FileLock{Address: a, Blocked: depth > 0}
	if err := w.read(k); err != nil {
		return w.yield(nil, fmt.Errorf("file lock at %#x: %w", uint64(a), err))
	}
	if !w.yield(k, nil) {
		return false
	}
	for node, err := range w.s.List(w.ctx, w.o.requests.At(a), maxLocks) {
		if err != nil {
			if !w.yield(nil, fmt.Errorf("file lock at %#x: %w", uint64(a), err)) {
				return false
			}
			continue
		}
		if !w.lock(node-virt.Addr(w.o.member.Offset), depth+1) {
			return false
		}
	}
	return true
}

// read follows lock_get_status.
func (w *lockWalk) read(k *FileLock) error {
	const (
		posix, flock, deleg, access, lease, ofd, layout = 1, 2, 4, 8, 32, 1024, 2048 // FL_… (include/linux/filelock.h)
		unlockPending, downgrade                        = 512, 256
		readLock, writeLock                             = 0, 1 // F_RDLCK, F_WRLCK
	)
	o, r := w.o, &w.l.r
	r.Err = nil
	flags, kind := r.Uint(k.Address, o.flags), r.Uint(k.Address, o.kind)
	switch {
	case flags&access != 0:
		k.Kind = "ACCESS"
	case flags&ofd != 0:
		k.Kind = "OFDLCK"
	case flags&posix != 0:
		k.Kind = "POSIX"
	case flags&flock != 0:
		k.Kind = "FLOCK"
	case flags&deleg != 0:
		k.Kind = "DELEG"
	case flags&lease != 0:
		k.Kind = "LEASE"
	case flags&layout != 0:
		k.Kind = "LAYOUT"
	default:
		k.Kind = fmt.Sprintf("%#x", flags)
	}
	if flags&(lease|deleg|layout) != 0 { // target_leasetype
		switch {
		case flags&unlockPending != 0:
			kind = 2
		case flags&downgrade != 0:
			kind = readLock
		}
	}
	switch kind {
	case readLock:
		k.Mode = "READ"
	case writeLock:
		k.Mode = "WRITE"
	default:
		k.Mode = "UNLCK"
	}
	k.PID = int32(r.Uint(k.Address, o.pid))
	k.Start, k.End = r.Int(k.Address, o.start), r.Int(k.Address, o.end)
	if flags&posix == 0 { // of all of the file; since 6.9 a lease has no such members
		k.Start, k.End = 0, -1
	}
	if k.End == 1<<63-1 { // OFFSET_MAX
		k.End = -1
	}
	k.Blocker = r.Pointer(k.Address, o.blocker)
	file := r.Pointer(k.Address, o.file)
	if file == 0 || r.Err != nil {
		return r.Err
	}
	inode := r.Pointer(file, o.inode)
	k.Inode, k.Device = r.Uint(inode, o.ino), Device(r.Uint(r.Pointer(inode, o.super), o.dev))
	k.Path, k.Deleted = w.l.filePath(file)
	return r.Err
}
