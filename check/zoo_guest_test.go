package check_test

import (
	"encoding/binary"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	_ "github.com/outsight-vmi/outsight/lab/state"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/phys"
	_ "github.com/outsight-vmi/outsight/table/views"
	"github.com/outsight-vmi/outsight/virt"
)

// zooKernels are the kernels that a zoo lives on: all, or only some where time is short. OUTSIGHT_ZOO_KERNELS names others.
func zooKernels(some ...string) []string {
	if names := os.Getenv("OUTSIGHT_ZOO_KERNELS"); names != "" {
		return strings.Fields(names)
	}
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		return some
	}
	return []string{"5.10", "6.1", "6.12", "7.2"}
}

// zooModules are loaded, so that there is something to hide.
var zooModules = []string{"loop", "veth", "tun", "nf_tables"}

// trick is one thing that a rootkit does, done from outside by a change in the guest's
// memory: so it works on every kernel.
type trick struct {
	name string
	do   func(z *zoo)
	// want are the checks that must find it. No other may, but those with a question mark,
	// which find it on some kernels.
	want []string
}

// zoo is a guest in whose memory tricks are done.
type zoo struct {
	*testing.T
	ram  *labtest.RAM
	look *guest.Look
	undo []func()

	session *guest.Guest // that the checks remember; nil where no trick needs two looks
}

func TestGuestZoo(t *testing.T) {
	labtest.NeedQEMU(t)
	for _, kernel := range zooKernels("7.2") {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			g := labtest.Up(t, lab.Options{Kernel: kernel, Memory: 512 << 20, SMP: 2, Modules: zooModules})
			labtest.Output(t, g, "for m in "+strings.Join(zooModules, " ")+"; do modprobe $m; done; sleep 100000 </dev/null >/dev/null 2>&1 & echo ok")
			s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			silent(t, s)
			for _, k := range tricks() {
				t.Run(k.name, func(t *testing.T) { perform(t, g, s, k) })
			}
			silent(t, s)
		})
	}
}

// remember has the checks keep what they conclude about a guest, as --every does, over all runs of a test.
func remember(s *guest.Guest) check.Option { return check.Remember(historyOf(s)) }

func historyOf(s *guest.Guest) *check.History {
	kept, _ := histories.LoadOrStore(s, &check.History{})
	h := kept.(*check.History)
	h.Settled()
	return h
}

var histories sync.Map // by session

// silent checks that nothing is found.
func silent(t *testing.T, s *guest.Guest) {
	t.Helper()
	silentFor(t, s, check.All())
}

// silentFor is silent for some of the checks.
func silentFor(t *testing.T, s *guest.Guest, checks []*check.Check) {
	t.Helper()
	r, err := check.Run(t.Context(), s, checks, remember(s))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		t.Errorf("in a clean guest %s found: %s; %v", f.Check.ID, f.Title, f.Evidence)
	}
	for _, gap := range r.Gaps {
		t.Errorf("in a clean guest %v", gap)
	}
}

// perform does a trick, and has all checks look for it.
func perform(t *testing.T, g *lab.Guest, s *guest.Guest, k trick) {
	performFor(t, g, s, k, check.All())
}

// performFor is perform for some of the checks.
func performFor(t *testing.T, g *lab.Guest, s *guest.Guest, k trick, checks []*check.Check) {
	look, err := s.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	z := &zoo{T: t, ram: labtest.OpenRAM(t, g), look: look}
	defer z.restore()
	// What the trick changes must be found by those that keep that all was in order a moment ago.
	for try := 1; !keeps(t, s, look, checks, k.want); try++ {
		if try == 5 {
			t.Fatalf("the checks %v keep nothing of a guest in order", k.want)
		}
	}
	k.do(z)
	r, err := check.Run(t.Context(), s, checks, check.Again(1), remember(s))
	if err != nil {
		t.Fatal(err)
	}
	judge(t, r, k.name, k.want)
}

