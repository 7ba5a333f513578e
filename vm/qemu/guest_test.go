package qemu_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// guest is a QEMU that runs nothing but its firmware.
type guest struct {
	pid, socket string
	cmd         *exec.Cmd
}

// boot starts one. Without QEMU the test is skipped, and fails in CI.
func boot(t testing.TB, args ...string) guest { return bootAs(t, 0, args...) }

// bootAs starts one as user uid, which needs root; 0: as this user.
func bootAs(t testing.TB, uid uint32, args ...string) guest {
	t.Helper()
	if testing.Short() {
		t.Skip("guests are not booted with -short")
	}
	bin, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("qemu-system-x86_64 is missing, and this is CI")
		}
		t.Skip("qemu-system-x86_64 is missing")
	}
	dir, err := os.MkdirTemp("", "qemu") // short: a socket path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if uid != 0 {
		if err := os.Chown(dir, int(uid), int(uid)); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "qmp")
	all := append([]string{
		"-accel", "tcg", "-display", "none", "-nodefaults", "-vga", "none",
		"-qmp", "unix:" + socket + ",server=on,wait=off",
	}, args...)
	var stderr bytes.Buffer
	cmd := exec.Command(bin, all...)
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for range 200 {
		if c, err := qmp.Dial(t.Context(), socket); err == nil {
			c.Close()
			return guest{strconv.Itoa(cmd.Process.Pid), socket, cmd}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("QEMU did not come up: %s", stderr.String())
	return guest{}
}

// ask runs f with a QMP connection of its own.
func (g guest) ask(t testing.TB, f func(*qmp.Client) error) {
	t.Helper()
	c, err := qmp.Dial(t.Context(), g.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := f(c); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, target string, opts vm.Options) *vm.Machine {
	t.Helper()
	m, err := local.Host().Open(t.Context(), target, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// spans makes ranges of pairs of addresses.
func spans(at ...phys.Addr) (rs []phys.Range) {
	for i := 0; i < len(at); i += 2 {
		rs = append(rs, phys.Range{Start: at[i], End: at[i+1]})
	}
	return rs
}

func memfdArgs(size string) []string {
	return []string{"-m", size, "-object", "memory-backend-memfd,id=m,size=" + size + ",share=on"}
}

// TestGuestMemory compares what we read at guest-physical addresses with what
// QEMU itself reads there (pmemsave), with and without its help for the map.
func TestGuestMemory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ram")
	for _, c := range []struct {
		name   string
		args   []string
		source vm.Source
		spans  []phys.Range
	}{
		{"q35 512M shared", append(memfdArgs("512M"), "-machine", "q35,memory-backend=m"), vm.SourceShared, spans(0, 512<<20)},
		{"q35 5G shared", append(memfdArgs("5G"), "-machine", "q35,memory-backend=m"), vm.SourceShared, spans(0, 2<<30, 4<<30, 7<<30)},
		{"pc 5G shared", append(memfdArgs("5G"), "-machine", "pc,memory-backend=m"), vm.SourceShared, spans(0, 3<<30, 4<<30, 6<<30)},
		{"pc 3000M shared", append(memfdArgs("3000M"), "-machine", "pc,memory-backend=m"), vm.SourceShared, spans(0, 3000<<20)},
		{"q35 3000M shared", append(memfdArgs("3000M"), "-machine", "q35,memory-backend=m"), vm.SourceShared, spans(0, 2<<30, 4<<30, 4<<30+952<<20)},
		{"q35 2G max-ram-below-4g=1G", append(memfdArgs("2G"), "-machine", "q35,memory-backend=m,max-ram-below-4g=1G"), vm.SourceShared, spans(0, 1<<30, 4<<30, 5<<30)},
		{"microvm 512M shared", append(memfdArgs("512M"), "-machine", "microvm,memory-backend=m"), vm.SourceShared, spans(0, 512<<20)},
		{"pc 512M private", []string{"-m", "512", "-machine", "pc"}, vm.SourcePrivate, spans(0, 512<<20)},
		{"q35 5G private", []string{"-m", "5G", "-machine", "q35"}, vm.SourcePrivate, spans(0, 2<<30, 4<<30, 7<<30)},
		{"q35 file", []string{"-m", "256M", "-object", "memory-backend-file,id=m,size=256M,share=on,mem-path=" + file, "-machine", "q35,memory-backend=m"}, vm.SourceShared, spans(0, 256<<20)},
		{"q35 private file", []string{"-m", "256M", "-object", "memory-backend-file,id=m,size=256M,share=off,mem-path=" + file + "2", "-machine", "q35,memory-backend=m"}, vm.SourcePrivate, spans(0, 256<<20)},
		{"two nodes", []string{
			"-m", "1536M", "-smp", "2",
			"-object", "memory-backend-memfd,id=n0,size=1G,share=on", "-object", "memory-backend-memfd,id=n1,size=512M,share=on",
			"-numa", "node,nodeid=0,cpus=0,memdev=n0", "-numa", "node,nodeid=1,cpus=1,memdev=n1", "-machine", "q35",
		}, vm.SourceShared, spans(0, 1536<<20)},
		{"two equal nodes, 6G", []string{
			"-m", "6G", "-smp", "2",
			"-object", "memory-backend-memfd,id=n0,size=3G,share=on", "-object", "memory-backend-ram,id=n1,size=3G",
			"-numa", "node,nodeid=0,cpus=0,memdev=n0", "-numa", "node,nodeid=1,cpus=1,memdev=n1", "-machine", "q35",
		}, vm.SourcePrivate, spans(0, 2<<30, 4<<30, 8<<30)},
		{"a DIMM", append([]string{
			"-m", "512M,slots=2,maxmem=4G", "-machine", "q35,memory-backend=m",
			"-object", "memory-backend-memfd,id=d,size=256M,share=on", "-device", "pc-dimm,memdev=d",
		}, memfdArgs("512M")[2:]...), vm.SourceShared, spans(0, 512<<20, 4<<30, 4<<30+256<<20)},
		{"private DIMMs, one as large as RAM", []string{
			"-m", "512M,slots=4,maxmem=4G", "-object", "memory-backend-ram,id=d1,size=512M", "-device", "pc-dimm,memdev=d1",
			"-object", "memory-backend-ram,id=d2,size=256M", "-device", "pc-dimm,memdev=d2,addr=0x180000000",
		}, vm.SourcePrivate, spans(0, 512<<20, 4<<30, 4<<30+512<<20, 6<<30, 6<<30+256<<20)},
		{"shared memory of a PCI device", append([]string{
			"-machine", "q35,memory-backend=m",
			"-object", "memory-backend-memfd,id=iv,size=16M,share=on", "-device", "ivshmem-plain,memdev=iv",
		}, memfdArgs("512M")...), vm.SourceShared, spans(0, 512<<20)},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := boot(t, c.args...)
			for _, opts := range []vm.Options{{}, {NoQMP: true}, {NoMap: true}} {
				target := "pid:" + g.pid
				if opts == (vm.Options{}) {
					target = "qemu:" + g.socket
				}
				m := open(t, target, opts)
				if m.Proven == opts.NoQMP {
					t.Errorf("proven is %v", m.Proven)
				}
				if m.Source != c.source && !opts.NoMap {
					t.Errorf("source %q, want %q; %v", m.Source, c.source, m.Notes)
				}
				if !slices.Equal(m.Memory.Ranges(), c.spans) {
					t.Fatalf("%+v: ranges %v, want %v", opts, m.Memory.Ranges(), c.spans)
				}
				compare(t, g, m)
			}
		})
	}
}

// compare stops the guest and reads what its firmware left, the ends of each
// range, and addresses at random, both ways. It waits for the firmware to have
// written something that can be compared.
func compare(t *testing.T, g guest, m *vm.Machine) {
	t.Helper()
	for range 50 {
		if nonzero := compareOnce(t, g, m); nonzero > 0 || t.Failed() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("every page was zero: this proves nothing")
}

// compareOnce reports how many of the pages it compared were not all zero.
func compareOnce(t *testing.T, g guest, m *vm.Machine) (nonzero int) {
	t.Helper()
	dir := filepath.Dir(g.socket) // QEMU writes there as its own user
	g.ask(t, func(c *qmp.Client) error {
		ctx := t.Context()
		if err := c.Execute(ctx, "stop", nil, nil); err != nil {
			return err
		}
		for _, a := range sample(t, m.Memory) {
			if a >= 0xa0000 && a < 0x100000 {
				continue // other things than RAM are on top of it
			}
			name := filepath.Join(dir, "page")
			if err := c.Execute(ctx, "pmemsave", map[string]any{"val": uint64(a), "size": phys.PageSize, "filename": name}, nil); err != nil {
				return err
			}
			want, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			got := make([]byte, phys.PageSize)
			if _, err := m.Memory.ReadAt(got, a); err != nil {
				return err
			}
			if !bytes.Equal(got, want) {
				return fmt.Errorf("page %v differs", a)
			}
			if !bytes.Equal(got, make([]byte, phys.PageSize)) {
				nonzero++
			}
		}
		return c.Execute(ctx, "cont", nil, nil)
	})
	return nonzero
}

// sample is pages of mem: the ends of each range, some at random, and some of
// those that are populated.
func sample(t *testing.T, mem phys.Memory) (pages []phys.Addr) {
	t.Helper()
	for _, r := range mem.Ranges() {
		pages = append(pages, r.Start, r.End-phys.PageSize)
		for range 4 {
			pages = append(pages, r.Start+phys.Addr(rand.Uint64N(r.Size()))&^(phys.PageSize-1))
		}
	}
	pop, ok := phys.As[phys.Populated](mem)
	if !ok {
		t.Fatal("the memory does not know what is populated")
	}
	at := phys.Addr(0)
	for range 64 {
		r, ok := pop.NextPopulated(at)
		if !ok {
			break
		}
		pages = append(pages, r.Start&^(phys.PageSize-1), (r.End-1)&^(phys.PageSize-1))
		at = r.End
	}
	return pages
}

func TestGuestCapabilities(t *testing.T) {
	g := boot(t, "-m", "128", "-smp", "2", "-name", "guest=caps,debug-threads=on")
	m := open(t, "caps", vm.Options{})
	ctx := t.Context()
	if m.Name != "caps" || m.Accel != "tcg" || m.VMM != "qemu" || m.CPUs != 2 || m.RAM != 128<<20 || m.State != vm.StateRunning {
		t.Errorf("info %+v", m.Info)
	}
	if d := time.Since(m.Created); d < 0 || d > time.Minute {
		t.Errorf("created %v ago", d)
	}
	regs := m.Control.Registers
	if regs == nil {
		t.Fatal("no registers")
	}
	rs, err := regs.Registers(ctx)
	if err != nil || len(rs) != 2 || rs[0].CR0 == 0 {
		t.Errorf("registers %+v, %v", rs, err)
	}
	p, s := m.Control.Pauser, m.Control.Stater
	listening, stop := context.WithCancel(ctx)
	events, err := m.Control.Events.Events(listening)
	if err != nil {
		t.Fatal(err)
	}
	resume, err := p.Pause(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := s.State(ctx); st != vm.StatePaused || err != nil {
		t.Errorf("paused: %q, %v", st, err)
	}
	if err := resume(ctx); err != nil {
		t.Fatal(err)
	}
	if st, err := s.State(ctx); st != vm.StateRunning || err != nil {
		t.Errorf("resumed: %q, %v", st, err)
	}
	if out, err := m.Control.Monitor.HMP(ctx, "info name"); err != nil || strings.TrimSpace(out) != "caps" {
		t.Errorf("HMP: %q, %v", out, err)
	}
	if err := m.Control.Monitor.QMP(ctx, "system_reset", nil, nil); err != nil {
		t.Error(err)
	}
	for _, want := range []vm.EventKind{vm.EventStop, vm.EventResume, vm.EventReset} {
		select {
		case e := <-events:
			if e.Kind != want || time.Since(e.Time).Abs() > time.Minute {
				t.Errorf("event %+v, want %s", e, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no event %s", want)
		}
	}
	stop()
	for range events {
	}
	// Another outsight gets QMP while this one is open.
	if other := open(t, "caps", vm.Options{}); !other.Proven {
		t.Errorf("the second one: %q", other.Notes)
	}
	infos, err := local.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(infos, func(i vm.Info) bool { return strconv.Itoa(i.PID) == g.pid })
	if i < 0 {
		t.Fatal("not listed")
	}
	if l := infos[i]; l.State != vm.StateRunning || l.Source != vm.SourcePrivate || l.QMP != g.socket || l.Missing != "" {
		t.Errorf("listed as %+v", l)
	}
}

func TestGuestNotStarted(t *testing.T) {
	g := boot(t, "-S", "-m", "128")
	m := open(t, "qemu:"+g.socket, vm.Options{})
	if err := m.CheckStarted(); !errors.Is(err, vm.ErrNotStarted) {
		t.Errorf("got %v", err)
	}
}

func TestGuestSocketInUse(t *testing.T) {
	g := boot(t, "-m", "128")
	c, err := qmp.Dial(t.Context(), g.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = local.Open(t.Context(), "qemu:"+g.socket)
	if !errors.Is(err, vm.ErrBusy) || !strings.Contains(err.Error(), "use pid:"+g.pid) {
		t.Errorf("got %v", err)
	}
	// The same machine by pid: without QMP, and without waiting for long.
	start := time.Now()
	m := open(t, "pid:"+g.pid, vm.Options{})
	if m.Proven || len(m.Notes) == 0 {
		t.Errorf("proven %v, notes %q", m.Proven, m.Notes)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %v", d)
	}
	// Nothing is offered that would wait for the socket again.
	if m.Control.Registers != nil {
		t.Error("registers are offered")
	}
	if m.Control.Pauser != nil {
		t.Error("pausing is offered")
	}
}

func TestGuestEnds(t *testing.T) {
	for _, args := range [][]string{{"-m", "128"}, append(memfdArgs("128M"), "-machine", "q35,memory-backend=m")} {
		g := boot(t, args...)
		m := open(t, "pid:"+g.pid, vm.Options{})
		var ended []<-chan vm.Event
		for _, opts := range []vm.Options{{NoQMP: true}, {}} { // the last one keeps the seat
			events, err := open(t, "pid:"+g.pid, opts).Control.Events.Events(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			ended = append(ended, events)
		}
		defer func() {
			for i, events := range ended {
				if e := <-events; e.Kind != vm.EventGone {
					t.Errorf("source %d: event %+v of a machine that was killed", i, e)
				}
			}
		}()
		_ = g.cmd.Process.Kill()
		_ = g.cmd.Wait()
		var b [8]byte
		_, err := m.Memory.ReadAt(b[:], 0x1000)
		if m.Source == vm.SourcePrivate && !errors.Is(err, phys.ErrGone) {
			t.Errorf("private: %v", err)
		}
		if m.Source == vm.SourceShared && err != nil { // the mapping keeps the RAM
			t.Errorf("shared: %v", err)
		}
		if _, err := local.Open(context.Background(), "qemu:"+g.socket); !errors.Is(err, vm.ErrGone) {
			t.Errorf("stale socket: %v", err)
		}
		if _, err := local.Open(context.Background(), "pid:"+g.pid); !errors.Is(err, vm.ErrNotFound) {
			t.Errorf("pid: %v", err)
		}
	}
}

// TestGuestOfAnotherUser opens a machine of another user as root, and, in
// a process of its own, as a user who may not.
func TestGuestOfAnotherUser(t *testing.T) {
	if target := os.Getenv("OUTSIGHT_TEST_OPEN"); target != "" {
		_, err := local.Open(t.Context(), target)
		fmt.Printf("permission=%v sentence=%v\n", errors.Is(err, vm.ErrPermission), err)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run as two users")
	}
	const nobody, other = 65534, 65533
	for _, args := range [][]string{{"-m", "128"}, append(memfdArgs("128M"), "-machine", "q35,memory-backend=m")} {
		g := bootAs(t, nobody, args...)
		m := open(t, "pid:"+g.pid, vm.Options{})
		compare(t, g, m)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		bin := filepath.Join(filepath.Dir(g.socket), "test")
		if err := copyFile(bin, self); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Dir(bin), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, target := range []string{"pid:" + g.pid, "qemu:" + g.socket} {
			for uid, want := range map[uint32]string{
				nobody: "permission=false sentence=<nil>",
				other:  "permission=true sentence=open ",
			} {
				cmd := exec.Command(bin, "-test.run=TestGuestOfAnotherUser")
				cmd.Env = append(os.Environ(), "OUTSIGHT_TEST_OPEN="+target)
				cmd.Dir = "/"
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
				out, err := cmd.CombinedOutput()
				if err != nil || !strings.Contains(string(out), want) {
					t.Errorf("%s as %d: %v: %s", target, uid, err, out)
				}
				t.Logf("%s as %d: %s", target, uid, out)
			}
		}
	}
}

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}
