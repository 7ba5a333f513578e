package kernel

import (
	"golang.org/x/arch/x86/x86asm"

	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/virt/x86"
)

// What functions refer to, in a kernel whose symbol table names functions only: small
// functions that read one variable lead to it.

// codeMax is how many bytes of a function are looked at.
const codeMax = 256

// operands calls each with the instructions at the start of the function of that name, up to
// the first return, and the address that follows each, until that reports true.
func (k *Kernel) operands(function string, each func(inst *x86asm.Inst, next virt.Addr) bool) bool {
	at, ok := k.Address(function)
	if !ok {
		return false
	}
	var b [codeMax]byte
	if _, err := k.Space.ReadAt(b[:], at); err != nil {
		return false
	}
	for off := 0; off < codeMax-x86.MaxInstruction; {
		inst, err := x86.Decode(b[off:])
		if err != nil {
			return false
		}
		off += inst.Len
		if each(&inst, at+virt.Addr(off)) {
			return true
		}
		if inst.Op == x86asm.RET {
			return false
		}
	}
	return false
}

// followCode defines the symbols that such functions lead to.
func (k *Kernel) followCode() {
	if at, ok := k.timekeeperByCode(); ok {
		if f, err := k.Field("tk_data", "timekeeper"); err == nil { // see timekeeper
			k.defineAt("tk_core", at-virt.Addr(f.Offset))
		} else {
			k.defineAt("shadow_timekeeper", at)
		}
	}
	k.runqueuesByCode()
	anything := func(virt.Addr) bool { return true }
	if at, ok := k.load("cmdline_proc_show", anything); ok {
		k.defineAt("saved_command_line", at)
	}
	for _, function := range []string{"nbcon_seq_force", "syslog_print", "printk_get_next_message", "vprintk_store"} {
		if at, ok := k.load(function, k.isRing); ok {
			k.defineAt("prb", at)
			break
		}
	}
}

// timekeeperByCode finds the core timekeeper: ktime_get_real_seconds returns a member of it.
func (k *Kernel) timekeeperByCode() (at virt.Addr, ok bool) {
	f, err := k.Field("timekeeper", "xtime_sec")
	if err != nil {
		return 0, false
	}
	at, ok = k.load("ktime_get_real_seconds", func(virt.Addr) bool { return true })
	return at - virt.Addr(f.Offset), ok
}

// load finds the first word that a function loads from a fixed place, of those that fit.
func (k *Kernel) load(function string, fits func(at virt.Addr) bool) (at virt.Addr, ok bool) {
	ok = k.operands(function, func(inst *x86asm.Inst, next virt.Addr) bool {
		m, isMem := inst.Args[1].(x86asm.Mem)
		if inst.Op != x86asm.MOV || !isMem || inst.DataSize != 64 || m.Segment != 0 {
			return false
		}
		switch {
		case m.Base == x86asm.RIP:
			at = next + virt.Addr(m.Disp)
		case m.Base == 0 && m.Index == 0:
			at = virt.Addr(int64(int32(m.Disp)))
		default:
			return false
		}
		return fits(at)
	})
	return at, ok
}

// isRing reports whether the word at a points to the ring buffer of the kernel's log: by the
// sizes of its two parts, which are powers of two, and where these lie.
func (k *Kernel) isRing(a virt.Addr) bool {
	ring, err := k.Space.U64(a)
	if err != nil || !k.Space.KernelHalf(virt.Addr(ring)) {
		return false
	}
	for _, part := range []struct{ bits, at string }{{"desc_ring.count_bits", "desc_ring.descs"}, {"text_data_ring.size_bits", "text_data_ring.data"}} {
		bits, err1 := k.Field("printk_ringbuffer", part.bits)
		at, err2 := k.Field("printk_ringbuffer", part.at)
		if err1 != nil || err2 != nil {
			return false
		}
		n, err1 := k.Space.U32(virt.Addr(ring) + virt.Addr(bits.Offset))
		p, err2 := k.Space.U64(virt.Addr(ring) + virt.Addr(at.Offset))
		if err1 != nil || err2 != nil || n < 5 || n > 30 || !k.Space.KernelHalf(virt.Addr(p)) {
			return false
		}
	}
	return true
}

// runqueuesByCode finds the areas of the processors, and their run queues in them:
// nr_iowait_cpu(cpu) reads a member of runqueues at __per_cpu_offset[cpu].
func (k *Kernel) runqueuesByCode() {
	var runqueues, areas virt.Addr
	if !k.operands("nr_iowait_cpu", func(inst *x86asm.Inst, _ virt.Addr) bool {
		if imm, ok := inst.Args[1].(x86asm.Imm); ok && inst.Op == x86asm.MOV && runqueues == 0 {
			runqueues = virt.Addr(imm)
		}
		for _, arg := range inst.Args {
			if m, ok := arg.(x86asm.Mem); ok && m.Base == 0 && m.Scale == 8 {
				areas = virt.Addr(int64(int32(m.Disp)))
				return true
			}
		}
		return false
	}) {
		return
	}
	k.defineAt("__per_cpu_offset", areas)
	switch {
	case runqueues >= k.Text: // 6.15
		k.defineAt("runqueues", runqueues)
	case runqueues > 0 && runqueues < imageMax:
		k.definePercpu("runqueues", runqueues)
	}
}

// definePercpu adds a per-CPU symbol at an offset in the areas.
func (k *Kernel) definePercpu(name string, at virt.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.memo.Symbols[name] == nil {
		k.memo.Symbols[name] = &Symbol{Name: name, Rel: int64(at), Percpu: true}
		k.dirty = true
	}
}
