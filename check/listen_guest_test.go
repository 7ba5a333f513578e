package check_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/plugin"
	"github.com/outsight-vmi/outsight/trace/told"
	"github.com/outsight-vmi/outsight/virt"
)

// upListened boots a guest with the plugin.
func upListened(t *testing.T, o lab.Options) (*lab.Guest, *guest.Guest) {
	t.Helper()
	labtest.NeedQEMU(t)
	path, err := plugin.Install(filepath.Join(t.TempDir(), plugin.FileName))
	if err != nil {
		labtest.Need(t, err.Error())
	}
	o.Plugin = path
	g := labtest.Up(t, o)
	s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return g, s
}

// readers are what a guest's administrator looks at it with, again and again.
const readers = `(while :; do ps; ls /proc /sys/module /sys/class/net; lsmod; netstat -an; ls -R /etc /tmp /lib; ls /hid; ifconfig -a; cat /proc/net/dev /proc/net/unix; /truth sockets; /tricks bpf-list; done) >/dev/null 2>&1 </dev/null & `

// hear runs the check while the guest's programs read.
func hear(t *testing.T, s *guest.Guest, d time.Duration) *check.Result {
	t.Helper()
	c, ok := check.Lookup("lied-to")
	if !ok {
		t.Fatal("no check lied-to")
	}
	r, err := check.Run(t.Context(), s, []*check.Check{c}, check.Listen(d))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range r.Assurances() {
		t.Log(a.Text)
	}
	for _, gap := range r.Gaps {
		t.Error(gap)
	}
	return r
}

// lie is a trick that acts on who reads.
type lie struct {
	name   string
	do     func(z *lies)
	object func(z *lies) string // what is kept from programs
	from   []string             // programs that are lied to, one of which the finding has to name
	call   string
	read   string // what the guest runs meanwhile
}

// lies is a guest whose kernel is made to lie.
type lies struct {
	*zoo
	g      *lab.Guest
	pid    int    // of a process
	object string // that a trick made
	used   *virt.Addr
}

// hookCodes is where code of ours is put: a function that no guest of the lab ever executes, so that QEMU has not
// translated it. No place is used twice: a processor may still be in the code that was there.
var hookCodes = []string{"vpanic", "panic"} // 6.15

// hook puts code in place of the function to which a pointer leads.
func (z *lies) hook(pointer virt.Addr, code func(at, was uint64) []byte) {
	z.Helper()
	var at virt.Addr
	for _, name := range hookCodes {
		if a, size, ok := z.look.Linux.TableAt(name); ok && size >= uint64(*z.used)+96 {
			at = a + *z.used
			break
		}
	}
	if at == 0 {
		z.Fatalf("no room for code in %v", hookCodes)
	}
	undo := len(z.undo)
	z.write(at, code(uint64(at), uint64(z.ptr(pointer))))
	z.undo = z.undo[:undo] // it stays there, for who is in it
	*z.used += 96
	z.put(pointer, uint64(at))
}

// jump is mov $to, %rax; jmp *%rax.
func jump(to uint64) []byte {
	return append(binary.LittleEndian.AppendUint64([]byte{0x48, 0xb8}, to), 0xff, 0xe0)
}

// hideEntries has the directories of an operations table leave out names that begin with four bytes.
func (z *lies) hideEntries(operations, name string) {
	z.Helper()
	pointer := z.symbol(operations) + z.offset("file_operations", "iterate_shared")
	z.hook(pointer, func(at, was uint64) []byte {
		// The function that takes entries in is the first member of struct dir_context: mov $actor, %rax; mov %rax, (%rsi).
		code := binary.LittleEndian.AppendUint64([]byte{0x48, 0xb8}, at+32)
		code = append(code, 0x48, 0x89, 0x06)
		code = append(code, jump(was)...)
		code = append(code, make([]byte, 32-len(code))...)
		code = append(code, 0x81, 0x3e) // cmpl $name, (%rsi); je over the jump
		code = append(code, name[:4]...)
		code = append(append(code, 0x74, 12), jump(uint64(z.symbol("filldir64")))...)
		keep := byte(1) // true, since 6.1
		if strings.HasPrefix(z.look.Linux.Release, "5.") {
			keep = 0
		}
		return append(code, 0xb8, keep, 0, 0, 0, 0xc3)
	})
}

