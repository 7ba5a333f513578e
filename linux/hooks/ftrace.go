package hooks

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"sort"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// FtraceOp is one user of function tracing: a function that is called when
// functions are entered.
type FtraceOp struct {
	Addr           virt.Addr // struct ftrace_ops
	Func           virt.Addr // that is called
	Saved          virt.Addr // that is called behind it, where it filters by process
	Trampoline     virt.Addr // code made for it alone; 0 none
	TrampolineSize uint64
	Direct         virt.Addr // that traced functions call directly instead
	Private        virt.Addr // what Func gets
	Flags          []string
	// Filter and NoTrace are functions that are traced, and those that are not. No
	// filter means every function.
	Filter, NoTrace         []virt.Addr
	FilterSize, NoTraceSize uint64 // as the kernel counts them
}

// FtraceSite is one function that is being traced.
type FtraceSite struct {
	Record virt.Addr // struct dyn_ftrace
	Site   virt.Addr // of the call in the function's beginning
	Users  int       // how many ask for it
	Flags  []string
	// Enabled says that the call is in place; else it was once.
	Enabled bool
}

type ftraceLayout struct {
	fn, next, flags, private, saved, hash, tramp, trampSize, direct kobj.Field
	notrace, filter, bits, buckets, count, hlist, ip                kobj.Field
	pageNext, pageRecords, pageIndex, recIP, recFlags               kobj.Field
	list                                                            kobj.Field
	recSize                                                         uint32
}

// ftraceOpsFlags are FTRACE_OPS_FL_* (include/linux/ftrace.h).
var ftraceOpsFlags = map[uint]string{
	0: "enabled", 1: "dynamic", 2: "save_regs", 3: "save_regs_if_supported", 4: "recursion", 5: "stub",
	6: "initialized", 7: "deleted", 8: "adding", 9: "removing", 10: "modifying", 11: "alloc_tramp",
	12: "ipmodify", 13: "pid", 14: "rcu", 15: "trace_array", 16: "permanent", 17: "direct", 18: "subop", 19: "graph", 20: "jmp",
}

// ftraceSiteFlags are FTRACE_FL_* (the same). Lower ones came later; 19 bits are
// left to count users, and all earlier kernels count as few.
var ftraceSiteFlags = map[uint]string{
	31: "enabled", 30: "regs", 29: "regs_enabled", 28: "trampoline", 27: "trampoline_enabled", 26: "ipmodify",
	25: "disabled", 24: "direct", 23: "direct_enabled", 22: "call_ops", 21: "call_ops_enabled", 20: "touched", 19: "modified",
}

const ftraceUsers = 1<<19 - 1

func ftraceLayoutOf(s *linux.System) (*ftraceLayout, error) {
	return kobj.LayoutOf(s.Walker, "ftrace", func(r *kobj.Resolver, o *ftraceLayout) {
		r.Prefetch("ftrace_ops_list", "ftrace_list_end", "ftrace_pages_start")
		const f, h, p, d = "ftrace_ops", "ftrace_hash", "ftrace_page", "dyn_ftrace"
		o.fn, o.next, o.flags, o.private = r.Field(f, "func"), r.Field(f, "next"), r.Field(f, "flags"), r.Field(f, "private")
		o.saved, o.hash = r.Optional(f, "saved_func"), r.Field(f, "func_hash")
		o.tramp, o.trampSize = r.Field(f, "trampoline"), r.Optional(f, "trampoline_size")
		o.direct = r.Optional(f, "direct_call") // 6.0
		o.list = r.Optional(f, "list")          // 5.9
		o.notrace, o.filter = r.Field("ftrace_ops_hash", "notrace_hash"), r.Field("ftrace_ops_hash", "filter_hash")
		o.bits, o.buckets, o.count = r.Field(h, "size_bits"), r.Field(h, "buckets"), r.Field(h, "count")
		o.hlist, o.ip = r.Field("ftrace_func_entry", "hlist"), r.Field("ftrace_func_entry", "ip")
		o.pageNext, o.pageRecords, o.pageIndex = r.Field(p, "next"), r.Field(p, "records"), r.Field(p, "index")
		o.recIP, o.recFlags, o.recSize = r.Field(d, "ip"), r.Field(d, "flags"), r.Size(d)
	})
}

