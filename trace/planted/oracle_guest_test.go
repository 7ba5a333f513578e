package planted_test

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

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/plugin"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/planted"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// collect keeps what a stream has until stop is called.
func collect(t *testing.T, s trace.Stream) (stop func() []trace.Event) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan []trace.Event)
	go func() {
		var all []trace.Event
		for {
			var e trace.Event
			if err := s.Next(ctx, &e); err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				done <- all
				return
			}
			e.Args, e.Result = strings.Clone(e.Args), strings.Clone(e.Result)
			all = append(all, e)
		}
	}()
	return func() []trace.Event {
		t.Helper()
		time.Sleep(500 * time.Millisecond) // what happened is on its way
		cancel()
		all := <-done
		// A preemptible kernel counts runs that it left out, also for calls that nobody asked for: what is missing shows in what is compared.
		missed := uint64(0)
		if p, ok := s.(*planted.Stream); ok {
			missed = p.Status().Missed
		}
		if n := s.Lost(); n > missed {
			t.Errorf("%d events were lost, and %d left out", n-missed, missed)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		return all
	}
}

const storm = 300

// work is what the guest does: a storm of short processes, and calls of those that are traced.
var work = fmt.Sprintf(`cat >/tmp/storm <<'X'
#!/bin/sh
i=0; while [ $i -lt %d ]; do /bin/true $i; i=$((i+1)); done
X
chmod +x /tmp/storm
mkdir -p /tmp/m; mount -t tmpfs none /tmp/m; cp /bin/busybox /tmp/m/copy-of-a-program
/tmp/m/copy-of-a-program true; cd /tmp/m; ./copy-of-a-program true; cd /
touch /tmp/gone; rm /tmp/gone; rm /tmp/never 2>/dev/null
nc -w 1 127.0.0.1 9 </dev/null 2>/dev/null
/nonexistent 2>/dev/null
(exit 7)
/tmp/storm
echo done`, storm)

// TestGuestOracle compares what planted programs report with what the plugin in QEMU sees: the same calls, programs, and processes.
func TestGuestOracle(t *testing.T) {
	for _, k := range kernels() {
		t.Run(k, func(t *testing.T) { oracle(t, lab.Options{Name: "planted-" + k, Kernel: k, SMP: 2}) })
	}
}

// both begins to trace by planted programs, and by the plugin.
func both(t *testing.T, o lab.Options, p planted.Options, q tcg.Options) (g *lab.Guest, s *planted.Stream, stop, stop2 func() []trace.Event) {
	t.Helper()
	path, err := plugin.Install(filepath.Join(t.TempDir(), plugin.FileName))
	if err != nil {
		labtest.Need(t, err.Error())
	}
	o.Plugin = path
	g, gu := up(t, o)
	plantInside(t, g, gu, p)
	if s, err = planted.Open(t.Context(), gu, 0, p); err != nil {
		t.Fatal(err)
	}
	gu2, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { gu2.Close() })
	plugged, err := tcg.Start(t.Context(), gu2, q)
	if err != nil {
		t.Fatal(err)
	}
	return g, s, collect(t, s), collect(t, plugged)
}

// text is what both sources have to agree on.
func text(e *trace.Event) string {
	return fmt.Sprintf("%d %s(%s) = %s", e.TID, e.Name, e.Args, e.Result)
}

// calls are those of events, in order.
func calls(all []trace.Event, of func(*trace.Event) bool) (list []string) {
	for i := range all {
		if e := &all[i]; e.Kind == trace.KindSyscall && (of == nil || of(e)) {
			list = append(list, text(e))
		}
	}
	slices.Sort(list)
	return list
}

// wide32 is a program that makes system calls as a 32-bit process, by all ways that there are.
func wide32(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "wide32")
	out, err := exec.Command("gcc", "-O1", "-static", "-o", path, "../tcg/testdata/wide32.c",
		"-m32", "-nostdlib", "-ffreestanding", "-fno-pic", "-no-pie", "-fno-stack-protector", "-Wl,-m,elf_i386", "-Wl,-e,start").CombinedOutput()
	if err != nil {
		labtest.Need(t, "gcc for 32-bit programs: "+string(out))
	}
	return path
}

