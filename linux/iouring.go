package linux

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// IOUring is one ring of io_uring, as a process holds it by a file descriptor.
type IOUring struct {
	FileHolder
	Addr                 virt.Addr // of the struct io_ring_ctx
	Flags                []string  // it was set up with: "SQPOLL", "IOPOLL" …
	SQEntries, CQEntries uint32
	SQHead, SQTail       uint32 // of the submissions: taken by the kernel, put by the process
	CQHead, CQTail       uint32 // of the completions: taken by the process, put by the kernel
	Overflow             uint32 // completions for which there was no room
	Files                []string
	Buffers              uint32 // registered
	SQThread             int32  // pid of the kernel's thread that takes submissions; 0 without
	SQThreadCPU          int32  // that it is bound to; -1 if to none, or without a thread
	Credentials          uint32 // registered personalities, of other users maybe
	Pending              []IOUringRequest
}

// IOUringRequest is a request that waits, and can be cancelled.
type IOUringRequest struct {
	Op       string
	UserData uint64 // the process's own mark
	File     string // path; empty without one
}

func (q IOUringRequest) String() string {
	text := fmt.Sprintf("%s %#x", q.Op, q.UserData)
	if q.File != "" {
		text += " " + q.File
	}
	return text
}

type ioUringLayout struct {
	flags, rings, sq, cq, sqEntries, cqEntries             kobj.Field
	head, tail, overflow                                   kobj.Field
	fileTable, fileNr, fileNodes, bufNr                    kobj.Field
	nodeFile, sqData, thread, sqCPU, personalities         kobj.Field
	hash, hashBits, table, locked, buckets, bits, hashList kobj.Field
	hashNode, opcode, userData, reqFile                    kobj.Field
	bucketSize                                             uint32
}

func (s *System) ioUringLayout() (*ioUringLayout, error) {
	return kobj.LayoutOf(s.Walker, "io_uring", func(r *kobj.Resolver, o *ioUringLayout) {
		const c, q = "io_ring_ctx", "io_kiocb"
		r.Prefetch("io_uring_fops")
		o.flags, o.rings = r.Field(c, "flags"), r.Field(c, "rings")
		o.sqEntries, o.cqEntries = r.Field(c, "sq_entries"), r.Field(c, "cq_entries")
		o.sq, o.cq, o.overflow = r.Field("io_rings", "sq"), r.Field("io_rings", "cq"), r.Field("io_rings", "cq_overflow")
		o.head, o.tail = r.Field("io_uring", "head"), r.Field("io_uring", "tail")
		o.fileTable = r.Optional(c, "file_table.data.nodes", "file_table.files") // 6.13; 5.12
		o.fileNodes = r.Optional(c, "file_table.data.nodes")
		o.fileNr = r.Optional(c, "file_table.data.nr", "nr_user_files")
		o.bufNr = r.Optional(c, "buf_table.nr", "nr_user_bufs") // 6.13
		o.nodeFile = r.Optional("io_rsrc_node", "file_ptr")
		o.sqData, o.thread = r.Field(c, "sq_data"), r.Optional("io_sq_data", "thread")
		o.sqCPU, o.personalities = r.Optional("io_sq_data", "sq_cpu"), r.Optional(c, "personalities")
		o.hash, o.hashBits = r.Optional(c, "cancel_hash"), r.Optional(c, "cancel_hash_bits") // up to 5.19
		o.table, o.locked = r.Optional(c, "cancel_table"), r.Optional(c, "cancel_table_locked")
		o.buckets, o.bits = r.Optional("io_hash_table", "hbs"), r.Optional("io_hash_table", "hash_bits")
		o.hashList = r.Optional("io_hash_bucket", "list")
		o.bucketSize, _ = r.Types.StructSize("io_hash_bucket")
		o.hashNode, o.opcode = r.Optional(q, "hash_node"), r.Optional(q, "opcode")
		o.userData, o.reqFile = r.Optional(q, "cqe.user_data", "user_data"), r.Optional(q, "file") // 5.19
	})
}

// ioUringFlags are IORING_SETUP_…, by bit.
var ioUringFlags = [...]string{
	"IOPOLL", "SQPOLL", "SQ_AFF", "CQSIZE", "CLAMP", "ATTACH_WQ", "R_DISABLED", "SUBMIT_ALL", "COOP_TASKRUN",
	"TASKRUN_FLAG", "SQE128", "CQE32", "SINGLE_ISSUER", "DEFER_TASKRUN", "NO_MMAP", "REGISTERED_FD_ONLY",
	"NO_SQARRAY", "HYBRID_IOPOLL", "CQE_MIXED", "SQE_MIXED", "SQ_REWIND",
}

