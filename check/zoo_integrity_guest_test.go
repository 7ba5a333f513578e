package check_test

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// integrityModules have patch sites of all kinds: alternatives, static keys and calls, locks,
// functions of other modules.
var integrityModules = []string{"loop", "veth", "tun", "nf_tables", "nft_ct", "nft_chain_nat", "br_netfilter", "vxlan", "overlay", "ext4", "btrfs", "kvm_amd", "dm_crypt", "nfsd"}

// TestGuestModuleText compares modules with their files while legal tools change them, and
// then does to them what rootkits do.
func TestGuestModuleText(t *testing.T) {
	labtest.NeedQEMU(t)
	integrity, err := check.Select([]string{"module-text", "kernel-rodata", "vdso", "kernel-text"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, kernel := range zooKernels("6.1") {
		t.Run(kernel, func(t *testing.T) {
			g := labtest.Up(t, lab.Options{Kernel: kernel, Memory: 768 << 20, SMP: 2, Modules: integrityModules})
			labtest.Output(t, g, "sleep 100000 </dev/null >/dev/null 2>&1 & echo ok")
			s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			silentFor(t, s, integrity)
			t.Run("sources", func(t *testing.T) { sources(t, g) })
			for _, tool := range moduleTools {
				t.Logf("%s: %s", tool.name, labtest.Output(t, g, tool.shell))
				for range 3 {
					silentFor(t, s, integrity)
				}
			}
			labtest.Output(t, g, "cd /sys/kernel/tracing && echo 0 > events/kprobes/enable; echo > kprobe_events; echo nop > current_tracer; sleep 6; echo ok")
			for _, k := range integrityTricks() {
				t.Run(k.name, func(t *testing.T) { perform(t, g, s, k) })
			}
			silentFor(t, s, integrity)
		})
	}
}

// moduleTools change the text of modules legally.
var moduleTools = []struct{ name, shell string }{
	{"functions of modules traced", `mount -t tracefs t /sys/kernel/tracing 2>/dev/null; cd /sys/kernel/tracing && echo ':mod:nf_tables' > set_ftrace_filter && echo ':mod:loop' >> set_ftrace_filter && echo function > current_tracer && wc -l < set_ftrace_filter`},
	{"probes in modules", `cd /sys/kernel/tracing && f=$(grep -m1 '\[loop\]' available_filter_functions | cut -d' ' -f1); echo "p:one loop:$f" > kprobe_events; echo "p:two loop:$f+5" >> kprobe_events; echo "r:three loop:$f" >> kprobe_events; echo 1 > events/kprobes/enable; cat kprobe_events`},
	{"static keys", `echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables; ip link add br0 type bridge 2>&1; ip link set br0 up; cat /proc/sys/net/bridge/bridge-nf-call-iptables`},
	{"modules that come and go", `(for i in 1 2 3 4 5 6 7 8 9 10 11 12; do rmmod tun veth; insmod /lib/modules/tun.ko; insmod /lib/modules/veth.ko; done) </dev/null >/dev/null 2>&1 & echo started`},
}

// sources checks that all modules are compared, wherever their files are from.
func sources(t *testing.T, g *lab.Guest) {
	open := func(o guest.Options, change func(m *guest.Look)) {
		t.Helper()
		other, err := guest.Open(t.Context(), "lab:"+g.Name, o)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		l, err := other.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, _, err := l.Reference(t.Context()); err != nil {
			t.Fatal(err)
		}
		change(l)
		var modules []*linux.Module
		for m, err := range l.Linux.Modules(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			modules = append(modules, m)
		}
		c, err := l.ModuleText(t.Context(), modules)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Trust) != len(modules) || len(c.Without) != 0 || len(modules) < 2*len(integrityModules) {
			t.Errorf("%d of %d modules have files; without: %v", len(c.Trust), len(modules), c.Without)
		}
		where := map[string]int{}
		for m, trust := range c.Trust {
			where[filepath.Dir(trust.Where)]++
			if trust.Basis != image.Signed || trust.Unsigned != nil {
				t.Errorf("%s: %+v", m.Name, trust)
			}
		}
		at := time.Now()
		for d, err := range c.Text.Differences(t.Context()) {
			t.Errorf("%+v %v", d, err)
		}
		t.Logf("%d modules, %d KiB, %d sites in %v, from %v", len(modules), c.Text.Bytes()>>10, c.Text.Sites(), time.Since(at), where)
	}
	kept := t.TempDir()
	open(guest.Options{}, func(*guest.Look) {})                                                      // the folder of modules beside the kernel
	open(guest.Options{Images: kept}, func(l *guest.Look) { l.Machine.Kernel = "/nowhere/vmlinuz" }) // the initrd
	open(guest.Options{Images: kept}, func(l *guest.Look) { l.Machine.Initrd = "" })                 // what was kept
	open(guest.Options{}, func(l *guest.Look) { l.Machine.Kernel, l.Machine.Initrd = "", "" })       // the guest's page cache
}

// integrityTricks change code and constants.
func integrityTricks() []trick {
	module := []string{"module-text"}
	return []trick{
		{"a function of a module returns at once", func(z *zoo) { z.write(z.moduleReturn(5)-1, []byte{0xc3}) }, module},
		{"a return of a module jumps elsewhere", func(z *zoo) { z.branch(0xe9, z.moduleReturn(5), z.symbol("commit_creds")) }, module},
		{"a call of a module leads elsewhere", func(z *zoo) { z.branch(0xe8, z.moduleCall(), z.symbol("commit_creds")) }, module},
		{"code behind the functions of a module", func(z *zoo) {
			text := z.text("loop")
			z.write(text.Start+virt.Addr(text.Size)-16, []byte{0x48, 0x31, 0xc0, 0xc3})
		}, module},
		{"a function in a module's table", func(z *zoo) {
			table, ok := z.look.Linux.ModuleSymbol("loop", "lo_fops")
			if !ok {
				z.Fatal("loop has no lo_fops")
			}
			z.put(table+z.offset("block_device_operations", "ioctl"), uint64(z.symbol("commit_creds")))
		}, []string{"module-text", "?operations-table", "?code-pointer"}},
		{"a string of the kernel", func(z *zoo) { z.write(z.symbol("linux_banner")+16, []byte("9")) }, []string{"kernel-rodata"}},
	}
}

// text is the memory of a module that holds code.
func (z *zoo) text(module string) linux.ModuleMemory {
	z.Helper()
	m, err := z.look.Linux.ModuleNamed(module)
	if err != nil || m == nil {
		z.Fatalf("module %s is not loaded: %v", module, err)
	}
	i := slices.IndexFunc(m.Memory, func(r linux.ModuleMemory) bool { return r.Kind == linux.ModuleText })
	if i < 0 {
		z.Fatal("the module has no text")
	}
	return m.Memory[i]
}

// moduleReturn is where a function of loop, which nothing calls, returns: number n of those
// that end with padding.
func (z *zoo) moduleReturn(n int) virt.Addr {
	z.Helper()
	text := z.text("loop")
	b := z.read(text.Start, int(text.Size))
	for i := 1; i+5 < len(b); i++ {
		thunk := text.Start + virt.Addr(i+5) + virt.Addr(int64(int32(binary.LittleEndian.Uint32(b[i+1:]))))
		if bytes.HasPrefix(b[i:], []byte{0xc3, 0xcc, 0xcc, 0xcc, 0xcc}) || b[i] == 0xe9 && z.named(thunk, "__x86_return_thunk") {
			if n--; n == 0 {
				return text.Start + virt.Addr(i)
			}
			i += 4
		}
	}
	z.Fatal("no return in loop")
	return 0
}

func (z *zoo) named(a virt.Addr, name string) bool {
	s, err := z.look.Linux.SymbolAddr(name)
	return err == nil && s == a
}

// moduleCall is where loop calls mutex_unlock.
func (z *zoo) moduleCall() virt.Addr {
	z.Helper()
	text, to := z.text("loop"), z.symbol("mutex_unlock")
	b := z.read(text.Start, int(text.Size))
	for i := 0; i+5 < len(b); i++ {
		at := text.Start + virt.Addr(i)
		if b[i] == 0xe8 && at+5+virt.Addr(int64(int32(binary.LittleEndian.Uint32(b[i+1:])))) == to {
			return at
		}
	}
	z.Fatal("loop does not call mutex_unlock")
	return 0
}
