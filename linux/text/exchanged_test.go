package text

import (
	"encoding/binary"
	"testing"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/lab"
)

// TestOperands: addresses that instructions have as an operand are found, absolute and relative, and no others.
func TestOperands(t *testing.T) {
	const start, size, addr, at0 = 0xffff_ffff_8100_0000, 0x20_0001, 0xffff_ffff_8112_3460, 0xffff_ffff_8230_0000
	code := make([]byte, 64)
	for i := range code {
		code[i] = 0x8d // whose operand reaches over the end
	}
	has := func(code []byte, addr uint64) bool {
		o := newOperands(start, start+size)
		o.addCode(code, at0)
		return o.has(addr)
	}
	for _, code := range [][]byte{nil, code[:3], code[:5], code} {
		if has(code, addr) {
			t.Fatal("code without the address has it")
		}
	}
	lea := func(at int, modrm byte, to uint64) []byte {
		c := append([]byte(nil), code...)
		c[at], c[at+1] = 0x8d, modrm
		binary.LittleEndian.PutUint32(c[at+2:], uint32(to-(at0+uint64(at)+6)))
		return c
	}
	for at := 1; at+6 <= len(code); at++ {
		for _, addr := range []uint64{addr, start, start + size - 1} {
			c := append([]byte(nil), code...)
			binary.LittleEndian.PutUint32(c[at:], uint32(addr&0xffff_ffff))
			if !has(c, addr) {
				t.Errorf("%#x not found as an absolute operand at %d", addr, at)
			}
			if !has(lea(at, 0x3d, addr), addr) { // lea addr(%rip), %rdi
				t.Errorf("%#x not found as a relative operand at %d", addr, at)
			}
		}
		if has(lea(at, 0x3d, addr+1), addr) || has(lea(at, 0x7d, addr), addr) {
			t.Errorf("found where it is not, at %d", at)
		}
		if has(lea(at, 0x3d, start+size), start+size) || has(lea(at, 0x3d, start-1), start-1) {
			t.Errorf("what is outside of the text is found, at %d", at)
		}
	}
}

// TestCopied: variables that get functions from other structures are left out.
func TestCopied(t *testing.T) {
	for name, want := range map[string]bool{
		"global_ops": true, "__ftrace_graph_entry": true, "ftrace_graph_return": true, "__SCK__x86_pmu_handle_irq": true, "pv_ops": true,
		"arp_tbl": false, "ops_global": false, "kprobe_module_nb": false,
	} {
		if copied(name) != want {
			t.Errorf("copied(%q) is %v", name, !want)
		}
	}
}

// TestOperandsOfKernels: of the kernels in the lab's cache, functions that only a table has count as exchanged by the kernel, and those that
// nothing has do not.
func TestOperandsOfKernels(t *testing.T) {
	kernels, err := lab.CachedKernels()
	if err != nil || len(kernels) == 0 {
		t.Skip("no kernels in the lab's cache")
	}
	for _, k := range kernels {
		im, err := image.OpenFile(k.Vmlinuz)
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewReference(im)
		if err != nil {
			t.Fatal(err)
		}
		o, err := r.operands()
		if err != nil {
			t.Fatal(err)
		}
		tracers := []string{"trace_graph_entry", "function_trace_call", "function_stack_trace_call", "function_no_repeats_trace_call", "function_stack_no_repeats_trace_call", "function_args_trace_call"}
		others := []string{"profile_hits", "kernel_power_off"}
		at, err := im.Lookup(append(tracers, others...)...)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range tracers {
			if a := at[name]; a != 0 && !o.has(a) {
				t.Errorf("%s: %s, which function tracing puts into a variable, is not found", k.Release, name)
			}
		}
		for _, name := range others {
			if a := at[name]; a == 0 || o.has(a) {
				t.Errorf("%s: %s at %#x is found, or not there", k.Release, name, a)
			}
		}
		symbols, err := im.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		all, loaded := 0, 0
		for s := range symbols.All() {
			if a := r.start + uint64(s.Rel); !s.Percpu && (s.Type == 't' || s.Type == 'T') && a < r.end {
				all++
				if o.has(a) {
					loaded++
				}
			}
		}
		t.Logf("%s: an instruction or a table has %d of %d functions", k.Release, loaded, all)
		if loaded == 0 || loaded*2 > all {
			t.Errorf("%s: %d of %d functions count as exchanged by the kernel", k.Release, loaded, all)
		}
	}
}

// BenchmarkOperands looks through code of the size that a kernel has.
func BenchmarkOperands(b *testing.B) {
	const start, size = 0xffff_ffff_8100_0000, 16 << 20
	code := make([]byte, size)
	for i := range code {
		code[i] = byte(i * i >> 7)
	}
	b.SetBytes(size)
	for b.Loop() {
		newOperands(start, start+size).addCode(code, start)
	}
}
