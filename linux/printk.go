package linux

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// LogMessage is one record of the kernel's log.
type LogMessage struct {
	Seq               uint64
	Time              time.Duration // since boot, by the clock of the log
	Facility, Level   uint8         // as in syslog; level 0 is an emergency, 7 debugging
	Caller            uint32        // with CONFIG_PRINTK_CALLER: thread, or with bit 31 processor
	Subsystem, Device string        // of what it is about; empty if it does not say
	Text              string
}

// printkLayout is struct printk_ringbuffer (5.10).
type printkLayout struct {
	countBits, descs, infos, head, tail kobj.Field
	sizeBits, data                      kobj.Field
	state, begin, next                  kobj.Field
	descSize, infoSize                  uint32
	seq, ts, textLen, facility, level   kobj.Field
	caller, subsystem, device           kobj.Field
}

const (
	maxPrintkBits = 24 // of descriptors; log_buf_len is 2 GiB at most
	maxMessage    = 1 << 16
)

// Messages yields the kernel's log, oldest record first, as /dev/kmsg does: what
// userspace wrote to it is in it too. Records that are being written or were
// overwritten meanwhile are left out. Kernels before 5.10 keep it in another form.
func (s *System) Messages(ctx context.Context) iter.Seq2[*LogMessage, error] {
	return func(yield func(*LogMessage, error) bool) {
		w := printkWalk{s: s}
		if err := w.open(); err != nil {
			yield(nil, fmt.Errorf("kernel log: %w", err))
			return
		}
		mask := uint64(1)<<w.countBits - 1
		n := (w.head - w.tail) & printkIDs
		if n > mask {
			yield(nil, fmt.Errorf("kernel log: %w: records %#x to %#x", kobj.ErrBroken, w.tail, w.head))
			return
		}
		for i := range n + 1 {
			if i%1024 == 1023 && ctx.Err() != nil {
				yield(nil, ctx.Err())
				return
			}
			m, err := w.read((w.tail + i) & printkIDs)
			if err != nil {
				err = fmt.Errorf("kernel log: %w", err)
			}
			if (m != nil || err != nil) && !yield(m, err) {
				return
			}
		}
	}
}

// printkIDs are the bits of a descriptor's state_var that are its identifier; the two
// above are its state.
const printkIDs = 1<<62 - 1

type printkWalk struct {
	s                   *System
	o                   *printkLayout
	r                   kobj.Reader
	countBits, sizeBits uint64
	descs, infos, data  virt.Addr
	head, tail          uint64
}

func (w *printkWalk) open() error {
	o, err := kobj.LayoutOf(w.s.Walker, "kernel log", func(r *kobj.Resolver, o *printkLayout) {
		r.Prefetch("prb")
		const p, i = "printk_ringbuffer", "printk_info"
		o.countBits, o.descs = r.Field(p, "desc_ring.count_bits"), r.Field(p, "desc_ring.descs")
		o.infos = r.Field(p, "desc_ring.infos")
		o.head, o.tail = r.Field(p, "desc_ring.head_id.counter"), r.Field(p, "desc_ring.tail_id.counter")
		o.sizeBits, o.data = r.Field(p, "text_data_ring.size_bits"), r.Field(p, "text_data_ring.data")
		o.state = r.Field("prb_desc", "state_var.counter")
		o.begin, o.next = r.Field("prb_desc", "text_blk_lpos.begin"), r.Field("prb_desc", "text_blk_lpos.next")
		o.descSize, o.infoSize = r.Size("prb_desc"), r.Size(i)
		o.seq, o.ts, o.textLen = r.Field(i, "seq"), r.Field(i, "ts_nsec"), r.Field(i, "text_len")
		o.facility, o.level, o.caller = r.Field(i, "facility"), r.Field(i, "level"), r.Optional(i, "caller_id")
		o.subsystem, o.device = r.Optional(i, "dev_info.subsystem"), r.Optional(i, "dev_info.device")
	})
	if err != nil {
		return err
	}
	rb, err := w.s.Pointer("prb")
	if err != nil {
		return err
	}
	w.o, w.r = o, w.s.Reader()
	r := &w.r
	w.countBits, w.sizeBits = r.Uint(rb, o.countBits), r.Uint(rb, o.sizeBits)
	w.descs, w.infos, w.data = r.Pointer(rb, o.descs), r.Pointer(rb, o.infos), r.Pointer(rb, o.data)
	w.head, w.tail = r.Uint(rb, o.head)&printkIDs, r.Uint(rb, o.tail)&printkIDs
	if r.Err == nil && (w.countBits > maxPrintkBits || w.sizeBits < 4 || w.sizeBits > 31) {
		return fmt.Errorf("%w: 2^%d records in 2^%d bytes", kobj.ErrBroken, w.countBits, w.sizeBits)
	}
	return r.Err
}

// read reads record id; nil if it is not there, or not any more.
func (w *printkWalk) read(id uint64) (_ *LogMessage, err error) {
	const finalized = 2 // desc_finalized
	o, r := w.o, &w.r
	r.Err = nil
	index := id & (1<<w.countBits - 1)
	desc, info := w.descs+virt.Addr(index*uint64(o.descSize)), w.infos+virt.Addr(index*uint64(o.infoSize))
	want := id | finalized<<62
	if r.Uint(desc, o.state) != want {
		return nil, r.Err
	}
	m := &LogMessage{
		Seq: r.Uint(info, o.seq), Time: time.Duration(r.Uint(info, o.ts)),
		Facility: uint8(r.Uint(info, o.facility)), Level: uint8(r.Uint(info, o.level)), Caller: uint32(r.Uint(info, o.caller)),
	}
	if o.subsystem.Present() && o.device.Present() {
		m.Subsystem, m.Device = r.CString(o.subsystem.At(info), int(min(o.subsystem.Size, 64))), r.CString(o.device.At(info), int(min(o.device.Size, 64)))
	}
	m.Text = w.text(r.Uint(desc, o.begin), r.Uint(desc, o.next), r.Uint(info, o.textLen))
	if r.Err == nil && r.Uint(desc, o.state) != want {
		return nil, nil // overwritten meanwhile
	}
	if r.Err != nil {
		return nil, fmt.Errorf("record %#x: %w", id, r.Err)
	}
	return m, nil
}

// text reads a record's block: an identifier, then the text. Positions count on for
// ever; a block that does not fit at the end of the ring begins at its start.
func (w *printkWalk) text(begin, next, n uint64) string {
	const idSize = 8
	size := uint64(1) << w.sizeBits
	if begin&1 != 0 || n == 0 { // without data
		return ""
	}
	at, end := begin%size, next%size
	if begin/size != next/size && end != 0 {
		at = 0
	} else if end == 0 {
		end = size
	}
	if end < at+idSize {
		w.r.Err = fmt.Errorf("%w: text from %#x to %#x", kobj.ErrBroken, begin, next)
		return ""
	}
	n = min(n, end-at-idSize, maxMessage)
	return string(w.r.Bytes(w.data+virt.Addr(at+idSize), int(n)))
}
