package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// header and ring are struct os_header and struct os_ring.
type header struct {
	magic             uint64
	protocol, rings   uint32
	size              uint64
	_                 [40]byte
	sequence          uint64
	_                 [56]byte
	waiting           uint32
	_                 [60]byte
	clockVersion      uint32
	_                 uint32
	ticks, nanosecond uint64
	firstTicks        uint64
	firstNanosecond   uint64
}

type ring struct {
	head, lost uint64
	aside      uint64 // lost, and not asked for: [Assembler.Aside]
	_          [40]byte
	tail       uint64
	_          [56]byte
	hold       uint32
	overdue    uint32
	held       uint64
	waited     uint64
}

// enum os_hold_state.
const (
	holdHeld   = 1
	holdGo     = 2
	holdAsleep = 3 // held, and the vCPU has to be woken
)

// rings are what the plugin writes and a monitor reads.
type rings struct {
	file   *os.File
	mem    []byte
	header *header
	ring   []*ring
	data   [][]byte
	tails  []uint64      // how far each was read
	given  []uint64      // … as the plugin knows
	sure   []uint64      // … that were lost before any that is not read yet was written
	noted  []uint64      // records of each that were lost until the head was looked at
	asked  []uint64      // … that were asked for
	heads  []uint64      // how far each was written, as it was last looked at
	next   uint64        // sequence number of the record to come
	last   int           // the ring of the last record
	busy   bool          // there was a record a moment ago
	spin   time.Duration // for how long the next one is looked for without sleep
}

// A monitor that has seen a record naps before it sleeps, for 20 ms in all.
const (
	nap     = 200 * time.Microsecond
	maxNaps = 100
)

// newRings makes n rings of size bytes, a power of two.
func newRings(n int, size uint64) (r *rings, err error) {
	if size < 2*maxRecord || size&(size-1) != 0 {
		return nil, fmt.Errorf("invalid size of rings: %d bytes are not a power of two of at least %d", size, 2*maxRecord)
	}
	fd, err := unix.MemfdCreate("outsight-events", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make rings for events: %w", err)
	}
	r = &rings{file: os.NewFile(uintptr(fd), "outsight-events"), tails: make([]uint64, n), given: make([]uint64, n), noted: make([]uint64, n), asked: make([]uint64, n), sure: make([]uint64, n), heads: make([]uint64, n)}
	total := int64(page) + int64(n)*int64(page+size)
	if err := r.open(n, size, total); err != nil {
		r.close()
		return nil, fmt.Errorf("make rings for events: %w", err)
	}
	return r, nil
}

func (r *rings) open(n int, size uint64, total int64) (err error) {
	if err := r.file.Truncate(total); err != nil {
		return err
	}
	// The plugin insists: what shrinks would end QEMU.
	if _, err := unix.FcntlInt(r.file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK); err != nil {
		return err
	}
	if r.mem, err = unix.Mmap(int(r.file.Fd()), 0, int(total), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return err
	}
	r.header = (*header)(unsafe.Pointer(&r.mem[0]))
	r.header.magic, r.header.protocol, r.header.rings, r.header.size = magic, protocol, uint32(n), size
	for i := range n {
		r.ring = append(r.ring, (*ring)(unsafe.Pointer(&r.mem[page*(1+i)])))
		at := page*(1+n) + i*int(size)
		r.data = append(r.data, r.mem[at:at+int(size)])
	}
	return nil
}

func (r *rings) close() {
	if r.mem != nil {
		_ = unix.Munmap(r.mem) // what was mapped can be unmapped
		r.mem = nil
	}
	r.file.Close()
}

// lost is how many records that were asked for found no room.
func (r *rings) lost() (n uint64) {
	for _, g := range r.ring {
		n += atomic.LoadUint64(&g.lost)
	}
	return n
}

// before is how many records were lost before the last one that was read, those that nobody asked for included: between least and
// most.
func (r *rings) before() (least, most uint64) {
	for i := range r.noted {
		least, most = least+r.sure[i], most+r.noted[i]
	}
	return least, most
}

// lostBefore is how many records that were asked for were lost before the last one that was read, at most.
func (r *rings) lostBefore() (n uint64) {
	for _, lost := range r.asked {
		n += lost
	}
	return n
}

// overdue is how many held vCPUs went on before anybody decided.
func (r *rings) overdue() (n uint64) {
	for _, g := range r.ring {
		n += uint64(atomic.LoadUint32(&g.overdue))
	}
	return n
}

// errInFlight says that a record is being written that comes before all that are there.
var errInFlight = errors.New("a record is in flight")

// take finds the next record, where it lies: it stays until the next call. It returns false if there is none yet.
func (r *rings) take(rec *Record) (bool, error) {
	empty := true
	for k := range r.ring {
		i := r.last + k
		if i >= len(r.ring) {
			i -= len(r.ring)
		}
		b, err := r.peek(i)
		if err != nil {
			return false, err
		}
		if b == nil {
			continue
		}
		empty = false
		if le.Uint64(b[8:]) != r.next {
			continue
		}
		r.tails[i] += uint64(len(b))
		r.next++
		r.last = i
		rec.VCPU = i
		return true, rec.parse(b)
	}
	if !empty {
		return false, errInFlight
	}
	return false, nil
}

// batch is how many bytes are read before the plugin learns that there is room again. The lines that both write cost each
// more than a record.
const batch = 32 << 10