const (
	maxRingFiles    = 1 << 15 // IORING_MAX_FIXED_FILES is a million: named are so many
	maxRingBits     = 16
	maxRingRequests = 1 << 14
	maxErrs         = 1000 // that are kept of descriptors
)

// IOUrings yields the rings of io_uring that processes hold by a file descriptor. A
// ring that several hold comes once for each. Rings without a descriptor
// (REGISTERED_FD_ONLY) are not among them.
func (s *System) IOUrings(ctx context.Context) iter.Seq2[*IOUring, error] {
	return func(yield func(*IOUring, error) bool) {
		o, err := s.ioUringLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		var held []HeldObject
		var errs []error
		err = s.HeldObjects(ctx, []string{"io_uring_fops"}, func(h HeldObject) { held = append(held, h) }, func(err error) {
			if len(errs) < maxErrs {
				errs = append(errs, err)
			}
		})
		if err != nil {
			errs = append(errs, err)
		}
		for _, err := range errs {
			if !yield(nil, err) {
				return
			}
		}
		l := s.NewProcessReader()
		for _, h := range held {
			u, err := o.read(ctx, l, h)
			if !yield(u, err) {
				return
			}
		}
	}
}

func (o *ioUringLayout) read(ctx context.Context, l *ProcessReader, h HeldObject) (_ *IOUring, err error) {
	r, a := &l.r, h.Object
	r.Err = nil
	u := &IOUring{FileHolder: h.FileHolder, Addr: a, SQThreadCPU: -1}
	flags := r.Uint(a, o.flags)
	for i := range 32 {
		if flags>>i&1 == 0 {
			continue
		}
		if i < len(ioUringFlags) {
			u.Flags = append(u.Flags, ioUringFlags[i])
		} else {
			u.Flags = append(u.Flags, fmt.Sprintf("bit %d", i))
		}
	}
	u.SQEntries, u.CQEntries = uint32(r.Uint(a, o.sqEntries)), uint32(r.Uint(a, o.cqEntries))
	if r.Err != nil {
		return nil, fmt.Errorf("ring at %#x: %w", uint64(a), r.Err)
	}
	if rings := r.Pointer(a, o.rings); rings != 0 {
		sq, cq := o.sq.At(rings), o.cq.At(rings)
		u.SQHead, u.SQTail = uint32(r.Uint(sq, o.head)), uint32(r.Uint(sq, o.tail))
		u.CQHead, u.CQTail = uint32(r.Uint(cq, o.head)), uint32(r.Uint(cq, o.tail))
		u.Overflow = uint32(r.Uint(rings, o.overflow))
	}
	u.Buffers = uint32(r.Uint(a, o.bufNr))
	if sqd := r.Pointer(a, o.sqData); sqd != 0 {
		u.SQThreadCPU = int32(r.Int(sqd, o.sqCPU))
		if t := r.Pointer(sqd, o.thread); t != 0 {
			u.SQThread = int32(r.U32(t + virt.Addr(l.s.o.pid)))
		}
	}
	if o.personalities.Present() && r.Err == nil {
		for _, err := range l.s.XArray(ctx, o.personalities.At(a), 1<<16) {
			if err != nil {
				r.Err = err
				break
			}
			u.Credentials++
		}
	}
	o.registered(l, u)
	o.pending(ctx, l, u)
	if r.Err != nil {
		return u, fmt.Errorf("ring at %#x: %w", uint64(a), r.Err)
	}
	return u, nil
}

// registered names the registered files.
func (o *ioUringLayout) registered(l *ProcessReader, u *IOUring) {
	o.registeredFiles(&l.r, u.Addr, func(file virt.Addr) bool {
		u.Files = append(u.Files, l.ringFile(file))
		return true
	})
}

// RegisteredFiles returns a function that calls f with each file that is registered with
// the io_uring at a (a struct io_ring_ctx), until it returns false; an error stays in r.
func (s *System) RegisteredFiles() (func(r *kobj.Reader, a virt.Addr, f func(file virt.Addr) bool), error) {
	o, err := s.ioUringLayout()
	if err != nil {
		return nil, err
	}
	return o.registeredFiles, nil
}