// What is followed of ftrace: a list or a hash that a guest makes up does not end by itself.
const (
	maxFtraceUsers = 1 << 14 // bpftool and tracers make some hundred
	maxHashed      = 1 << 24 // functions and chains in the hashes of all users
	maxTraceable   = 1 << 21 // functions; Debian's kernels have 55,000
)

// FtraceOps yields the users of function tracing, the latest first.
func FtraceOps(ctx context.Context, s *linux.System) iter.Seq2[*FtraceOp, error] {
	return func(yield func(*FtraceOp, error) bool) {
		o, err := ftraceLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		head, ok1 := s.Address("ftrace_ops_list")
		end, ok2 := s.Address("ftrace_list_end")
		if !ok1 || !ok2 {
			yield(nil, fmt.Errorf("ftrace: %w: %w", kobj.ErrUnsupported, kernel.ErrNoSymbol))
			return
		}
		seen := map[virt.Addr]bool{}
		left := maxHashed
		for link := head; ctx.Err() == nil; {
			v, err := s.Word(link)
			a := virt.Addr(v)
			switch {
			case err != nil:
				yield(nil, fmt.Errorf("users of ftrace: link at %#x: %w", uint64(link), err))
				return
			case a == end || a == 0:
				return
			case seen[a]:
				yield(nil, fmt.Errorf("users of ftrace: %w: %#x comes twice", kobj.ErrBroken, v))
				return
			case len(seen) >= maxFtraceUsers || left <= 0:
				yield(nil, fmt.Errorf("users of ftrace: %w after %d", kobj.ErrBudget, len(seen)))
				return
			}
			seen[a] = true
			f, err := ftraceOps(ctx, s, o, a, &left)
			if !yield(f, err) {
				return
			}
			link = o.next.At(a)
		}
	}
}

// readFtraceOps reads a user without what it traces, and where that is.
func readFtraceOps(s *linux.System, o *ftraceLayout, a virt.Addr) (f *FtraceOp, hash virt.Addr, err error) {
	f = &FtraceOp{Addr: a}
	r := s.Reader()
	f.Func, f.Saved, f.Private = r.Pointer(a, o.fn), r.Pointer(a, o.saved), r.Pointer(a, o.private)
	f.Trampoline, f.TrampolineSize, f.Direct = r.Pointer(a, o.tramp), r.Uint(a, o.trampSize), r.Pointer(a, o.direct)
	f.Flags = kobj.BitNames(r.Uint(a, o.flags), ftraceOpsFlags)
	if hash = r.Pointer(a, o.hash); r.Err != nil {
		return nil, 0, fmt.Errorf("ftrace_ops at %#x: %w", uint64(a), r.Err)
	}
	return f, hash, nil
}

func ftraceOps(ctx context.Context, s *linux.System, o *ftraceLayout, a virt.Addr, left *int) (*FtraceOp, error) {
	f, hash, err := readFtraceOps(s, o, a)
	if err != nil {
		return nil, err
	}
	var filter, notrace virt.Addr
	if hash != 0 {
		r := s.Reader()
		filter, notrace = r.Pointer(hash, o.filter), r.Pointer(hash, o.notrace)
		if err = r.Err; err != nil {
			err = fmt.Errorf("hash of functions at %#x: %w", uint64(hash), err)
		}
	}
	if err == nil {
		f.Filter, f.FilterSize, err = ftraceHash(ctx, s, o, filter, left)
	}
	if err == nil {
		f.NoTrace, f.NoTraceSize, err = ftraceHash(ctx, s, o, notrace, left)
	}
	if err != nil {
		return nil, fmt.Errorf("ftrace_ops at %#x: %w", uint64(a), err)
	}
	return f, nil
}

