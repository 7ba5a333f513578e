package tcg

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
)

// rings joins requests of io_uring with what came of them.
type rings struct {
	pending map[uint64]*call     // by the address of the request
	asked   map[uint64]time.Time // those that may become answers, and since when
}

func (g *rings) booted() { g.pending, g.asked = nil, nil }

// isRingAnswer reports whether a record is of answers by io_uring.
func isRingAnswer(id uint16) bool { return id >= idRingTold && id <= idRingAsked }

// ringAnswer takes in a record of answers by io_uring.
func (j *joiner) ringAnswer(ctx context.Context, s origin, r *plugin.Record) {
	if r.Probe == idRingAsked {
		j.ringAsked(s, r)
		return
	}
	j.ringTold(ctx, s, r)
}

// record takes in a record of io_uring.
func (g *rings) record(ctx context.Context, j *joiner, s origin, r *plugin.Record) {
	if r.Probe == idRingRequest {
		if r.Words() >= ringWords {
			g.begin(ctx, j, s, r)
		}
		return
	}
	for i := probeWords; i+1 < r.Words(); i += 2 {
		if c := g.pending[r.Word(i)]; c != nil {
			g.result(j, s, r, c, r.Word(i), r.Word(i+1))
		}
	}
}

func (g *rings) begin(ctx context.Context, j *joiner, s origin, r *plugin.Record) {
	if g.pending == nil {
		g.pending = map[uint64]*call{}
	}
	c := j.record(ctx, s, r)
	c.ring = true
	c.lost, _ = s.Before()
	c.add(r, false)
	request := c.words[ringRequest]
	old := g.pending[request]
	if old == nil && len(g.pending) >= maxPending {
		for n := range g.pending { // any of them
			old = g.pending[n]
			delete(g.pending, n)
			break
		}
	}
	if old != nil {
		old.note = "its result was not seen"
		j.queue = append(j.queue, old)
	}
	g.pending[request] = c
}

// result notes what came of a request.
func (g *rings) result(j *joiner, s origin, r *plugin.Record, c *call, request, result uint64) {
	more := r.Probe == idRingMore
	if _, lost := s.Before(); lost != c.lost { // the result may be of another request at the same address
		if !more {
			c.note = "its result was not seen"
			delete(g.pending, request)
			j.queue = append(j.queue, c)
		}
		return
	}
	if more {
		c = c.again(j.new())
		c.note = "more completions follow"
	} else {
		delete(g.pending, request)
	}
	c.returned, c.result, c.left = true, int64(int32(result)), s.Time(r)
	j.queue = append(j.queue, c)
}

// again makes another call of the same request.
func (c *call) again(to *call) *call {
	bytes, data, words := append(to.bytes, c.bytes...), append(to.data, c.data...), append(to.words, c.words...)
	*to = *c
	to.bytes, to.data, to.words = bytes, data, words
	return to
}

// fillRing fills the event of an operation of io_uring.
func (j *joiner) fillRing(e *trace.Event, c *call) {
	op, w := c.words[ringOp], c.words
	e.Kind, e.Name = trace.KindIOURing, linux.IOUringOp(op)
	v := &j.values
	*v = syscall.Values{Returned: c.returned, Result: c.result, Data: v.Data[:0]}
	v.Data = c.pieces(v.Data)
	var call *syscall.Call
	if op < uint64(len(ringOps)) {
		call = ringOps[op].call()
	}
	j.text = j.text[:0]
	if call != nil {
		for i, field := range ringOps[op].args {
			if field != 0 {
				v.Args[i] = w[field]
			}
		}
		j.text = call.AppendArgs(j.text, v, syscall.Options{Limit: j.o.Limit})
		if j.o.Fields {
			e.Fields = append(e.Fields, call.Fields(v)...)
		}
	} else {
		call = callsByName()["close"] // whose result is a number
		j.text = strconv.AppendInt(append(j.text, "fd="...), int64(int32(w[ringFD])), 10)
		j.text = strconv.AppendUint(append(j.text, ", off=0x"...), w[ringOff], 16)
		j.text = strconv.AppendUint(append(j.text, ", addr=0x"...), w[ringAddr], 16)
		j.text = strconv.AppendUint(append(j.text, ", len="...), w[ringLen], 10)
		j.text = strconv.AppendUint(append(j.text, ", op_flags=0x"...), w[ringOpFlags], 16)
		if j.o.Fields {
			e.Fields = append(e.Fields, strings.Split(string(j.text), ", ")...)
		}
	}
	from := len(j.text)
	j.text = strconv.AppendUint(append(j.text, ", user_data=0x"...), w[ringUserData], 16)
	flags := len(j.text)
	for bit, name := range ringFlagNames {
		if w[ringFlags]>>bit&1 != 0 {
			j.text = append(append(j.text, "|IOSQE_"...), name...)
		}
	}
	if flags < len(j.text) {
		j.text[flags] = ' '
		j.text = slices.Insert(j.text, flags, ',')
	}
	if j.o.Fields {
		e.Fields = append(e.Fields, string(j.text[from+2:flags]))
		if flags < len(j.text) {
			e.Fields = append(e.Fields, "flags="+string(j.text[flags+2:]))
		}
	}
	args := len(j.text)
	if c.returned {
		j.text = call.AppendResult(j.text, v)
		setErrno(e, c.result)
	}
	e.Args, e.Result = view(j.text[:args]), view(j.text[args:])
}