// keeps has checks look, and reports whether those with the IDs keep what they concluded.
func keeps(t *testing.T, s *guest.Guest, l *guest.Look, checks []*check.Check, ids []string) bool {
	h := historyOf(s)
	check.Over(t.Context(), l, checks, check.Remember(h))
	return !slices.ContainsFunc(checks, func(c *check.Check) bool { return c.Kept && slices.Contains(ids, c.ID) && !h.Keeps(c.ID) })
}

// restore takes back what was changed.
func (z *zoo) restore() {
	for _, undo := range slices.Backward(z.undo) {
		undo()
	}
}

// judge checks that just these checks found something, and said all of it.
func judge(t *testing.T, r *check.Result, trick string, wanted []string) {
	t.Helper()
	fired := map[string]bool{}
	for _, f := range r.Findings {
		fired[f.Check.ID] = true
		if f.Title == "" || f.Expected == "" || f.Seen == "" || f.Basis == "" || f.Show == "" || len(f.Evidence) == 0 {
			t.Errorf("a finding of %s does not say all: %+v", f.Check.ID, f)
		}
		t.Logf("%s: %s; expected %s; seen %s; %v", f.Check.ID, f.Title, f.Expected, f.Seen, f.Evidence)
	}
	recordZoo(t, trick, fired, wanted)
	wanted = slices.DeleteFunc(slices.Clone(wanted), func(id string) bool {
		id, may := strings.CutPrefix(id, "?")
		if may {
			delete(fired, id)
		}
		return may
	})
	if got, want := slices.Sorted(maps.Keys(fired)), slices.Sorted(slices.Values(wanted)); !slices.Equal(got, want) {
		t.Errorf("found by %v, not by %v; gaps: %v", got, want, r.Gaps)
	}
}