// TestGuestAll compares all system calls of processes that begin and end while both sources look.
func TestGuestAll(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("OUTSIGHT_SLOW is not set")
	}
	for _, k := range kernels() {
		t.Run(k, func(t *testing.T) {
			files := map[string]string{"/wide32": wide32(t)}
			g, s, stop, stop2 := both(t, lab.Options{Name: "all-" + k, Kernel: k, SMP: 2, Files: files}, planted.Options{All: true, Ring: 2 << 20}, tcg.Options{})
			labtest.Output(t, g, `echo begin >/dev/null
/bin/busybox sh -c 'cd /tmp && echo hello >a && cat a | wc -c && ls -l /proc/self/ >/dev/null && mv a b && rm b; cat /nonexistent 2>/dev/null; sleep 0.1; id >/dev/null; date >/dev/null; dd if=/dev/zero of=/dev/null bs=1k count=3 2>/dev/null; mkdir -p d/e; find d; rm -r d; nc -w 1 127.0.0.1 9 </dev/null 2>/dev/null; /wide32 >/dev/null; true'`)
			seen, want := stop(), stop2()
			st := s.Status()
			t.Logf("%d events, the plugin saw %d; %+v", len(seen), len(want), st)
			mine := map[int32]bool{}
			for i := range seen {
				if e := &seen[i]; e.Kind == trace.KindFork {
					mine[e.Process.PID] = true
				}
			}
			of := func(e *trace.Event) bool { return mine[e.TID] }
			compare(t, calls(seen, of), calls(want, of))
			durations, long := 0, 0
			for i := range seen {
				if e := &seen[i]; e.Kind == trace.KindSyscall && of(e) {
					long++
					if e.Duration > 0 {
						durations++
					}
				}
			}
			t.Logf("%d of %d have a duration", durations, long)
		})
	}
}

func oracle(t *testing.T, o lab.Options) {
	g, p, stop, stop2 := both(t, o, planted.Options{}, tcg.Options{Calls: planted.DefaultCalls})
	forks := labtest.Output(t, g, "awk '/processes/{print $2}' /proc/stat")
	labtest.Output(t, g, work)
	after := labtest.Output(t, g, "awk '/processes/{print $2}' /proc/stat")
	seen, want := stop(), stop2()
	st := p.Status()
	t.Logf("%d events, the plugin saw %d; %+v; tasks made: %s to %s", len(seen), len(want), st, forks, after)

	compare(t, calls(seen, nil), calls(want, nil))

	var execs, programs []string
	for i := range want {
		if e := &want[i]; strings.HasPrefix(e.Name, "execve") && e.Returned && e.Return == 0 {
			file, _, _ := strings.Cut(strings.TrimPrefix(e.Args, `"`), `"`)
			programs = append(programs, fmt.Sprint(e.TID, " ", filepath.Base(file)))
		}
	}
	lives := map[int32]string{}
	codes := map[string]int{}
	for i := range seen {
		e := &seen[i]
		if e.Source != trace.FromPlanted || e.Process == nil {
			t.Errorf("source %s, process %v: %v", e.Source, e.Process, e)
			continue
		}
		switch e.Kind {
		case trace.KindFork:
			lives[e.Process.PID] += "f"
		case trace.KindExec:
			lives[e.Process.PID] += "x"
			name := e.Object
			if i := slices.IndexFunc(e.Fields, func(f string) bool { return strings.HasPrefix(f, "filename=") }); i >= 0 {
				name = e.Fields[i]
			}
			execs = append(execs, fmt.Sprint(e.TID, " ", filepath.Base(name)))
		case trace.KindExit:
			lives[e.Process.PID] += "e"
			codes[e.Result+e.Args]++
		}
	}
	slices.Sort(execs)
	slices.Sort(programs)
	compare(t, execs, programs)
	whole := 0
	for _, l := range lives {
		if l == "fxe" {
			whole++
		}
	}
	if whole < storm {
		t.Errorf("%d processes forked, ran a program and ended, of %d: %v", whole, storm, lives)
	}
	t.Log(codes)
	n := 0
	for i := range seen {
		if e := &seen[i]; e.Kind != trace.KindSyscall && n < 40 {
			n++
			t.Log(e.Time.Format("05.000000"), e.Kind, e.Process.PID, e.Process.Comm, e.Process.Exe, e.Object, e.Args, e.Result, e.Note, e.Fields)
		}
	}
}

func compare(t *testing.T, got, want []string) {
	t.Helper()
	missing, extra := less(want, got), less(got, want)
	if len(missing)+len(extra) == 0 {
		t.Logf("%d are the same", len(got))
		return
	}
	t.Errorf("of %d, %d are missing, %d are too many:\n- %s\n+ %s", len(want), len(missing), len(extra),
		strings.Join(missing[:min(len(missing), 20)], "\n- "), strings.Join(extra[:min(len(extra), 20)], "\n+ "))
}

// less is what a has more than b, both of them in order.
func less(a, b []string) (more []string) {
	n := map[string]int{}
	for _, s := range b {
		n[s]++
	}
	for _, s := range a {
		if n[s]--; n[s] < 0 {
			more = append(more, s)
		}
	}
	return more
}
