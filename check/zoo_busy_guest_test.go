package check_test

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/virt/x86"
)

// kernelChecks are those of what the kernel itself relies on.
var kernelChecks = []string{
	"bpf-tampering", "code-pointer", "data-pointer", "ftrace-triple", "helper-path", "hidden-bpf", "hidden-code", "hidden-module", "hidden-process", "module-hook",
	"operations-table", "security-state", "stolen-credentials", "system-call-function", "taint", "text-branch", "trampoline-code",
}

// TestGuestBusy judges guests in which everything is used that a kernel has: BPF of every
// kind, probes, tracing, sockets of every family, namespaces. Nothing of the kernel's is
// found; then BPF programs are hidden.
func TestGuestBusy(t *testing.T) {
	for _, kernel := range zooKernels("5.10") {
		t.Run(kernel, func(t *testing.T) {
			g := guests.UpServer(t, lab.Options{Kernel: kernel, Memory: 512 << 20, SMP: 2})
			s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			checks, err := check.Select(kernelChecks, nil)
			if err != nil {
				t.Fatal(err)
			}
			silentFor(t, s, checks)
			labtest.Output(t, g, "for i in $(seq 480); do sleep 100000 </dev/null >/dev/null 2>&1 & done; sleep 2")
			began := time.Now()
			silentFor(t, s, checks)
			t.Logf("with 480 processes more %d checks take %v", len(checks), time.Since(began).Round(time.Millisecond))
			for _, c := range checks {
				began := time.Now()
				silentFor(t, s, []*check.Check{c})
				t.Logf("%s takes %v", c.ID, time.Since(began).Round(time.Millisecond))
			}
			only, err := check.Select([]string{"hidden-bpf", "bpf-tampering", "trampoline-code"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range bpfTricks() {
				t.Run(k.name, func(t *testing.T) { performFor(t, g, s, k, only) })
			}
			silentFor(t, s, checks)
		})
	}
}

// bpfTricks hide BPF programs.
func bpfTricks() []trick {
	hidden := []string{"hidden-bpf"}
	return []trick{
		{"program off the table", func(z *zoo) { z.dropProgram(z.program()) }, hidden},
		{"program off the table, without an identifier", func(z *zoo) {
			p := z.program()
			z.dropProgram(p)
			z.write(z.ptr(p+z.offset("bpf_prog", "aux"))+z.offset("bpf_prog_aux", "id"), make([]byte, 4))
		}, hidden},
		{"symbol of a program off the list", func(z *zoo) {
			z.unlink(z.ptr(z.program()+z.offset("bpf_prog", "aux")) + z.offset("bpf_prog_aux", "ksym.lnode"))
		}, []string{"hidden-bpf", "?trampoline-code"}}, // where a trampoline leads to it
		{"program that overwrites memory of processes", func(z *zoo) { z.call("bpf_probe_write_user") }, []string{"bpf-tampering"}},
		{"trampoline of BPF led elsewhere", func(z *zoo) { z.branch(0xe8, z.trampolineCall(), z.symbol("__x64_sys_getpid")) }, []string{"trampoline-code"}},
		{"trampoline of BPF led into a module, as if it were being freed", func(z *zoo) {
			at := z.trampolineCall()
			z.branch(0xe8, at, z.moduleText())
			z.forgetTrampoline(at)
		}, []string{"trampoline-code"}},
		{"program that has system calls fail", func(z *zoo) { z.call("bpf_override_return") }, []string{"bpf-tampering"}},
	}
}

// program is a compiled program that a link holds.
func (z *zoo) program() virt.Addr {
	z.Helper()
	compiled := map[virt.Addr]bool{}
	for p, err := range bpf.Programs(z.Context(), z.look.Linux) {
		if err == nil && p.JITAddr != 0 {
			compiled[p.Addr] = true
		}
	}
	for l, err := range bpf.Links(z.Context(), z.look.Linux) {
		if err == nil && compiled[l.Program] {
			return l.Program
		}
	}
	z.Fatal("no program has a link")
	return 0
}

// trampolineCall is where a trampoline of BPF calls something.
func (z *zoo) trampolineCall() virt.Addr {
	z.Helper()
	for i, err := range bpf.Images(z.Context(), z.look.Linux) {
		if err != nil || !strings.HasPrefix(i.Name, "bpf_trampoline_") {
			continue
		}
		code := z.read(i.Start, int(i.End-i.Start))
		for at := 0; at < len(code); {
			s, ok := x86.ShapeOf(code[at:])
			if !ok {
				break
			}
			if code[at] == 0xe8 {
				return i.Start + virt.Addr(at)
			}
			at += s.Len
		}
	}
	z.Skip("this kernel has no trampoline of BPF") // that calls something at its beginning
	return 0
}

// forgetTrampoline has the trampoline that a is in be the current one of no function, as when it is being freed (since 5.13).
func (z *zoo) forgetTrampoline(a virt.Addr) {
	z.Helper()
	if _, err := z.look.Linux.Member("bpf_tramp_image", "ksym"); err != nil {
		return
	}
	link, err := z.look.Linux.Member("bpf_trampoline", "hlist_key", "hlist") // 7.0
	if err != nil {
		z.Fatal(err)
	}
	table, ok := z.look.Linux.Address("trampoline_key_table")
	if !ok {
		table = z.symbol("trampoline_table")
	}
	symbol := virt.Addr(0)
	for i, err := range bpf.Images(z.Context(), z.look.Linux) {
		if err == nil && a >= i.Start && a < i.End {
			symbol = i.Symbol
		}
	}
	const buckets = 1 << 10
	for i := range virt.Addr(buckets) {
		for node := z.ptr(table + 8*i); node != 0; node = z.ptr(node) {
			at := node - link.At(0) + z.offset("bpf_trampoline", "cur_image")
			if image := z.ptr(at); image != 0 && image+z.offset("bpf_tramp_image", "ksym") == symbol {
				z.put(at, 0)
				return
			}
		}
	}
	z.Fatal("no function has the trampoline")
}

// call makes the first instruction of a compiled BPF program a call of a function of the kernel:
// in what the verifier left alone, so that nothing does it.
func (z *zoo) call(helper string) {
	z.Helper()
	at, ok := z.look.Linux.Address(helper)
	if !ok {
		z.Skipf("this kernel has no %s", helper)
	}
	distance := uint32(at - z.symbol("__bpf_call_base"))
	z.write(z.program()+z.offset("bpf_prog", "insnsi"), binary.LittleEndian.AppendUint32([]byte{0x85, 0, 0, 0}, distance))
}

// dropProgram empties the slot of a program in the table of identifiers.
func (z *zoo) dropProgram(p virt.Addr) {
	z.Helper()
	const slots, depth = 64, 4
	var search func(entry virt.Addr, left int) bool
	search = func(entry virt.Addr, left int) bool {
		const node = 2 // marks an entry that is a struct xa_node
		if entry&3 != node || entry < 1<<63 || left == 0 {
			return false
		}
		at := entry&^3 + z.offset("xa_node", "slots")
		b := z.read(at, 8*slots)
		for i := range virt.Addr(slots) {
			v := virt.Addr(binary.LittleEndian.Uint64(b[8*i:]))
			if v == p {
				z.put(at+8*i, 0)
				return true
			}
			if search(v, left-1) {
				return true
			}
		}
		return false
	}
	root := z.symbol("prog_idr") + z.offset("idr", "idr_rt.xa_head")
	if !search(z.ptr(root), depth) {
		z.Fatalf("program %#x is not in the table", uint64(p))
	}
}
