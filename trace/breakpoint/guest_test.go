package breakpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// options open a guest. Where kernels are slow to be read what was read is kept.
func options() guest.Options { return guest.Options{Cache: os.Getenv(cache)} }

const cache = "OUTSIGHT_TEST_CACHE"

// tracer is set in a process that traces the TARGET that it names until it is killed.
const tracer = "OUTSIGHT_TEST_TRACER"

func TestMain(m *testing.M) {
	if target := os.Getenv(tracer); target != "" {
		fmt.Println(traceForever(target))
		os.Exit(1)
	}
	if dir := os.Getenv(loopTracer); dir != "" {
		fmt.Println(traceLoop(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func traceForever(target string) error {
	ctx := context.Background()
	g, err := guest.Open(ctx, target, options())
	if err != nil {
		return err
	}
	s, err := Start(ctx, g, Options{Kinds: []trace.Kind{trace.KindExec, trace.KindExit}})
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

// TestGuestEvents compares the events of a shell session with what it did.
func TestGuestEvents(t *testing.T) {
	kernels, slow := []string{"6.12"}, os.Getenv("OUTSIGHT_SLOW") != ""
	if slow {
		kernels = []string{"5.10", "6.1", "6.12", "7.2"}
	}
	for _, kernel := range kernels {
		t.Run(kernel, func(t *testing.T) {
			g := labtest.Up(t, lab.Options{Kernel: kernel, Memory: 1 << 28, SMP: 2, Modules: []string{"dummy"}})
			testEvents(t, g, Kinds()...)
			testPaused(t, g)
			testKilled(t, g, time.Second)
			if slow {
				testRate(t, g)
			}
		})
	}
}

// TestGuestKVM does so on real KVM.
func TestGuestKVM(t *testing.T) {
	labtest.NeedQEMU(t)
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("takes minutes: set OUTSIGHT_SLOW")
	}
	command := filepath.Join(t.TempDir(), "outsight")
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", command, "../../cmd/outsight")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	tests := labtest.Binary(t)
	n := labtest.Nested{Command: command, Run: "^TestInside$", Guest: lab.Options{Kernel: "6.12", Modules: []string{"dummy"}}, Patience: 10 * time.Minute, Env: []string{cache + "=/root/profiles"}}
	for range 3 {
		out, err := n.Try(t, tests)
		if err == nil {
			t.Log(out)
			return
		}
		t.Logf("another try, after %v: %s", err, out)
		if strings.Contains(out, "--- FAIL: TestInside") {
			break
		}
	}
	t.Error("events of this guest on KVM were not seen as they are")
}

// TestInside is what TestGuestKVM runs inside its KVM host.
func TestInside(t *testing.T) {
	g := labtest.NestedGuest(t)
	// As many as there are slots.
	testEvents(t, g, trace.KindExec, trace.KindExit, trace.KindConnect, trace.KindAccept)
	testEvents(t, g, trace.KindMount, trace.KindUnmount, trace.KindListen)
	testSlots(t, g)
	testKilled(t, g, 5*time.Second) // all that it takes is emulated: 1.7 s were seen
	testRate(t, g)
}

// traced starts a trace of the guest. events ends it and gives what was seen; done closes it.
func traced(t *testing.T, g *lab.Guest, o Options) (s *guest.Guest, events func() []trace.Event, done func()) {
	t.Helper()
	s, err := guest.Open(t.Context(), "qemu:"+g.QMP(), options())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := Start(t.Context(), s, o)
	if err != nil {
		s.Close()
		t.Fatal(err)
	}
	var all []trace.Event
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var e trace.Event
		for {
			if err := stream.Next(ctx, &e); err != nil {
				if ctx.Err() == nil {
					t.Error(err)
				}
				return
			}
			all = append(all, e)
		}
	}()
	stop := func() {
		cancel()
		<-ended
	}
	return s, func() []trace.Event { stop(); return all }, func() {
		stop()
		if n := stream.Lost(); n != 0 {
			t.Errorf("%d events were lost", n)
		}
		if err := stream.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// session is what the guest does.
const session = `cd /root
b=/bin/busybox
for i in 1 2 3; do $b true marker-$i; done
$b sh -c 'exit 7'; $b sh -c 'kill -9 $$'
mkdir -p /tmp/m; mount -t tmpfs outsight /tmp/m; umount /tmp/m
nc -l -p 7777 </dev/null >/dev/null 2>&1 & n=$!
sleep 3; echo | nc 127.0.0.1 7777 >/dev/null 2>&1 &
sleep 3; kill $n 2>/dev/null
grep -q bp: /etc/passwd 2>/dev/null || { echo root:x:0:0::/root:/bin/sh; echo bp:x:1000:1000::/:/bin/sh; } >>/etc/passwd
su bp -s /bin/sh -c "$b true marker-user" 2>&1
rmmod dummy 2>&1; insmod $(find / -xdev -name 'dummy.ko' 2>/dev/null | head -n 1) 2>&1
$b true marker-end
exit 0`

func testEvents(t *testing.T, g *lab.Guest, kinds ...trace.Kind) {
	t.Helper()
	_, events, done := traced(t, g, Options{Kinds: kinds})
	said := labtest.Output(t, g, session)
	time.Sleep(time.Second)
	all := events()
	done()
	want := func(kind trace.Kind, what string, ok func(*trace.Event) bool) (n int) {
		if !slices.Contains(kinds, kind) {
			return 0
		}
		for i := range all {
			if all[i].Kind == kind && ok(&all[i]) {
				n++
			}
		}
		if n == 0 {
			t.Errorf("there is no event %s: %s", kind, what)
		}
		return n
	}
	by := func(e *trace.Event, comm string) bool { return e.Process != nil && e.Process.Comm == comm }
	// As busybox calls those that it runs by /proc/self/exe, or in the shell's child.
	nc := func(e *trace.Event) bool { return by(e, "exe") || by(e, "nc") }
	var markers []string
	pids := map[int32]bool{}
	for i := range all {
		e := &all[i]
		if e.Source != trace.FromBreakpoint || e.Time.IsZero() || e.VCPU < 0 || e.Process == nil || e.Note != "" {
			t.Errorf("incomplete: %+v", *e)
		}
		if e.Kind == trace.KindExec && strings.HasPrefix(e.Args, "/bin/busybox true marker-") {
			markers = append(markers, e.Args)
			pids[e.Process.PID] = true
			if e.Object != "/bin/busybox" || e.Process.PPID <= 0 || e.Process.Parent == "" {
				t.Errorf("%+v of %+v", *e, *e.Process)
			}
		}
	}
	if slices.Contains(kinds, trace.KindExec) {
		mark := func(s string) string { return "/bin/busybox true marker-" + s }
		if w := []string{mark("1"), mark("2"), mark("3"), mark("user"), mark("end")}; !slices.Equal(markers, w) {
			t.Errorf("executions %v, want %v", markers, w)
		}
		if n := want(trace.KindExit, "of what was executed", func(e *trace.Event) bool { return e.Process != nil && pids[e.Process.PID] && e.Result == "status 0" }); n != len(pids) && slices.Contains(kinds, trace.KindExit) {
			t.Errorf("%d of %d markers exit", n, len(pids))
		}
	}
	want(trace.KindExit, "with 7", func(e *trace.Event) bool { return e.Result == "status 7" && e.Returned && e.Return == 7 })
	want(trace.KindExit, "killed", func(e *trace.Event) bool { return e.Result == "killed by SIGKILL" && !e.Returned })
	want(trace.KindFork, "by the shell", func(e *trace.Event) bool { return by(e, "sh") && e.Return > 0 })
	want(trace.KindConnect, "to 127.0.0.1:7777", func(e *trace.Event) bool { return e.Object == "127.0.0.1:7777" && nc(e) })
	want(trace.KindListen, "at port 7777", func(e *trace.Event) bool { return strings.HasSuffix(e.Object, ":7777") && nc(e) })
	want(trace.KindAccept, "of 127.0.0.1", func(e *trace.Event) bool { return strings.HasPrefix(e.Object, "127.0.0.1:") && nc(e) })
	want(trace.KindMount, "of /tmp/m", func(e *trace.Event) bool {
		return e.Object == "/tmp/m" && slices.Contains(e.Fields, "type=tmpfs") && slices.Contains(e.Fields, "device=outsight")
	})
	want(trace.KindCreds, "of su", func(e *trace.Event) bool { return strings.HasPrefix(e.Args, "uid 0 → 1000, euid 0 → 1000") })
	want(trace.KindUnload, "of dummy", func(e *trace.Event) bool { return e.Object == "dummy" && by(e, "rmmod") })
	want(trace.KindModule, "of dummy", func(e *trace.Event) bool { return e.Object == "dummy" && by(e, "insmod") })
	want(trace.KindUnmount, "of /tmp/m", func(e *trace.Event) bool { return e.Object == "/tmp/m" })
	if t.Failed() {
		t.Logf("the session says %q", said)
		for i := range all {
			if e := &all[i]; e.Kind != trace.KindFork && e.Kind != trace.KindExit && e.Kind != trace.KindExec {
				t.Logf("%+v of %+v", *e, e.Process)
			}
		}
	}
}

// state is what QEMU says the machine does.
func state(t *testing.T, g *lab.Guest) vm.State {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := qmp.Dial(t.Context(), g.QMP())
		if err == nil {
			var s struct{ Status vm.State }
			err = c.Execute(t.Context(), "query-status", nil, &s)
			c.Close()
			if err == nil {
				return s.Status
			}
		}
		if time.Now().After(end) { // another had the seat all the time
			t.Fatal(err)
		}
	}
}

// testPaused has another stop the machine while it is traced: it stays stopped until he lets it run, and
// then events come again.
func testPaused(t *testing.T, g *lab.Guest) {
	t.Helper()
	s, events, done := traced(t, g, Options{Kinds: []trace.Kind{trace.KindExec}})
	monitor := s.Machine().Control.Monitor
	if err := monitor.QMP(t.Context(), "stop", nil, nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	// At a breakpoint at the same time it was let run again.
	if st, err := s.Machine().Control.Stater.State(t.Context()); err != nil || st != vm.StatePaused {
		t.Errorf("a machine that another has paused is %s, %v", st, err)
	}
	if err := monitor.QMP(t.Context(), "cont", nil, nil); err != nil {
		t.Fatal(err)
	}
	labtest.Output(t, g, "/bin/busybox true marker-after; exit 0")
	all := events()
	done()
	if !slices.ContainsFunc(all, func(e trace.Event) bool { return strings.Contains(e.Args, "marker-after") }) {
		t.Errorf("no event after a pause, of %d", len(all))
	}
}

// testSlots asks for more than KVM has.
func testSlots(t *testing.T, g *lab.Guest) {
	t.Helper()
	s, err := guest.Open(t.Context(), "qemu:"+g.QMP(), options())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	many := []trace.Kind{trace.KindUnload, trace.KindModule, trace.KindMount, trace.KindUnmount, trace.KindExec}
	_, err = Start(t.Context(), s, Options{Kinds: many})
	var e *vm.Error
	if !errors.As(err, &e) || !errors.Is(err, vm.ErrUnsupported) || !strings.Contains(e.Why, "exec (finalize_exec)") {
		t.Errorf("more than four: %v", err)
	}
	if st := state(t, g); st != vm.StateRunning {
		t.Errorf("afterwards the machine is %s", st)
	}
}

// testKilled kills the tracer: the guest must run on within a second, without breakpoints.
func testKilled(t *testing.T, g *lab.Guest, bound time.Duration) {
	t.Helper()
	for round := range 3 {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), tracer+"=qemu:"+g.QMP())
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var said string
		if _, err := fmt.Fscanln(out, &said); err != nil || said != "tracing" {
			t.Fatalf("%q, %v", said, err)
		}
		// In the middle of events, of which each stops the guest.
		busy := make(chan struct{})
		began := time.Now()
		go func() {
			defer close(busy)
			labtest.Output(t, g, "for i in $(seq 60); do /bin/busybox true; done; exit 0")
		}()
		time.Sleep(time.Duration(200+150*round) * time.Millisecond)
		_ = c.Process.Kill()
		_ = c.Wait()
		killed := time.Now()
		for end := killed.Add(bound); ; time.Sleep(5 * time.Millisecond) {
			if s := state(t, g); s == vm.StateRunning {
				t.Logf("runs %v after the tracer was killed", time.Since(killed).Round(time.Millisecond))
				break
			} else if time.Now().After(end) {
				t.Errorf("%v after the tracer was killed the machine is %s", bound, s)
				break
			}
		}
		select {
		case <-busy:
			t.Logf("60 executions took %v", time.Since(began).Round(time.Millisecond))
		case <-time.After(2 * time.Minute):
			t.Fatalf("after the tracer was killed the guest hangs: it is %s", state(t, g))
		}
	}
	// The stub was closed, or can be taken.
	_, _, done := traced(t, g, Options{Kinds: []trace.Kind{trace.KindExec}})
	done()
	if s := state(t, g); s != vm.StateRunning {
		t.Errorf("at the end the machine is %s", s)
	}
}

// testRate measures how many events a second there can be, and what each costs the guest.
func testRate(t *testing.T, g *lab.Guest) {
	t.Helper()
	const times = 30
	loop := fmt.Sprintf("for i in $(seq %d); do /bin/busybox true marker-rate; done; exit 0", times)
	took := func() (clock, processor time.Duration) {
		began, used := time.Now(), processorTime(t, g.PID())
		labtest.Output(t, g, loop)
		return time.Since(began), processorTime(t, g.PID()) - used
	}
	took() // once, so that all is in memory
	bare, bareUsed := took()
	for _, kinds := range [][]trace.Kind{{trace.KindExec}, {trace.KindExec, trace.KindExit}} {
		_, events, done := traced(t, g, Options{Kinds: kinds})
		with, used := took()
		all := events()
		done()
		n := 0
		for _, e := range all {
			if strings.Contains(e.Args, "marker-rate") {
				n++
			}
		}
		if n != times {
			t.Errorf("%d of %d executions", n, times)
		}
		each := func(d time.Duration) time.Duration {
			return (d / time.Duration(max(len(all), 1))).Round(time.Microsecond)
		}
		t.Logf("%v: %d events; %d programs took %v, and %v without: %v an event by the clock, %v of QEMU's processor time",
			kinds, len(all), times, with.Round(time.Millisecond), bare.Round(time.Millisecond), each(with-bare), each(used-bareUsed))
	}
}

// processorTime is what a process has used so far, in whole ticks of 10 ms.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	var user, system int64
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