// registeredFiles calls f with each registered file of the ring at a.
func (o *ioUringLayout) registeredFiles(r *kobj.Reader, a virt.Addr, f func(file virt.Addr) bool) {
	n := min(r.Uint(a, o.fileNr), maxRingFiles)
	list := r.Pointer(a, o.fileTable)
	if list == 0 {
		return
	}
	for i := range n {
		file := r.Ptr(list + virt.Addr(8*i))
		if file != 0 && o.fileNodes.Present() { // 6.13: a node between
			file = r.Pointer(file, o.nodeFile)
		}
		if r.Err != nil {
			return
		}
		if file &^= 7; file != 0 && !f(file) { // the low bits are flags
			return
		}
	}
}

// ringFile is the path or the name of a file; an error stays in the reader.
func (l *ProcessReader) ringFile(a virt.Addr) string {
	o, err := l.s.filesLayout()
	if err != nil {
		l.r.Err = err
		return ""
	}
	f, err := l.fileAt(a, o)
	if err != nil {
		l.r.Err = err
		return ""
	}
	return f.Path
}

// pending collects the requests in the tables of those that can be cancelled.
func (o *ioUringLayout) pending(ctx context.Context, l *ProcessReader, u *IOUring) {
	r, a := &l.r, u.Addr
	if o.hash.Present() {
		o.bucketsAt(ctx, l, u, r.Pointer(a, o.hash), r.Uint(a, o.hashBits), 8)
	}
	for _, table := range [...]kobj.Field{o.table, o.locked} {
		if table.Present() && o.buckets.Present() {
			o.bucketsAt(ctx, l, u, r.Pointer(table.At(a), o.buckets), r.Uint(table.At(a), o.bits), o.bucketSize)
		}
	}
}

func (o *ioUringLayout) bucketsAt(ctx context.Context, l *ProcessReader, u *IOUring, list virt.Addr, bits uint64, size uint32) {
	r := &l.r
	if list == 0 || r.Err != nil || !o.hashNode.Present() {
		return
	}
	first := virt.Addr(0)
	if o.hashList.Present() {
		first = virt.Addr(o.hashList.Offset)
	}
	for i := range uint64(1) << min(bits, maxRingBits) {
		head := list + virt.Addr(i*uint64(size)) + first
		if r.Ptr(head) == 0 {
			if r.Err != nil {
				return
			}
			continue
		}
		for node, err := range l.s.HList(ctx, head, maxRingRequests) {
			if err != nil || len(u.Pending) == maxRingRequests {
				r.Err = err
				return
			}
			q := node - virt.Addr(o.hashNode.Offset)
			p := IOUringRequest{Op: kobj.EnumName(ioUringOps[:], r.Uint(q, o.opcode)), UserData: r.Uint(q, o.userData)}
			if f := r.Pointer(q, o.reqFile); f != 0 {
				p.File = l.ringFile(f)
			}
			if r.Err != nil {
				return
			}
			u.Pending = append(u.Pending, p)
		}
	}
}

// IOUringOp is the name of an operation by its number, as liburing has it.
func IOUringOp(n uint64) string { return kobj.EnumName(ioUringOps[:], n) }

// ioUringOps is enum io_uring_op of Linux 7.2, of which older kernels have a beginning.
// The names are liburing's.
var ioUringOps = [...]string{
	"nop", "readv", "writev", "fsync", "read_fixed", "write_fixed", "poll_add", "poll_remove",
	"sync_file_range", "sendmsg", "recvmsg", "timeout", "timeout_remove", "accept", "async_cancel",
	"link_timeout", "connect", "fallocate", "openat", "close", "files_update", "statx", "read", "write",
	"fadvise", "madvise", "send", "recv", "openat2", "epoll_ctl", "splice", "provide_buffers", "remove_buffers",
	"tee", "shutdown", "renameat", "unlinkat", "mkdirat", "symlinkat", "linkat", "msg_ring", "fsetxattr",
	"setxattr", "fgetxattr", "getxattr", "socket", "uring_cmd", "send_zc", "sendmsg_zc", "read_multishot",
	"waitid", "futex_wait", "futex_wake", "futex_waitv", "fixed_fd_install", "ftruncate", "bind", "listen",
	"recv_zc", "epoll_wait", "readv_fixed", "writev_fixed", "pipe", "nop128", "uring_cmd128",
}