// peek returns the first record of ring i where it lies, nil if there is none. What was read before it is given back now and then.
func (r *rings) peek(i int) ([]byte, error) {
	size := uint64(len(r.data[i]))
	for {
		tail := r.tails[i]
		if tail == r.heads[i] || tail-r.given[i] >= batch {
			if tail != r.given[i] {
				atomic.StoreUint64(&r.ring[i].tail, tail)
				r.given[i] = tail
			}
			if tail == r.heads[i] {
				r.sure[i] = r.noted[i] // what comes now was written since
			}
			r.heads[i] = atomic.LoadUint64(&r.ring[i].head)
			r.asked[i] = atomic.LoadUint64(&r.ring[i].lost) // behind the head: then no loss before a record is missed
			r.noted[i] = r.asked[i] + atomic.LoadUint64(&r.ring[i].aside)
			if tail == r.heads[i] {
				return nil, nil
			}
		}
		at, ready := tail&(size-1), r.heads[i]-tail
		n := uint64(le.Uint32(r.data[i][at:]))
		flags := le.Uint16(r.data[i][at+6:])
		if n < 8 || n%8 != 0 || n > ready || n > size-at || flags&padding == 0 && (n < recordSize || n > maxRecord) {
			return nil, fmt.Errorf("%w: %d bytes at %#x of ring %d", errRecord, n, at, i)
		}
		if flags&padding == 0 {
			return r.data[i][at : at+n], nil
		}
		r.tails[i] += n
	}
}

// How the monitor waits: enum os_waiting.
const (
	sleeps = 1 // any record wakes it
	dozes  = 2 // a held one, or a ring that is half full
)

// sleep waits until the plugin writes, or for at most d.
func (r *rings) sleep(how uint32, d time.Duration) {
	atomic.StoreUint32(&r.header.waiting, how)
	for i := range r.ring {
		if atomic.LoadUint64(&r.ring[i].head) != r.tails[i] {
			atomic.StoreUint32(&r.header.waiting, 0)
			return
		}
	}
	ts := unix.NsecToTimespec(d.Nanoseconds())
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&r.header.waiting)), 0, uintptr(how), uintptr(unsafe.Pointer(&ts)), 0, 0)
	runtime.KeepAlive(r)
	atomic.StoreUint32(&r.header.waiting, 0)
}

// read waits for the next record, for patience at most: then it returns [ErrIdle]. A patience of 0 has no end.
func (r *rings) read(ctx context.Context, rec *Record, gone <-chan struct{}, patience time.Duration) error {
	var since time.Time
	naps := 0
	for spins := 0; ; spins++ {
		ok, err := r.take(rec)
		switch {
		case ok:
			r.busy = true
			return err
		case errors.Is(err, errInFlight):
			if spins < 1000 {
				runtime.Gosched()
				continue
			}
			if spins > 200_000 { // a second and more: the thread that has the number is gone
				return fmt.Errorf("record %d never came: the plugin's process may have ended", r.next)
			}
			time.Sleep(5 * time.Microsecond)
			continue
		case err != nil:
			return err
		}
		spins = 0
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-gone:
			return ErrGone
		default:
		}
		if patience > 0 {
			now := time.Now()
			if since.IsZero() {
				since = now
			} else if now.Sub(since) >= patience {
				return ErrIdle
			}
		}
		if r.busy && r.spin > 0 && naps == 0 && r.await(r.spin) {
			continue
		}
		// While records come, they are looked for every moment: to be woken for each would cost its vCPU more than the record.
		if r.busy && naps < maxNaps {
			naps++
			r.sleep(dozes, nap)
			continue
		}
		// Before it sleeps for long it sleeps for a moment: then a record that was written while it went to sleep is seen.
		patient := 100 * time.Millisecond
		if r.busy {
			patient = nap
		}
		r.busy = false
		r.sleep(sleeps, patient)
	}
}

// await looks for a record without sleeping, for at most d.
func (r *rings) await(d time.Duration) bool {
	for began := time.Now(); time.Since(began) < d; {
		for range 64 {
			for i := range r.ring {
				if atomic.LoadUint64(&r.ring[i].head) != r.tails[i] {
					return true
				}
			}
		}
	}
	return false
}

// waited is how long the last hold of a vCPU took, by the plugin's clock.
func (r *rings) waited(vcpu int) time.Duration {
	ticks := atomic.LoadUint64(&r.ring[vcpu].waited)
	h := r.header
	dt := atomic.LoadUint64(&h.ticks) - h.firstTicks
	if dt == 0 {
		return 0
	}
	return time.Duration(float64(ticks) * float64(atomic.LoadUint64(&h.nanosecond)-h.firstNanosecond) / float64(dt))
}

// decide lets a vCPU go on that waits with record sequence.
func (r *rings) decide(vcpu int, sequence uint64) bool {
	g := r.ring[vcpu]
	if atomic.LoadUint64(&g.held) != sequence {
		return false
	}
	for {
		was := atomic.LoadUint32(&g.hold)
		if was != holdHeld && was != holdAsleep {
			return false
		}
		if atomic.CompareAndSwapUint32(&g.hold, was, holdGo) {
			if was == holdHeld { // it looks by itself
				return true
			}
			break
		}
	}
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&g.hold)), 1, 1, 0, 0, 0)
	return true
}

// clock turns ticks into the host's time.
func (r *rings) clock(ticks uint64) time.Time {
	h := r.header
	for range 100 {
		v := atomic.LoadUint32(&h.clockVersion)
		t, n := atomic.LoadUint64(&h.ticks), atomic.LoadUint64(&h.nanosecond)
		if v%2 != 0 || atomic.LoadUint32(&h.clockVersion) != v {
			continue
		}
		dt := t - h.firstTicks
		if dt == 0 {
			break
		}
		perTick := float64(n-h.firstNanosecond) / float64(dt)
		return time.Unix(0, int64(n)+int64(float64(int64(ticks-t))*perTick))
	}
	return time.Unix(0, int64(h.nanosecond))
}
