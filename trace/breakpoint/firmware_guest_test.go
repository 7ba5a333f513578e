package breakpoint

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/gdb"
	"github.com/outsight-vmi/outsight/vm/local"
)

// The firmware of a machine that calls a function again and again, and counts how often.
const (
	loopAt     = 0x8000
	functionAt = 0x8020
	counterAt  = 0x9000
)

// firmware is that program, with something to do for so many rounds between two calls.
func firmware(rounds uint32) []byte {
	b := make([]byte, 64<<10)
	copy(b, []byte{
		0xfa,       // cli
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd0, 0xbc, 0x00, 0x70, // ss:sp = 0:7000
		0x8e, 0xc0, 0x8c, 0xc8, 0x8e, 0xd8, // es = 0, ds = cs
		0xbe, 0x40, 0x00, 0xbf, 0x00, 0x80, 0xb9, 0x40, 0x00, // what is at 40 comes to 0:8000
		0xfc, 0xf3, 0xa4, // rep movsb
		0x31, 0xc0, 0x8e, 0xd8, // ds = 0
		0xea, 0x00, 0x80, 0x00, 0x00, // jmp 0:8000
	})
	copy(b[0x40:], []byte{
		0xe8, 0x1d, 0x00, // call 8020
		0x66, 0xff, 0x06, 0x00, 0x90, // inc dword [9000]
		0x66, 0xb9, 0, 0, 0, 0, // mov ecx, rounds
		0x66, 0x49, 0x75, 0xfc, // dec ecx, and again until it is 0
		0xeb, 0xec, // jmp 8000
	})
	binary.LittleEndian.PutUint32(b[0x40+10:], rounds)
	copy(b[0x60:], []byte{0x66, 0x66, 0x66, 0x66, 0x90, 0xc3}) // a nop of five bytes, ret
	copy(b[0xfff0:], []byte{0xea, 0x00, 0x00, 0x00, 0xf0})     // where a processor begins: jmp f000:0
	return b
}

// loop is a machine that runs that firmware.
type loop struct {
	dir string
	pid int
}

func startLoop(t *testing.T, rounds uint32) loop {
	t.Helper()
	labtest.NeedQEMU(t)
	l := loop{dir: t.TempDir()}
	if err := os.WriteFile(l.dir+"/bios", firmware(rounds), 0o600); err != nil {
		t.Fatal(err)
	}
	q := exec.Command("qemu-system-x86_64", "-M", "pc,memory-backend=m", "-m", "16", "-object", "memory-backend-file,id=m,size=16M,share=on,mem-path="+l.dir+"/ram",
		"-nodefaults", "-display", "none", "-bios", l.dir+"/bios", "-qmp", "unix:"+l.dir+"/qmp,server=on,wait=off")
	q.Stderr = os.Stderr
	if err := q.Start(); err != nil {
		t.Fatal(err)
	}
	l.pid = q.Process.Pid
	t.Cleanup(func() {
		_ = q.Process.Kill()
		_ = q.Wait()
	})
	for end := time.Now().Add(20 * time.Second); l.calls() == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the firmware does not run")
		}
	}
	return l
}

// calls is how often the function has returned.
func (l loop) calls() uint32 {
	f, err := os.Open(l.dir + "/ram")
	if err != nil {
		return 0
	}
	defer f.Close()
	var b [4]byte
	if _, err := f.ReadAt(b[:], counterAt); err != nil {
		return 0
	}
	return binary.LittleEndian.Uint32(b[:])
}

// guest is the machine as one in which a Linux runs, with memory made by hand.
func (l loop) guest(ctx context.Context) (*guest.Guest, error) {
	m, err := local.Open(ctx, "qemu:"+l.dir+"/qmp")
	if err != nil {
		return nil, err
	}
	s := synth.New(synth.Options{})
	s.Add(synth.Process{PID: 1, Comm: "init"})
	m.Memory, m.Registers, m.Control.Registers = s.Memory, nil, nil
	return guest.Attach(ctx, m, guest.Options{})
}