// FtraceTrampolines yields the users of function tracing that have code of their own, enabled or
// not, without what they trace: of one that has ended, and whose code is not freed yet, that is gone. Before 5.9 there is no
// list of them: those that are enabled are found.
func FtraceTrampolines(ctx context.Context, s *linux.System) iter.Seq2[*FtraceOp, error] {
	return func(yield func(*FtraceOp, error) bool) {
		o, err := ftraceLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		head, ok := s.Address("ftrace_ops_trampoline_list")
		if !ok || !o.list.Present() {
			for f, err := range FtraceOps(ctx, s) {
				if (err != nil || slices.Contains(f.Flags, "alloc_tramp")) && !yield(f, err) {
					return
				}
			}
			return
		}
		for node, err := range s.List(ctx, head, maxFtraceUsers) {
			var f *FtraceOp
			if err == nil {
				f, _, err = readFtraceOps(s, o, node-o.list.At(0))
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

// maxHashBits bounds a hash of functions: the kernel's own FTRACE_HASH_MAX_BITS is
// 12.
const maxHashBits = 16

// ftraceHash are the addresses in a hash, sorted. What is read is taken from left.
func ftraceHash(ctx context.Context, s *linux.System, o *ftraceLayout, a virt.Addr, left *int) (ips []virt.Addr, count uint64, err error) {
	if a == 0 {
		return nil, 0, nil
	}
	var bits uint64
	var buckets virt.Addr
	r := s.Reader()
	bits, buckets, count = r.Uint(a, o.bits), r.Pointer(a, o.buckets), r.Uint(a, o.count)
	err = r.Err
	if err != nil || count == 0 || buckets == 0 {
		return nil, count, err
	}
	if bits > maxHashBits || count > kobj.MaxElements {
		return nil, count, fmt.Errorf("hash at %#x: %w: %d entries in 2^%d chains", uint64(a), kobj.ErrBroken, count, bits)
	}
	*left -= 1 << bits
	for i := range 1 << bits {
		if i%1024 == 0 && ctx.Err() != nil {
			return ips, count, ctx.Err()
		}
		for node, err := range s.HList(ctx, buckets+virt.Addr(8*i), int(count)+64) {
			if err != nil {
				return ips, count, err
			}
			*left--
			ip, err := s.Word(node - virt.Addr(o.hlist.Offset) + virt.Addr(o.ip.Offset))
			if err != nil {
				return ips, count, err
			}
			if ips = append(ips, virt.Addr(ip)); len(ips) > kobj.MaxElements {
				return ips, count, fmt.Errorf("hash at %#x: %w: too many entries", uint64(a), kobj.ErrBroken)
			}
		}
	}
	sort.Slice(ips, func(i, j int) bool { return ips[i] < ips[j] })
	return ips, count, nil
}

// FtraceSites yields the functions that are traced, or were (since 6.4 the kernel
// remembers that), in the order of the kernel's pages of records.
func FtraceSites(ctx context.Context, s *linux.System) iter.Seq2[*FtraceSite, error] {
	return ftraceRecordsOf(ctx, s, func(flags uint64) bool { return flags != 0 })
}

// FtraceRecords yields every function that can be traced, in the order of the kernel's
// pages of records.
func FtraceRecords(ctx context.Context, s *linux.System) iter.Seq2[*FtraceSite, error] {
	return ftraceRecordsOf(ctx, s, func(uint64) bool { return true })
}

// ftraceRecordsOf yields the functions of which the flags, with the number of users in them,
// are wanted: of most they are 0.
func ftraceRecordsOf(ctx context.Context, s *linux.System, wanted func(flags uint64) bool) iter.Seq2[*FtraceSite, error] {
	return func(yield func(*FtraceSite, error) bool) {
		var room []FtraceSite // of many records at a time: there are 50,000
		for r, err := range ftraceRecords(ctx, s) {
			if err == nil && !wanted(r.flags) {
				continue
			}
			var site *FtraceSite
			if err == nil {
				if len(room) == 0 {
					room = make([]FtraceSite, 64)
				}
				site, room = &room[0], room[1:]
				*site = FtraceSite{
					Record: r.record, Site: r.site,
					Users: int(r.flags & ftraceUsers), Flags: kobj.BitNames(r.flags&^ftraceUsers, ftraceSiteFlags), Enabled: r.flags>>31&1 != 0,
				}
			}
			if !yield(site, err) {
				return
			}
		}
	}
}

// Traceable yields where each function that can be traced has its place for that, in the order of the kernel's pages of records.
func Traceable(ctx context.Context, s *linux.System) iter.Seq2[virt.Addr, error] {
	return func(yield func(virt.Addr, error) bool) {
		for r, err := range ftraceRecords(ctx, s) {
			if !yield(r.site, err) {
				return
			}
		}
	}
}

// ftraceRecord is a struct dyn_ftrace, as it is.
type ftraceRecord struct {
	record, site virt.Addr
	flags        uint64
}

func ftraceRecords(ctx context.Context, s *linux.System) iter.Seq2[ftraceRecord, error] {
	return func(yield func(ftraceRecord, error) bool) {
		o, err := ftraceLayoutOf(s)
		if err != nil {
			yield(ftraceRecord{}, err)
			return
		}
		start, ok := s.Address("ftrace_pages_start")
		if !ok {
			yield(ftraceRecord{}, fmt.Errorf("ftrace: %w: %w", kobj.ErrUnsupported, kernel.ErrNoSymbol))
			return
		}
		var buffer []byte
		seen := map[virt.Addr]bool{}
		left := maxTraceable
		for link := start; ctx.Err() == nil; {
			v, err := s.Word(link)
			page := virt.Addr(v)
			if err == nil && seen[page] {
				err = fmt.Errorf("%w: %#x comes twice", kobj.ErrBroken, v)
			} else if err == nil && (left <= 0 || len(seen) > kobj.MaxElements) {
				err = fmt.Errorf("%w: more than %d functions", kobj.ErrBudget, maxTraceable)
			}
			if err != nil {
				yield(ftraceRecord{}, fmt.Errorf("records of ftrace: link at %#x: %w", uint64(link), err))
				return
			}
			if page == 0 {
				return
			}
			seen[page] = true
			if !ftracePage(s, o, page, &buffer, &left, yield) {
				return
			}
			link = o.pageNext.At(page)
		}
	}
}

// maxRecords bounds the records of one ftrace_page: 2^order pages.
const maxRecords = 1 << 17

// ftracePage yields the records of one ftrace_page.
func ftracePage(s *linux.System, o *ftraceLayout, page virt.Addr, buffer *[]byte, left *int, yield func(ftraceRecord, error) bool) bool {
	var records virt.Addr
	var n uint64
	r := s.Reader()
	records, n = r.Pointer(page, o.pageRecords), r.Uint(page, o.pageIndex)
	err := r.Err
	if err == nil && (n > maxRecords || o.recSize < o.recFlags.Offset+8 || o.recSize < o.recIP.Offset+8 || o.recSize > 256) {
		err = fmt.Errorf("%w: %d records", kobj.ErrBroken, n)
	}
	b := []byte(nil)
	if err == nil {
		*left -= int(n)
		if size := n * uint64(o.recSize); uint64(cap(*buffer)) < size {
			*buffer = make([]byte, size)
		}
		b = (*buffer)[:n*uint64(o.recSize)]
		err = s.ReadAt(b, records)
	}
	if err != nil {
		return yield(ftraceRecord{}, fmt.Errorf("records of ftrace at %#x: %w", uint64(page), err))
	}
	for i := range n {
		rec := b[i*uint64(o.recSize):]
		if !yield(ftraceRecord{
			record: records + virt.Addr(i*uint64(o.recSize)), site: virt.Addr(binary.LittleEndian.Uint64(rec[o.recIP.Offset:])),
			flags: binary.LittleEndian.Uint64(rec[o.recFlags.Offset:]),
		}, nil) {
			return false
		}
	}
	return true
}