// tricks are those of the zoo that need nothing in the guest.
func tricks() []trick {
	return []trick{
		{"task off the list", func(z *zoo) { z.unlink(z.victim() + z.offset("task_struct", "tasks")) }, []string{"hidden-process"}},
		{"task off its parent's children", func(z *zoo) { z.unlink(z.victim() + z.offset("task_struct", "sibling")) }, []string{"hidden-process"}},
		{"task off its cgroup set", func(z *zoo) { z.unlink(z.victim() + z.offset("task_struct", "cg_list")) }, []string{"hidden-process"}},
		{"task off its PID", func(z *zoo) {
			pid := z.ptr(z.victim() + z.offset("task_struct", "thread_pid"))
			for kind := range virt.Addr(2) {
				z.put(pid+z.offset("pid", "tasks")+8*kind, 0)
			}
		}, []string{"hidden-process"}},
		{"task off every list", func(z *zoo) { // what is left of it is the memory that it lies in
			v := z.victim()
			pid := z.ptr(v + z.offset("task_struct", "thread_pid"))
			for _, member := range []string{"tasks", "sibling", "cg_list", "thread_node"} {
				z.unlink(v + z.offset("task_struct", member))
			}
			for kind := range virt.Addr(2) {
				z.put(pid+z.offset("pid", "tasks")+8*kind, 0)
			}
		}, []string{"hidden-process"}},
		{"interface off the list", func(z *zoo) { z.unlink(z.loopback() + z.offset("net_device", "dev_list")) }, []string{"hidden-interface"}},
		{"interface off its index", func(z *zoo) {
			node := z.loopback() + z.offset("net_device", "index_hlist")
			next, pprev := z.ptr(node), z.ptr(node+8)
			z.put(pprev, uint64(next))
			if next != 0 {
				z.put(next+8, uint64(pprev))
			}
		}, []string{"hidden-interface"}},
		{"mount off its namespace", hideMount, []string{"hidden-mount"}},
		{"mount off its parent", func(z *zoo) { z.unlink(z.mounts()[0].Addr + z.offset("mount", "mnt_child")) }, []string{"hidden-mount"}},
		{"log cleared", func(z *zoo) {
			at := z.symbol("clear_seq")
			if values, err := z.look.Linux.Member("latched_seq", "val"); err == nil { // 5.13
				at = values.At(at)
				z.put(at+8, 5)
			}
			z.put(at, 5)
		}, []string{"cleared-log"}},
		{"module off the list", func(z *zoo) { z.unlink(z.module() + z.offset("module", "list")) }, []string{"hidden-module", "hidden-code", "code-pointer", "operations-table"}},
		{"module with another name", func(z *zoo) { z.write(z.module()+z.offset("module", "name"), []byte("pool")) }, []string{"hidden-module", "?module-text"}},
		{"module off sysfs", func(z *zoo) { z.unlink(z.module() + z.offset("module", "mkobj.kobj.entry")) }, []string{"hidden-module"}},
		{"system call elsewhere", func(z *zoo) { z.put(z.symbol("sys_call_table")+8*17, uint64(z.heap())) }, []string{"code-pointer", "kernel-rodata"}},
		{"gate elsewhere", func(z *zoo) {
			gate := z.symbol("idt_table") + 16*3
			b := z.read(gate, 12)
			a := uint64(z.heap())
			binary.LittleEndian.PutUint16(b, uint16(a))
			binary.LittleEndian.PutUint16(b[6:], uint16(a>>16))
			binary.LittleEndian.PutUint32(b[8:], uint32(a>>32))
			z.write(gate, b)
		}, []string{"code-pointer", "descriptor-table"}},
		{"notifier in code of an unknown owner", func(z *zoo) {
			z.entry(z.heap(), func(e uint64) uint64 { return e &^ (1 << 63) })
			z.put(z.ptr(z.symbol("die_chain")+8), uint64(z.heap()))
		}, []string{"code-pointer", "hidden-code", "?data-pointer"}},
		{"heap executable", func(z *zoo) { z.entry(z.heap(), func(e uint64) uint64 { return e &^ (1 << 63) }) }, []string{"hidden-code"}},
		{"code that a BPF program claims", func(z *zoo) { // the one that the kernel makes for itself, which runs only with PTP
			at := z.moduleRodata()
			z.entry(at, func(e uint64) uint64 { return e &^ (1 << 63) })
			program := z.ptr(z.symbol("ptp_insns"))
			z.put(program+z.offset("bpf_prog", "bpf_func"), uint64(at&^0xfff)+8)
			z.write(program+z.offset("bpf_prog", "jited_len"), []byte{0xf0, 0xf, 0, 0})
		}, []string{"hidden-code", "?bpf-tampering"}},
		{"jump at the start of a function", func(z *zoo) { // that nothing calls meanwhile
			z.write(z.traced("kernel_halt").Site, []byte{0xe9, 0, 0x10, 0, 0})
		}, []string{"kernel-text", "ftrace-triple"}},
		{"function that does nothing", func(z *zoo) { z.write(z.traced("kernel_power_off").Site+5, []byte{0xc3}) }, []string{"kernel-text"}},
		{"vDSO of all processes", func(z *zoo) { z.write(z.vdso()+12, []byte{0xcc}) }, []string{"vdso"}}, // what pads its ELF header
		{"vDSO of one process", func(z *zoo) { z.ownVDSO(z.vdso()) }, []string{"vdso"}},
		{"other kernel memory for one process", func(z *zoo) { z.ownKernel() }, []string{"kernel-mapping"}},
		{"user-accessible kernel memory", func(z *zoo) { z.entry(z.moduleRodata(), func(e uint64) uint64 { return e | 1<<2 }) }, []string{"kernel-mapping"}},
		{"text writable", func(z *zoo) { z.entry(z.symbol("_text"), func(e uint64) uint64 { return e | 1<<1 }) }, []string{"hidden-code"}},
	}
}

// victim is the task_struct of the process that is to be hidden.
func (z *zoo) victim() virt.Addr { return z.running("sleep") }