// stream stops the machine at each call. whole says that what is there may be passed over.
func (l loop) stream(ctx context.Context, g *guest.Guest, whole bool) (*stream, error) {
	s := newStream(g, Options{Room: 1 << 16})
	s.happened = func(_ context.Context, p *point, stop gdb.Stop, regs *gdb.Registers, at time.Time) bool {
		rip, _ := regs.Get("rip")
		s.emit(trace.Event{Time: at, Kind: p.kind, VCPU: stop.CPU, Return: int64(rip)})
		return whole
	}
	p := &point{place: place{kind: trace.KindProbe}, addr: functionAt, nop: nopSize}
	return s, s.start(ctx, []*point{p})
}

func (l loop) state(t *testing.T) vm.State {
	t.Helper()
	m, err := local.Open(t.Context(), "qemu:"+l.dir+"/qmp")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s, err := m.Control.Stater.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestGuestLoop has each call of a function stop the machine, and compares with what the machine counts. It
// measures how many stops a second there can be, by both ways to go on.
func TestGuestLoop(t *testing.T) {
	l := startLoop(t, 1000)
	g, err := l.guest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for name, whole := range map[string]bool{"passed over": true, "stepped": false} {
		// The calls of before are not events, and calls that happen until started is read are.
		before := l.calls()
		s, err := l.stream(t.Context(), g, whole)
		if err != nil {
			t.Fatal(err)
		}
		started, began := l.calls(), time.Now()
		var e trace.Event
		for range 500 {
			if err := s.Next(t.Context(), &e); err != nil {
				t.Fatal(err)
			}
			if e.Return != functionAt || e.VCPU > 0 {
				t.Fatalf("%+v", e)
			}
		}
		took, calls := time.Since(began), l.calls()
		t.Logf("%s: %v a stop", name, (took / 500).Round(time.Microsecond))
		// Those that wait to be read have happened too.
		if n := 500 + len(s.events); s.Lost() != 0 || calls-before < 498 || int(calls-started) > n+2 {
			t.Errorf("%s: %d to %d calls, %d events, %d lost", name, calls-started, calls-before, n, s.Lost())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if st := l.state(t); st != vm.StateRunning {
			t.Fatalf("after closing the machine is %s", st)
		}
		l.runs(t)
		if left, _ := filepath.Glob(l.dir + "/outsight-gdb-*"); len(left) > 0 {
			t.Errorf("%v is left", left)
		}
	}
}

// runs checks that the machine calls the function, and nothing stops it there.
func (l loop) runs(t *testing.T) {
	t.Helper()
	before := l.calls()
	for end := time.Now().Add(5 * time.Second); l.calls() < before+3000; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the machine, which is %s, has called %d times in five seconds", l.state(t), l.calls()-before)
		}
	}
}