// readerLies are tricks on what programs are told, one of each kind at least.
var readerLies = []lie{
	{
		"process left out of /proc", func(z *lies) { z.hideEntries("proc_root_operations", strconv.Itoa(z.pid)) },
		func(z *lies) string { return fmt.Sprintf("process %d (sleep)", z.pid) },
		[]string{"ps", "ls"},
		"getdents64", "ps",
	},
	{
		"file left out of its directory", func(z *lies) {
			z.hideEntries("simple_dir_operations", "evil")
			if _, err := z.look.Linux.SymbolAddr("simple_offset_dir_operations"); err == nil { // tmpfs, since 6.6
				z.hideEntries("simple_offset_dir_operations", "evil")
			}
		}, func(*lies) string { return `file "evil.conf"` }, []string{"ls"}, "getdents64", "ls /hid",
	},
	{
		"port left out of /proc/net/tcp", func(z *lies) {
			for _, table := range []string{"tcp4_seq_ops", "tcp6_seq_ops"} {
				z.hook(z.symbol(table)+z.offset("seq_operations", "show"), func(_, was uint64) []byte {
					number := z.offset("sock_common", "skc_num")    // of the port
					code := []byte{0x48, 0x83, 0xfe, 0x01, 0x74, 8} // cmp $SEQ_START_TOKEN, %rsi; je to the jump
					code = binary.LittleEndian.AppendUint16(append(code, 0x66, 0x81, 0x7e, byte(number)), 4711)
					code = append(append(code, 0x74, 12), jump(was)...)
					return append(code, 0x31, 0xc0, 0xc3) // xor %eax, %eax; ret
				})
			}
		}, func(*lies) string { return "tcp :::4711" }, []string{"netstat"}, "read", "netstat -an",
	},
	{
		"module left out of /proc/modules", func(z *lies) {
			z.hook(z.symbol("modules_op")+z.offset("seq_operations", "show"), func(_, was uint64) []byte {
				name := z.offset("module", "name") - z.offset("module", "list")
				code := append([]byte{0x81, 0x7e, byte(name)}, "veth"...) // cmpl $"veth", name(%rsi)
				code = append(append(code, 0x74, 12), jump(was)...)
				return append(code, 0x31, 0xc0, 0xc3)
			})
		}, func(*lies) string { return "module veth" }, []string{"lsmod"}, "read", "lsmod",
	},
	{
		"process off its PID, for who lists /proc", func(z *lies) {
			pid := z.ptr(z.victim() + z.offset("task_struct", "thread_pid"))
			for kind := range virt.Addr(2) {
				z.put(pid+z.offset("pid", "tasks")+8*kind, 0)
			}
		}, func(z *lies) string { return "process " }, []string{"ps", "ls"}, "getdents64", "ls /proc",
	},
	{
		"module off the list, for lsmod", func(z *lies) { z.unlink(z.module() + z.offset("module", "list")) },
		func(*lies) string { return "module " },
		[]string{"lsmod"},
		"read", "lsmod",
	},
	{
		"BPF program that hides itself", func(z *lies) {
			out := labtest.Output(z.T, z.g, "/tricks bpf-hide >/tmp/bpf 2>&1 </dev/null & echo $! >/tmp/bpf.pid; for i in $(seq 50); do grep -q ready /tmp/bpf && break; sleep 0.1; done; cat /tmp/bpf")
			id, ok := strings.CutPrefix(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(out), "ready")), "program ")
			if !ok {
				z.Fatal(out)
			}
			z.object = "BPF program " + id + " (hides)"
			z.undo = append(z.undo, func() { labtest.Output(z.T, z.g, "kill -9 $(cat /tmp/bpf.pid); sleep 0.5; echo ok") })
		}, func(z *lies) string { return z.object }, []string{"tricks"}, "bpf", "/tricks bpf-list",
	},
}

