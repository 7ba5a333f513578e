package planted

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/outsight-vmi/outsight/trace/plugin"
)

// machine runs programs as the kernel does, on memory of the test's: what lies outside of what a program may touch is an error.
type machine struct {
	t      *testing.T
	ring   *fakeRing
	kernel map[uint64][]byte // objects, by address: what lies beyond reads as zero, as the kernel's checked loads do
	user   map[uint64][]byte
	cpu    uint64
	time   uint64
	ids    uint64
	task   uint64
	steps  int
	// interrupt runs once, in front of the first read of user memory.
	interrupt func()
}

const (
	stackBase = 0x7f00_0000_0000
	ringBase  = 0x1000_0000_0000
	ringStep  = 1 << 24
	kernelMin = 0xffff_8000_0000_0000
)

func newMachine(t *testing.T, cpus int) *machine {
	return &machine{t: t, ring: newFakeRing(cpus, minArea), kernel: map[uint64][]byte{}, user: map[uint64][]byte{}, time: 1000}
}

func within(m map[uint64][]byte, a uint64) []byte {
	for base, b := range m {
		if a >= base && a < base+uint64(len(b)) {
			return b[a-base:]
		}
	}
	return nil
}

// memory is what a program may write.
func (m *machine) memory(a, n uint64, stack []byte) []byte {
	switch {
	case a >= stackBase && a+n <= stackBase+512:
		return stack[a-stackBase:][:n]
	case a >= ringBase && a < kernelMin:
		e, off := (a-ringBase)/ringStep, (a-ringBase)%ringStep
		if e < uint64(len(m.ring.b)) && off+n <= uint64(len(m.ring.b[e])) {
			return m.ring.b[e][off:][:n]
		}
	}
	m.t.Fatalf("a program touches %d bytes at %#x", n, a)
	return nil
}

// readUser copies user memory, all of it or nothing.
func (m *machine) readUser(dst []byte, a uint64) bool {
	if f := m.interrupt; f != nil {
		m.interrupt = nil
		f()
	}
	for i := range dst {
		b := within(m.user, a+uint64(i))
		if b == nil {
			clear(dst)
			return false
		}
		dst[i] = b[0]
	}
	return true
}

func (m *machine) call(function int32, r *[11]uint64, stack []byte) {
	switch function {
	case callMapLookup:
		if r[1] != 1 {
			m.t.Fatal("no map")
		}
		r[0] = 0
		if key := uint64(le.Uint32(m.memory(r[2], 4, stack))); key < uint64(len(m.ring.b)) {
			r[0] = ringBase + key*ringStep
		}
	case callTime:
		m.time += 10
		r[0] = m.time
	case callProcessor:
		r[0] = m.cpu
	case callIDs:
		r[0] = m.ids
	case callTask:
		r[0] = m.task
	case callReadUser:
		dst := m.memory(r[1], r[2], stack)
		r[0] = 0
		if !m.readUser(dst, r[3]) {
			r[0] = ^uint64(13)
		}
	case callReadUserStr:
		dst := m.memory(r[1], r[2], stack)
		for i := range dst {
			if !m.readUser(dst[i:i+1], r[3]+uint64(i)) {
				r[0] = ^uint64(13)
				return
			}
			if r[0] = uint64(i) + 1; dst[i] == 0 {
				if i == 0 {
					r[0] = 0 // so it is
				}
				return
			}
		}
		dst[len(dst)-1] = 0
	case callReadText:
		dst := m.memory(r[1], r[2], stack)
		b := within(m.kernel, r[3])
		if b == nil {
			r[0] = ^uint64(13)
			return
		}
		n := copy(dst, b)
		if i := bytes.IndexByte(dst[:n], 0); i >= 0 {
			n = i + 1
		}
		dst[n-1] = 0
		r[0] = uint64(n)
	default:
		m.t.Fatalf("function %d", function)
	}
}