// running is the task_struct of a process that was started by a name.
func (z *zoo) running(name string) virt.Addr {
	z.Helper()
	for p, err := range z.look.Processes(z.Context()) {
		if err == nil && len(p.Args) > 0 && p.Args[0] == name {
			return p.Task.Addr
		}
	}
	z.Fatal("the process that is to be hidden does not run")
	return 0
}

// loopback is the net_device of lo.
func (z *zoo) loopback() virt.Addr {
	z.Helper()
	for n, err := range network.Namespaces(z.Context(), z.look.Linux) {
		if err != nil {
			z.Fatal(err)
		}
		for dev, err := range network.DeviceAddrs(z.Context(), z.look.Linux, n) {
			if err == nil {
				return dev // the first of each
			}
		}
	}
	z.Fatal("there is no interface")
	return 0
}

// mounts are those of the victim's namespace, without the root.
func (z *zoo) mounts() (all []*linux.Mount) {
	z.Helper()
	reader := z.look.Linux.NewProcessReader()
	ns := z.ptr(z.ptr(z.victim()+z.offset("task_struct", "nsproxy")) + z.offset("nsproxy", "mnt_ns"))
	for m, err := range reader.Mounts(z.Context(), ns) {
		if err != nil {
			z.Fatal(err)
		}
		if z.ptr(m.Addr+z.offset("mount", "mnt_parent")) != m.Addr {
			all = append(all, m)
		}
	}
	return all
}

// hideMount takes a mount off those of its namespace: a list, or since 6.8 a tree, of which
// it takes one that nothing hangs on.
func hideMount(z *zoo) {
	if _, err := z.look.Linux.Member("mount", "mnt_node"); err != nil {
		z.unlink(z.mounts()[0].Addr + z.offset("mount", "mnt_list"))
		return
	}
	for _, m := range z.mounts() {
		node := m.Addr + z.offset("mount", "mnt_node")
		up := z.ptr(node) &^ 3
		if right, left := z.ptr(node+8), z.ptr(node+16); right != 0 || left != 0 || up == 0 {
			continue
		}
		for side := range virt.Addr(2) {
			if z.ptr(up+8+8*side) == node {
				z.put(up+8+8*side, 0)
				return
			}
		}
	}
	z.Fatal("no mount is at the end of the tree")
}

// module is the struct module of one that nothing uses.
func (z *zoo) module() virt.Addr {
	z.Helper()
	m, err := z.look.Linux.ModuleNamed("loop")
	if err != nil || m == nil {
		z.Fatalf("module loop is not loaded: %v", err)
	}
	return m.Addr
}

func (z *zoo) symbol(name string) virt.Addr {
	z.Helper()
	a, err := z.look.Linux.SymbolAddr(name)
	if err != nil {
		z.Fatal(err)
	}
	return a
}

func (z *zoo) offset(structure, member string) virt.Addr {
	z.Helper()
	f, err := z.look.Linux.Member(structure, member)
	if err != nil {
		z.Fatal(err)
	}
	return f.At(0)
}

// heap is an address in memory that the kernel allocated, which is not code: where the
// task_struct of the victim is.
func (z *zoo) heap() virt.Addr { return z.victim() }

func (z *zoo) read(a virt.Addr, n int) []byte {
	z.Helper()
	b := make([]byte, n)
	if _, err := z.look.Linux.Space.ReadAt(b, a); err != nil {
		z.Fatal(err)
	}
	return b
}

func (z *zoo) ptr(a virt.Addr) virt.Addr {
	z.Helper()
	return virt.Addr(binary.LittleEndian.Uint64(z.read(a, 8)))
}

func (z *zoo) put(a virt.Addr, v uint64) {
	z.Helper()
	z.write(a, binary.LittleEndian.AppendUint64(nil, v))
}

