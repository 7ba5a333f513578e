package tcg

import (
	"fmt"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/virt"
)

// Operations of io_uring are not system calls. Each request passes once through the function that prepares its kind, which gets the
// request and what the process wrote into the ring (the SQE). When the kernel is done with it, its result is in the request: of all
// that the submitting thread completes together, when their completions are posted; of one that a worker completed, when the worker
// drops its reference and only that is left.

// Marks of records of io_uring.
const (
	idRingRequest = 180 // a request is prepared
	idRingDone    = 181 // requests are done: words are pairs of request and result
	idRingMore    = 182 // a request that goes on (multishot) has posted a completion: a pair, too

	idRingTold     = 183 // requests are done that were answers
	idRingToldMore = 184 // one that goes on has brought something
	idRingAsked    = 185 // a request that may become an answer is prepared
)

func isRing(id uint16) bool { return id >= idRingRequest && id <= idRingMore }

// Words of a request's record, behind those of each probe.
const (
	ringRequest = probeWords + iota
	ringOp
	ringFlags
	ringFD
	ringOff
	ringAddr
	ringLen
	ringOpFlags
	ringUserData
	ringWords
)

// Offsets in struct io_uring_sqe (include/uapi/linux/io_uring.h), which never change.
const (
	sqeFlags    = 1
	sqeFD       = 4
	sqeOff      = 8
	sqeAddr     = 16
	sqeLen      = 24
	sqeOpFlags  = 28
	sqeUserData = 32
)

type ringLayout struct {
	opcode, result, list, work, refs uint32 // in io_kiocb
	state, done                      uint32 // io_ring_ctx.submit_state, io_submit_state.compl_reqs
	prep, each                       uint32 // of an entry of the table of operations, and its size
}

// ringsAt is where programs find what they need of io_uring.
type ringsAt struct {
	ringLayout
	preps  []virt.Addr
	flush  virt.Addr   // __io_submit_flush_completions(ctx)
	single []virt.Addr // functions whose first argument is a request that is done
	worker virt.Addr   // io_wq_free_work(work); 0: not found
	more   virt.Addr   // io_req_post_cqe(req, result, flags), since 6.5; 0: not found
}

// ringsOf finds it, in kernels from 6.0 on: before, operations had no table.
func ringsOf(l *guest.Look) (*ringsAt, error) {
	s := l.Linux
	table, size, ok := s.TableAt("io_issue_defs") // 6.2
	entry := "io_issue_def"
	if !ok {
		table, size, ok = s.TableAt("io_op_defs")
		entry = "io_op_def"
	}
	if !ok {
		return nil, fmt.Errorf("operations of io_uring: this kernel has no table of them (before Linux 6.0), or no io_uring: %w", kobj.ErrUnsupported)
	}
	o, err := kobj.LayoutOf(s.Walker, "operations of io_uring", func(r *kobj.Resolver, o *ringLayout) {
		const q = "io_kiocb"
		o.opcode, o.result, o.list, o.work = r.Offset(q, "opcode"), r.Offset(q, "cqe.res"), r.Offset(q, "comp_list"), r.Offset(q, "work")
		o.refs = r.Offset(q, "refs")
		o.state, o.done = r.Offset("io_ring_ctx", "submit_state"), r.Offset("io_submit_state", "compl_reqs.first")
		o.prep, o.each = r.Offset(entry, "prep"), r.Size(entry)
	})
	if err != nil {
		return nil, err
	}
	a := &ringsAt{ringLayout: *o}
	const maxOps = 256
	seen := map[virt.Addr]bool{0: true}
	r := s.Reader()
	for n := range min(size/uint64(max(o.each, 1)), maxOps) {
		if f := r.Ptr(table + virt.Addr(n*uint64(o.each)+uint64(o.prep))); !seen[f] {
			seen[f] = true
			a.preps = append(a.preps, f)
		}
	}
	if r.Err != nil {
		return nil, fmt.Errorf("operations of io_uring: %w", r.Err)
	}
	if a.flush, ok = s.Address("__io_submit_flush_completions"); !ok || len(a.preps) == 0 {
		return nil, fmt.Errorf("operations of io_uring: %w", s.NoSymbol("__io_submit_flush_completions"))
	}
	for _, name := range []string{"io_req_complete_post", "io_free_req"} { // the first up to 6.9
		if at, ok := s.Address(name); ok {
			a.single = append(a.single, at)
		}
	}
	a.worker, _ = s.Address("io_wq_free_work")
	a.more, _ = s.Address("io_req_post_cqe")
	return a, nil
}