// TestGuestLoopPaused has another pause the machine: it is his until he lets it run.
func TestGuestLoopPaused(t *testing.T) {
	l := startLoop(t, 1000)
	g, err := l.guest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	monitor := g.Machine().Control.Monitor
	state := func() vm.State {
		s, err := g.Machine().Control.Stater.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, closed := range []bool{false, true} { // while it is paused
		s, err := l.stream(t.Context(), g, true)
		if err != nil {
			t.Fatal(err)
		}
		var e trace.Event
		for range 10 {
			if err := s.Next(t.Context(), &e); err != nil {
				t.Fatal(err)
			}
		}
		if err := monitor.QMP(t.Context(), "stop", nil, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		// A stop at a breakpoint at the same time is one that we let run again: then it is paused once more.
		for end := time.Now().Add(5 * time.Second); state() != vm.StatePaused; {
			if time.Now().After(end) {
				t.Fatal("it cannot be paused")
			}
			if err := monitor.QMP(t.Context(), "stop", nil, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(200 * time.Millisecond)
		}
		before := l.calls()
		if closed {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(300 * time.Millisecond)
		if n := l.calls() - before; n > 0 || state() != vm.StatePaused {
			t.Errorf("%d calls while it is %s", n, state())
		}
		if err := monitor.QMP(t.Context(), "cont", nil, nil); err != nil {
			t.Fatal(err)
		}
		if !closed {
			for len(s.events) > 0 {
				<-s.events
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if err := s.Next(ctx, &e); err != nil {
				t.Errorf("after the pause: %v", err)
			}
			cancel()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		l.runs(t)
	}
}

// TestGuestLoopStubClosed has another close the stub: the trace ends, and the machine runs on.
func TestGuestLoopStubClosed(t *testing.T) {
	l := startLoop(t, 1000)
	g, err := l.guest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s, err := l.stream(t.Context(), g, true)
	if err != nil {
		t.Fatal(err)
	}
	var e trace.Event
	if err := s.Next(t.Context(), &e); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Machine().Control.Monitor.HMP(t.Context(), "gdbserver none"); err != nil {
		t.Fatal(err)
	}
	for err = nil; err == nil; {
		err = s.Next(t.Context(), &e)
	}
	if !strings.Contains(err.Error(), "closed its gdb stub") {
		t.Error(err)
	}
	l.runs(t)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestGuestLoopReset resets the machine: what was set stays, and stops it when it runs again. It is stepped, for
// the machine stands still nearly always: see pass.
func TestGuestLoopReset(t *testing.T) {
	l := startLoop(t, 1000)
	g, err := l.guest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s, err := l.stream(t.Context(), g, false)
	if err != nil {
		t.Fatal(err)
	}
	var e trace.Event
	for range 3 {
		if err := g.Machine().Control.Monitor.QMP(t.Context(), "system_reset", nil, nil); err != nil {
			t.Fatal(err)
		}
		for range 100 + len(s.events) {
			if err := s.Next(t.Context(), &e); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	l.runs(t)
}

// TestGuestLoopEnded has the machine end.
func TestGuestLoopEnded(t *testing.T) {
	l := startLoop(t, 1000)
	g, err := l.guest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s, err := l.stream(t.Context(), g, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Machine().Control.Monitor.QMP(t.Context(), "quit", nil, nil); err != nil {
		t.Fatal(err)
	}
	var e trace.Event
	for err = nil; err == nil; {
		err = s.Next(t.Context(), &e)
	}
	if !errors.Is(err, trace.ErrEnded) {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestGuestLoopKilled kills the tracer at any moment: the machine runs on within a second, and nothing
// stops it any more.
func TestGuestLoopKilled(t *testing.T) {
	l := startLoop(t, 1000)
	var longest time.Duration
	for i := range 10 {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), loopTracer+"="+l.dir)
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if said, err := bufio.NewReader(out).ReadString('\n'); said != "tracing\n" {
			t.Fatalf("%q, %v", said, err)
		}
		time.Sleep(time.Duration(7*i) * time.Millisecond)
		_ = c.Process.Kill()
		_ = c.Wait()
		killed, before := time.Now(), l.calls()
		for l.calls() < before+3000 {
			if time.Since(killed) > 10*time.Second {
				t.Fatalf("the machine hangs: it is %s", l.state(t))
			}
			time.Sleep(time.Millisecond)
		}
		longest = max(longest, time.Since(killed))
	}
	t.Logf("3000 calls at most %v after the tracer was killed", longest.Round(time.Millisecond))
	if longest > time.Second {
		t.Errorf("the machine ran on %v after the tracer was killed", longest)
	}
	if st := l.state(t); st != vm.StateRunning {
		t.Errorf("at the end it is %s", st)
	}
}

// loopTracer is set in a process that traces the machine in the folder that it names, until it is killed.
const loopTracer = "OUTSIGHT_TEST_LOOP"

func traceLoop(dir string) error {
	ctx := context.Background()
	l := loop{dir: dir}
	g, err := l.guest(ctx)
	if err != nil {
		return err
	}
	s, err := l.stream(ctx, g, true)
	if err != nil {
		return err
	}
	fmt.Println("tracing")
	var e trace.Event
	for {
		if err := s.Next(ctx, &e); err != nil {
			return err
		}
	}
}