// unlink takes an entry out of the list that it is in, and leaves its own links alone, so
// that it can be put back. Entries beside it that just come or go, as the shells that started the trick do, are waited for.
func (z *zoo) unlink(node virt.Addr) {
	z.Helper()
	next, prev := z.ptr(node), z.ptr(node+8)
	for range 50 {
		time.Sleep(20 * time.Millisecond)
		n, p := z.ptr(node), z.ptr(node+8)
		if n == next && p == prev && z.ptr(next+8) == node && z.ptr(prev) == node {
			break
		}
		next, prev = n, p
	}
	z.put(prev, uint64(next))
	z.put(next+8, uint64(prev))
}

// entry changes the page-table entry that maps a.
func (z *zoo) entry(a virt.Addr, change func(uint64) uint64) {
	z.Helper()
	z.entryIn(z.look.Linux.Space, a, change)
}

// entryIn is entry in the page tables of a process.
func (z *zoo) entryIn(space *virt.Space, a virt.Addr, change func(uint64) uint64) {
	z.Helper()
	page, err := space.Translate(a)
	if err != nil {
		z.Fatal(err)
	}
	table := space.Root()
	for level := space.Levels(); ; level-- {
		shift := 12 + 9*(level-1)
		at := uint64(table) + uint64(a)>>shift&0x1ff*8
		var b [8]byte
		if _, err := z.look.Machine.Memory.ReadAt(b[:], phys.Addr(at)); err != nil {
			z.Fatal(err)
		}
		e := binary.LittleEndian.Uint64(b[:])
		if e == page.Entry {
			z.writePhysical(at, binary.LittleEndian.AppendUint64(nil, change(e)))
			return
		}
		table = phys.Addr(e & 0x000f_ffff_ffff_f000)
	}
}

// write changes memory, and changes it back at the end of the trick.
func (z *zoo) write(a virt.Addr, b []byte) {
	z.Helper()
	page, err := z.look.Linux.Space.Translate(a)
	if err != nil {
		z.Fatal(err)
	}
	z.writePhysical(uint64(page.PA), b)
}

func (z *zoo) writePhysical(pa uint64, b []byte) {
	z.Helper()
	was := make([]byte, len(b))
	if _, err := z.ram.ReadAt(was, int64(pa)); err != nil {
		z.Fatal(err)
	}
	if _, err := z.ram.WriteAt(b, int64(pa)); err != nil {
		z.Fatal(err)
	}
	z.undo = append(z.undo, func() {
		if _, err := z.ram.WriteAt(was, int64(pa)); err != nil {
			z.Error(err)
		}
	})
}

// vdso is where the kernel has its image of the vDSO for 64 bits.
func (z *zoo) vdso() virt.Addr {
	z.Helper()
	name := "vdso_image_64"
	if _, err := z.look.Linux.SymbolAddr(name); err != nil {
		name = "vdso64_image" // 7.0
	}
	return z.ptr(z.symbol(name))
}

// ownVDSO gives the victim a page of its own in the place of the first of its vDSO, as a
// write into its memory does, with a breakpoint in it. The page is the second of its stack
// of the kernel, which is deeper than what sleeps there goes.
func (z *zoo) ownVDSO(image virt.Addr) {
	z.Helper()
	stack := z.ptr(z.victim() + z.offset("task_struct", "stack"))
	code := z.read(image, phys.PageSize)
	code[0x800] ^= 0xcc
	mm := z.ptr(z.victim() + z.offset("task_struct", "mm"))
	at := z.ptr(mm + z.offset("mm_struct", "context.vdso"))
	space, err := z.look.Linux.UserSpace(mm)
	if err != nil {
		z.Fatal(err)
	}
	// The lowest word of a stack is what shows that it overflowed.
	frame, err := z.look.Linux.Space.Translate(stack + phys.PageSize)
	if err != nil {
		z.Fatal(err)
	}
	z.write(stack+phys.PageSize, code)
	z.entryIn(space, at, func(e uint64) uint64 { return e&^0x000f_ffff_ffff_f000 | uint64(frame.PA) })
}
