package qemu

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outsight-vmi/outsight/phys"
)

func testdata(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestParseMtree(t *testing.T) {
	text := testdata(t, "mtree-q35-5g.txt")
	sizes := map[string]uint64{"m": 5 << 30}
	want := []ramRow{
		{0, 0x7fffffff, "m", 0},
		{0x100000000, 0x1bfffffff, "m", 0x80000000},
	}
	kvm := strings.ReplaceAll(text, "\n", " KVM\n")
	canonical := strings.ReplaceAll(text, "ram): m", "ram): /objects/m")
	for name, text := range map[string]string{"TCG": text, "KVM": kvm, "old machine type": canonical} {
		rows := parseMtree(text, sizes)
		if d := cmp.Diff(want, rows, cmp.AllowUnexported(ramRow{})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	l := layout(want, []string{"m"}, sizes)
	if !l.Equal(phys.Q35(5 << 30)) {
		t.Errorf("layout %+v", l)
	}
	if rows := parseMtree(text, map[string]uint64{"other": 1}); len(rows) != 0 {
		t.Errorf("rows of blocks that QEMU does not have: %v", rows)
	}
	if rows := parseMtree(text, map[string]uint64{"m": 1 << 20}); len(rows) != 1 {
		t.Errorf("rows beyond the block: %v", rows)
	}
}

func TestParseHVA(t *testing.T) {
	if v, ok := parseHVA("Host virtual address for 0x100000 (pc.ram) is 0x7f4ce7f00000\r\n"); !ok || v != 0x7f4ce7f00000 {
		t.Errorf("%#x %v", v, ok)
	}
	for _, s := range []string{"", "No memory is mapped at address 0x5", "Memory at address 0xb0000000is not RAM", "unknown command: 'gpa2hva'"} {
		if _, ok := parseHVA(s); ok {
			t.Errorf("%q gave an address", s)
		}
	}
}

func TestParseRegisters(t *testing.T) {
	rs := parseRegisters(testdata(t, "registers-64.txt"))
	if len(rs) != 1 {
		t.Fatalf("%d CPUs", len(rs))
	}
	r := rs[0]
	if r.RIP>>63 != 1 || r.CR3 == 0 || r.CR4&0x20 == 0 || r.EFER&0x500 != 0x500 || r.GSBase>>63 != 1 || r.IDT>>63 != 1 || r.GDT == 0 || r.CR0>>31 != 1 {
		t.Errorf("%+v", r)
	}
	if r.GDTLimit != 0x7f || r.IDTLimit != 0xfff || !r.HasDebug || r.Debug[7] != 0x400 {
		t.Errorf("limits %#x and %#x, debug registers %x", r.GDTLimit, r.IDTLimit, r.Debug)
	}
	if g := r.General; g[4] != 0x87 || g[6] != r.RSP || g[8]>>63 != 1 || g[9] != 1 || g[15] != 0x147d0 || r.Selectors != [6]uint16{0x10, 0, 0, 0, 0, 0x18} {
		t.Errorf("general %x, selectors %x", g, r.Selectors)
	}
	rs = parseRegisters(testdata(t, "registers-32.txt"))
	if len(rs) != 2 || rs[1].CPU != 1 || rs[0].CR0 == 0 {
		t.Errorf("%+v", rs)
	}
}

// TestCommandLines has the shapes that managers give their machines.
func TestCommandLines(t *testing.T) {
	for _, c := range []struct {
		name, line string
		want       config
		shared     bool
		sockets    string
	}{
		{"plain", "-m 512 -enable-kvm -smp 4", config{ram: 512 << 20, cpus: 4, accel: "kvm"}, false, ""},
		{"a kernel", "-kernel /boot/vmlinuz -append quiet", config{ram: 128 << 20, cpus: 1, kernel: "/boot/vmlinuz"}, false, ""},
		{"a kernel of the machine", "-machine q35,kernel=vmlinuz", config{machine: "q35", ram: 128 << 20, cpus: 1, kernel: "vmlinuz"}, false, ""},
		{"nothing", "-nodefaults", config{ram: 128 << 20, cpus: 1}, false, ""},
		{
			"memfd", "-name web,,1 -M q35,memory-backend=m,accel=kvm:tcg -m 8G -object memory-backend-memfd,id=m,size=8G,share=on -qmp unix:/run/a,server=on,wait=off -S",
			config{name: "web,1", machine: "q35", accel: "kvm", ram: 8 << 30, cpus: 1, main: "m", stopped: true},
			true, "/run/a",
		},
		{
			"libvirt", `-name guest=deb12,debug-threads=on -machine pc-q35-8.2,usb=off,memory-backend=pc.ram -accel kvm -m size=2097152k -object {"qom-type":"memory-backend-memfd","id":"pc.ram","share":true,"x-use-canonical-path-for-ramblock-id":false,"size":2147483648} -smp 2,sockets=2,cores=1,threads=1 -chardev socket,id=charmonitor,fd=24,server=on,wait=off -mon chardev=charmonitor,id=monitor,mode=control`,
			config{name: "deb12", machine: "pc-q35-8.2", accel: "kvm", ram: 2 << 30, cpus: 2, main: "pc.ram"},
			true, "",
		},
		{
			"Proxmox", "-id 100 -name web,debug-threads=on -no-shutdown -chardev socket,id=qmp,path=/var/run/qemu-server/100.qmp,server=on,wait=off -mon chardev=qmp,mode=control -chardev socket,id=qmp-event,path=/var/run/qmeventd.sock,reconnect=5 -mon chardev=qmp-event,mode=control -daemonize -smp 4,sockets=1,cores=4,maxcpus=4 -m 4096 -machine type=pc-i440fx-8.1+pve0",
			config{name: "web", id: "100", machine: "pc-i440fx-8.1+pve0", ram: 4 << 30, cpus: 4},
			false, "/var/run/qemu-server/100.qmp",
		},
		{ // as Proxmox VE 9 writes it (src/test/cfg2cmd/memory-hotplug.conf.cmd in qemu-server)
			"Proxmox with nodes", "-id 8006 -name simple -no-shutdown -chardev socket,id=qmp,path=/var/run/qemu-server/8006.qmp,server=on,wait=off -mon chardev=qmp,mode=control -chardev socket,id=qmp-event,path=/var/run/qmeventd.sock,reconnect-ms=5000 -mon chardev=qmp-event,mode=control -pidfile /var/run/qemu-server/8006.pid -daemonize -smp 4,sockets=2,cores=2,maxcpus=4 -m size=1024 -object memory-backend-ram,id=ram-node0,size=512M -numa node,nodeid=0,cpus=0-1,memdev=ram-node0 -object memory-backend-ram,id=ram-node1,size=512M -numa node,nodeid=1,cpus=2-3,memdev=ram-node1 -machine hpet=off,type=pc+pve0",
			config{name: "simple", id: "8006", machine: "pc+pve0", ram: 1 << 30, cpus: 4, numa: []string{"ram-node0", "ram-node1"}},
			false, "/var/run/qemu-server/8006.qmp",
		},
		{
			"two nodes", "-m 2G -object memory-backend-ram,size=1G,id=a -object memory-backend-ram,size=1G,id=b -numa node,nodeid=0,memdev=a -numa node,memdev=b -smp sockets=2,cores=3",
			config{ram: 2 << 30, cpus: 6, numa: []string{"a", "b"}},
			false, "",
		},
		{
			"-chardev as JSON", `--chardev {"id":"c","backend":{"type":"socket","data":{"addr":{"type":"unix","data":{"path":"/run/c"}},"server":true}}} --mon chardev=c,mode=control`,
			config{ram: 128 << 20, cpus: 1},
			false, "/run/c",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := parseCommandLine(strings.Fields(c.line))
			if s := strings.Join(got.sockets(), " "); s != c.sockets {
				t.Errorf("sockets %q, want %q", s, c.sockets)
			}
			if got.shared() != c.shared {
				t.Errorf("shared %v", got.shared())
			}
			got.chardevs, got.monitors, got.qmp, got.backends = nil, nil, nil, nil
			if d := cmp.Diff(c.want, *got, cmp.AllowUnexported(config{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestReadConfig(t *testing.T) {
	c := parseCommandLine(nil)
	c.readConfig(strings.NewReader(`# Machine
[machine]
graphics = "off"
type = "q35"
accel = "kvm"

[chardev "monitor"]
backend = "socket"
path = "/run/incus/u1/qemu.monitor"
server = "on"
wait = "off"

[mon]
chardev = "monitor"
mode = "control"

[memory]
size = "1024M"

[smp-opts]
cpus = "2"

[object "mem0"]
qom-type = "memory-backend-memfd"
size = "1024M"
share = "on"

[numa]
type = "node"
nodeid = "0"
memdev = "mem0"
`))
	if c.machine != "q35" || c.accel != "kvm" || c.ram != 1<<30 || c.cpus != 2 || !c.shared() ||
		strings.Join(c.sockets(), " ") != "/run/incus/u1/qemu.monitor" {
		t.Errorf("%+v", c)
	}
}

// TestAlias: what Proxmox, Incus and LXD call a machine, beside its name.
func TestAlias(t *testing.T) {
	for line, want := range map[string]string{
		"-id 100 -name web": "100",
		"-S -name u1 -uuid x -daemonize -cpu host -readconfig /run/incus/u1/qemu.conf -pidfile /run/incus/u1/qemu.pid":                    "",
		"-S -name u1 -uuid x -daemonize -cpu host -readconfig /run/incus/dev_u1/qemu.conf -pidfile /run/incus/dev_u1/qemu.pid":            "dev_u1",
		"-S -name u1 -uuid x -cpu host -readconfig /var/snap/lxd/common/lxd/logs/dev_u1/qemu.conf -D /var/snap/lxd/common/lxd/logs/x.log": "dev_u1",
		"-name u1 -readconfig /etc/dev_u1/other.conf": "",
		"-readconfig /run/incus/dev_/qemu.conf":       "",
	} {
		if got := parseCommandLine(strings.Fields(line)).alias(); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]uint64{
		"512": 512 << 20, "1G": 1 << 30, "1.5G": 3 << 29, "2097152k": 2 << 30, "0x20": 32 << 20, "64b": 64,
		"": 0, "x": 0, "-1": 0, "99999999999999T": 0, "NaNG": 0,
	} {
		if got := parseSize(s, 1<<20); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}

func TestIsQEMU(t *testing.T) {
	for program, arch := range map[string]string{
		"/usr/bin/qemu-system-x86_64": "x86_64", "kvm": "", "/usr/libexec/qemu-kvm": "",
		".qemu-system-aarch64-wrapped": "aarch64", "qemu-system-amd64": "x86_64",
	} {
		if got, ok := isQEMU(program); !ok || got != arch {
			t.Errorf("%s: %q %v", program, got, ok)
		}
	}
	for _, program := range []string{"qemu-img", "qemu-aarch64", "virtiofsd", ""} {
		if _, ok := isQEMU(program); ok {
			t.Errorf("%s is none", program)
		}
	}
}

func FuzzMtree(f *testing.F) {
	f.Add(testdata(f, "mtree-q35-5g.txt"))
	f.Add(" AS \"memory\"\n0-ffffffffffffffff (prio 0, ram): m @ffffffffffffffff KVM")
	sizes := map[string]uint64{"m": 5 << 30}
	f.Fuzz(func(t *testing.T, text string) {
		rows := parseMtree(text, sizes)
		for _, p := range layout(rows, []string{"m"}, sizes).Pieces(5 << 30) {
			if p.Offset+p.Range.Size() > 5<<30 {
				t.Errorf("%+v", p)
			}
		}
	})
}

func FuzzRegisters(f *testing.F) {
	f.Add(testdata(f, "registers-64.txt"))
	f.Fuzz(func(t *testing.T, text string) {
		if n := len(parseRegisters(text)); n > maxCPUs {
			t.Errorf("%d CPUs", n)
		}
	})
}

func FuzzHVA(f *testing.F) {
	f.Add("Host virtual address for 0x100000 (pc.ram) is 0x7f4ce7f00000\r\n")
	f.Fuzz(func(_ *testing.T, text string) { parseHVA(text) })
}

func FuzzCommandLine(f *testing.F) {
	f.Add("-m\x00512\x00-object\x00{\"qom-type\":\"memory-backend-ram\"}\x00-smp\x00cores=9,threads=9")
	f.Fuzz(func(_ *testing.T, args string) {
		c := parseCommandLine(strings.Split(args, "\x00"))
		c.sockets()
		c.shared()
		guesses(c, []uint64{c.ram})
	})
}

func FuzzReadConfig(f *testing.F) {
	f.Add("[machine]\ntype = \"q35\"\n[object \"m\"]\nqom-type=memory-backend-ram")
	f.Fuzz(func(_ *testing.T, text string) { parseCommandLine(nil).readConfig(strings.NewReader(text)) })
}