// TestGuestListen: what is kept from a guest's own programs is found, with who was lied to, and nothing in a guest whose
// kernel tells the truth.
func TestGuestListen(t *testing.T) {
	for _, kernel := range zooKernels("6.12") {
		t.Run(kernel, func(t *testing.T) {
			g, s := upListened(t, lab.Options{
				Kernel: kernel, Memory: 512 << 20, SMP: 2, Modules: zooModules,
				Files: map[string]string{"/truth": guests.Program(t, "truth"), "/tricks": guests.Program(t, "tricks")},
			})
			labtest.Output(t, g, "for m in "+strings.Join(zooModules, " ")+"; do modprobe $m; done; mkdir -p /etc /tmp /hid; echo x >/hid/evil.conf; cat /hid/evil.conf; nc -l -p 4711 </dev/null >/dev/null 2>&1 & for i in $(seq 1200); do :; done; echo ok")
			// A number of four digits, and a process in it that stays.
			out := labtest.Output(t, g, "i=0; while [ $i -lt 1200 ]; do /bin/true; i=$((i+1)); done; sleep 100000 </dev/null >/dev/null 2>&1 & echo $!; sleep 4")
			pid, err := strconv.Atoi(strings.TrimSpace(out))
			if err != nil || pid < 1000 || pid > 9999 {
				t.Fatalf("a process of number %q", out)
			}
			labtest.Output(t, g, "(while :; do /bin/true; done) </dev/null >/dev/null 2>&1 & echo $! >/tmp/loops; "+readers+"echo $! >>/tmp/loops; echo ok")
			clean := func() {
				t.Helper()
				for _, f := range hear(t, s, 6*time.Second).Findings {
					t.Errorf("in a clean guest: %s; %v", f.Title, f.Evidence)
				}
			}
			clean()
			labtest.Output(t, g, "kill $(cat /tmp/loops); sleep 0.5; echo ok")
			var used virt.Addr
			for _, l := range readerLies {
				t.Run(l.name, func(t *testing.T) { l.tell(t, g, s, pid, &used) })
			}
		})
	}
}

// tell does the trick, and judges what is heard.
func (l *lie) tell(t *testing.T, g *lab.Guest, s *guest.Guest, pid int, used *virt.Addr) {
	look, err := s.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	z := &lies{zoo: &zoo{T: t, ram: labtest.OpenRAM(t, g), look: look}, g: g, pid: pid, used: used}
	defer z.restore()
	l.do(z)
	stop := make(chan bool)
	go func() {
		defer close(stop)
		for {
			select {
			case stop <- true:
				return
			default:
				labtest.Output(t, g, l.read+" >/dev/null; sleep 0.2; echo ok")
			}
		}
	}()
	named := func(f *check.Finding) bool {
		return strings.HasPrefix(f.Title, l.object(z)) && strings.Contains(f.Title, l.call) && slices.ContainsFunc(l.from, func(comm string) bool {
			return slices.ContainsFunc(f.Evidence, func(e check.Evidence) bool { return strings.Contains(e.Text, "("+comm+", ") })
		})
	}
	// On a busy host few programs of the guest get on in a few seconds.
	var r *check.Result
	found := -1
	for try := 0; try < 5 && found < 0; try++ {
		r = hear(t, s, 4*time.Second)
		found = slices.IndexFunc(r.Findings, named)
	}
	if found < 0 {
		t.Errorf("nothing says that %s was kept from %v", l.object(z), l.from)
		everything(t, s)
	}
	<-stop
	fired := map[string]bool{}
	for i, f := range r.Findings {
		fired[f.Check.ID] = true
		t.Logf("%s; expected %s; seen %s; %v", f.Title, f.Expected, f.Seen, f.Evidence)
		if i != found {
			t.Errorf("more than was done: %s", f.Title)
		}
	}
	recordZoo(t, l.name, fired, []string{"lied-to"})
}

// TestGuestListenDebian: nothing is found in a Debian guest whose programs ask the kernel in all ways beside short processes.
func TestGuestListenDebian(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("OUTSIGHT_SLOW is not set: it makes a Debian")
	}
	g, s := upListened(t, lab.Options{Userland: lab.Debian, SMP: 2, Memory: 1 << 30})
	labtest.Output(t, g, `(while :; do ps aux; ls -l /proc; ss -tuanp; ss -xa; ss -0; ip link; lsmod; ls -R /etc /var /dev /sys/module; bpftool prog; bpftool map; bpftool link; done) >/dev/null 2>&1 </dev/null &
(while :; do /bin/true; done) >/dev/null 2>&1 </dev/null & echo ok`)
	for range 3 {
		for _, f := range hear(t, s, 10*time.Second).Findings {
			t.Errorf("in a clean guest: %s; %v", f.Title, f.Evidence)
		}
	}
}

// everything logs what programs are told.
func everything(t *testing.T, s *guest.Guest) {
	t.Helper()
	listener, err := told.Listen(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Second)
	heard, err := listener.Stop()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range heard.Readings {
		t.Logf("%v, in %d calls: %d names, %d sockets, %d to %d", r, r.Calls, len(r.Names), len(r.Inodes), r.After, r.Next)
	}
}