const (
	sRequest = sArgs + 6 + plugin.Slot(iota)
	sSQE
	sOp
	sRingFlags
	sRingFD // and, in the order of sqeFields, the rest
	sRingOff
	sRingAddr
	sRingLen
	sRingOpFlags
	sRingUserData
)

// maxDone bounds how many requests are done at once. What is more is shown without its result.
const maxDone = 4096

// rings writes the programs of io_uring.
func (c *compiler) rings(a *ringsAt) {
	drop := c.Label()
	c.at(a.preps, idRingRequest)
	c.Reg(sRequest, "rdi")
	c.Reg(sSQE, "rsi")
	c.Load(sOp, sRequest, int64(a.opcode), 1, drop)
	for _, f := range []struct {
		to  plugin.Slot
		off int64
		n   uint8
	}{
		{sRingFlags, sqeFlags, 1},
		{sRingFD, sqeFD, 4},
		{sRingOff, sqeOff, 8},
		{sRingAddr, sqeAddr, 8},
		{sRingLen, sqeLen, 4},
		{sRingOpFlags, sqeOpFlags, 4},
		{sRingUserData, sqeUserData, 8},
	} {
		c.Load(f.to, sSQE, f.off, f.n, drop)
	}
	c.current()
	c.mine(drop)
	for _, s := range []plugin.Slot{sRequest, sOp, sRingFlags, sRingFD, sRingOff, sRingAddr, sRingLen, sRingOpFlags, sRingUserData} {
		c.Put(s)
	}
	c.ringArguments()
	c.Set(drop)
	c.Drop()

	c.at([]virt.Addr{a.flush}, idRingDone)
	end := c.Label()
	c.current()
	c.Reg(sX, "rdi")
	c.Load(sY, sX, int64(a.state+a.done), 8, end)
	for range maxDone {
		c.If(sY, "==", 0, end)
		c.Add(sRequest, sY, -uint64(a.list))
		c.ringResult(a)
		c.Load(sY, sY, 0, 8, end)
	}
	c.Set(end)
	c.End()

	if len(a.single) > 0 {
		c.at(a.single, idRingDone)
		c.current()
		c.Reg(sRequest, "rdi")
		c.ringResult(a)
		c.End()
	}
	if a.worker != 0 {
		c.at([]virt.Addr{a.worker}, idRingDone)
		drop := c.Label()
		c.Reg(sRequest, "rdi")
		c.Add(sRequest, sRequest, -uint64(a.work))
		c.Load(sX, sRequest, int64(a.refs), 4, drop)
		c.If(sX, "!=", 1, drop) // else it is still under way
		c.current()
		c.ringResult(a)
		c.End()
		c.Set(drop)
		c.Drop()
	}
	if a.more != 0 {
		c.at([]virt.Addr{a.more}, idRingMore)
		c.current()
		c.Reg(sRequest, "rdi")
		c.Put(sRequest)
		c.Reg(sX, "rsi")
		c.Put(sX)
		c.End()
	}
}

// ringResult puts a request and its result.
func (c *compiler) ringResult(a *ringsAt) {
	c.Put(sRequest)
	c.Load(sX, sRequest, int64(a.result), 4, 0)
	c.Put(sX)
}

// mine goes to other if the task that [compiler.current] found is nobody who was asked for.
func (c *compiler) mine(other plugin.Label) {
	if len(c.pids) == 0 {
		return
	}
	ok := c.Label()
	c.Shr(sX, sIDs, 32)
	for _, pid := range c.pids {
		c.If(sX, "==", uint64(pid), ok)
	}
	c.Jump(other)
	c.Set(ok)
}

// ringArguments fetches what the arguments of an operation lead to, as for the system call that it stands for.
func (c *compiler) ringArguments() {
	labels := make([]plugin.Label, len(ringOps))
	for n := range ringOps {
		if ringOps[n].call() != nil {
			labels[n] = c.Label()
		}
	}
	c.Switch(sOp, labels)
	c.End()
	for n, l := range labels {
		if l == 0 {
			continue
		}
		c.Set(l)
		call := ringOps[n].call()
		for i, field := range ringOps[n].args {
			if field != 0 {
				c.Add(arg(i), sRingFD+plugin.Slot(field-ringFD), 0)
			}
		}
		for tag := range call.Pieces {
			if p := &call.Pieces[tag]; p.When == syscall.Entry {
				c.piece(call, uint8(tag), p)
			}
		}
		c.End()
	}
}