// run runs a program with these arguments of its tracepoint.
func (m *machine) run(w *writer, args ...uint64) {
	m.t.Helper()
	w.without()
	if _, err := w.binary(); err != nil {
		m.t.Fatal(err)
	}
	stack := make([]byte, 512)
	context := uint64(kernelMin + 0x10)
	b := make([]byte, 8*len(args))
	for i, a := range args {
		le.PutUint64(b[8*i:], a)
	}
	m.kernel[context] = b
	var r [11]uint64
	r[1], r[fp] = context, stackBase+512
	for pc := 0; ; {
		if m.steps++; m.steps > 1<<22 {
			m.t.Fatal("it never ends")
		}
		i := w.list[pc]
		dst, src := &r[i.regs&15], r[i.regs>>4]
		if class := i.op & 7; class == 2 || i.op&fromReg == 0 && (class == 5 || class == 7) {
			src = uint64(int64(i.imm))
		}
		pc++
		at := func(base uint64, n uint64) []byte { return m.memory(base+uint64(int64(i.off)), n, stack) }
		size := map[uint8]uint64{0x10: 1, 0x08: 2, 0x00: 4, 0x18: 8}[i.op&0x18]
		switch class := i.op & 7; {
		case i.op == 0x18:
			*dst = uint64(uint32(i.imm)) | uint64(uint32(w.list[pc].imm))<<32
			if i.regs>>4 == 5 {
				*dst = 1
			}
			pc++
		case class == 7:
			switch i.op & 0xf0 {
			case aluAdd:
				*dst += src
			case aluSub:
				*dst -= src
			case aluMul:
				*dst *= src
			case aluAnd:
				*dst &= src
			case aluShl:
				*dst <<= src
			case aluShr:
				*dst >>= src
			case aluMov:
				*dst = src
			default:
				m.t.Fatalf("operation %#x", i.op)
			}
		case class == 1:
			var v [8]byte
			if a := src + uint64(int64(i.off)); a >= kernelMin {
				copy(v[:size], within(m.kernel, a))
			} else {
				copy(v[:], at(src, size))
			}
			*dst = le.Uint64(v[:])
		case i.op == atomic64:
			b := at(*dst, 8)
			old := le.Uint64(b)
			switch i.imm {
			case atomicFetchAdd:
				le.PutUint64(b, old+r[i.regs>>4])
				r[i.regs>>4] = old
			case atomicExchange:
				if old == r[0] {
					le.PutUint64(b, r[i.regs>>4])
				}
				r[0] = old
			default:
				m.t.Fatalf("atomic operation %#x", i.imm)
			}
		case class == 2 || class == 3:
			var v [8]byte
			le.PutUint64(v[:], src)
			copy(at(*dst, size), v[:size])
		case class == 5:
			take := false
			switch i.op & 0xf0 {
			case jmpCall:
				m.call(i.imm, &r, stack)
				continue
			case jmpExit:
				return
			case jmpAlways:
				take = true
			case jmpEqual:
				take = *dst == src
			case jmpDiffer:
				take = *dst != src
			case jmpMore:
				take = *dst > src
			case jmpLess:
				take = *dst < src
			case jmpLessS:
				take = int64(*dst) < int64(src)
			case jmpAny:
				take = *dst&src != 0
			default:
				m.t.Fatalf("jump %#x", i.op)
			}
			if take {
				pc = w.labels[i.to-1]
			}
		default:
			m.t.Fatalf("class of %#x", i.op)
		}
	}
}

// item is an item of a record.
type item struct {
	tag    uint8
	status plugin.Status
	text   string
}

// records reads all records that were written.
func (m *machine) records(r *reader) (all []plugin.Record, items [][]item) {
	for {
		var rec plugin.Record
		ok, err := r.take(&rec)
		if err != nil {
			m.t.Fatal(err)
		}
		if !ok {
			if r.damaged != 0 || r.lost() != 0 {
				m.t.Errorf("damaged %d, lost %d", r.damaged, r.lost())
			}
			return all, items
		}
		all = append(all, rec)
		var list []item
		for it := rec.Items(); ; {
			i, ok := it.Next()
			if !ok {
				break
			}
			list = append(list, item{i.Tag, i.Status, string(i.Data)})
		}
		items = append(items, list)
	}
}

func (i item) String() string { return fmt.Sprintf("%d:%q:%d", i.tag, i.text, i.status) }
