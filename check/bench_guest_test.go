package check_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// BenchmarkGuestCheck judges a guest of 1 GiB again and again, as --every does: with few processes and
// with many, in shared and in private memory; all checks, and the kernel's text alone. It
// reports the processor time of each round, too, which the other guests of a busy machine change less.
func BenchmarkGuestCheck(b *testing.B) {
	labtest.NeedQEMU(b)
	for _, private := range []bool{false, true} {
		g := labtest.Up(b, lab.Options{Kernel: "6.12", Memory: 1 << 30, SMP: 2, Private: private, Modules: zooModules})
		s, err := guest.Open(b.Context(), "lab:"+g.Name, guest.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		memory := map[bool]string{false: "shared", true: "private"}[private]
		for _, processes := range []int{100, 550} {
			labtest.Output(b, g, fmt.Sprintf("for i in $(seq %d); do sleep 100000 </dev/null >/dev/null 2>&1 & done; sleep 2; echo ok", processes-70))
			for name, only := range map[string][]string{"all": nil, "text": {"kernel-text"}} {
				checks, err := check.Select(only, nil)
				if err != nil {
					b.Fatal(err)
				}
				b.Run(fmt.Sprintf("%s/%d/%s", memory, processes, name), func(b *testing.B) { benchmarkCheck(b, s, checks) })
			}
		}
		if err := g.Down(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkCheck(b *testing.B, s *guest.Guest, checks []*check.Check) {
	h := &check.History{}
	for range 3 { // what is kept is, from the second look on
		if _, err := check.Run(b.Context(), s, checks, check.Remember(h)); err != nil {
			b.Fatal(err)
		}
	}
	began := processorTime(b)
	for b.Loop() {
		r, err := check.Run(b.Context(), s, checks, check.Remember(h))
		if err != nil {
			b.Fatal(err)
		}
		if len(r.Findings)+len(r.Gaps) > 0 {
			b.Fatalf("findings %v, gaps %v", r.Findings, r.Gaps)
		}
	}
	b.ReportMetric(float64(processorTime(b)-began)/float64(b.N)/float64(time.Millisecond), "cpu-ms/op")
}

// processorTime is what this process has used so far.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkGuestInstall measures how long it takes from a change of kernel text to its finding with --every 1s,
// for changes at any time of the period: the mean, and the longest; and the share
// of a processor that the command takes while nothing happens.
func BenchmarkGuestInstall(b *testing.B) {
	labtest.NeedQEMU(b)
	g := labtest.Up(b, lab.Options{Kernel: "6.12", Memory: 1 << 30, SMP: 2, Modules: zooModules})
	ram := labtest.OpenRAM(b, g)
	s, err := guest.Open(b.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	l, err := s.Look(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	at, err := l.Linux.SymbolAddr("kernel_halt") // that runs once
	if err != nil {
		b.Fatal(err)
	}
	page, err := l.Linux.Space.Translate(at + 16)
	if err != nil {
		b.Fatal(err)
	}
	was := make([]byte, 1)
	if _, err := l.Linux.Space.ReadAt(was, at+16); err != nil {
		b.Fatal(err)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	put := func(v byte) {
		if _, err := ram.WriteAt([]byte{v}, int64(page.PA)); err != nil {
			b.Fatal(err)
		}
	}

	outsight := filepath.Join(b.TempDir(), "outsight")
	if out, err := exec.Command("go", "build", "-o", outsight, "../cmd/outsight").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	c := exec.CommandContext(b.Context(), outsight, "check", "lab:"+g.Name, "--every", "1s", "-o", "json")
	out, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	messages, err := c.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	}()
	lines := func(r io.Reader, with string) <-chan time.Time {
		seen := make(chan time.Time, 100)
		go func() {
			for s := bufio.NewScanner(r); s.Scan(); {
				if strings.Contains(s.Text(), with) {
					seen <- time.Now()
				}
			}
		}()
		return seen
	}
	wait := func(said <-chan time.Time) time.Time {
		select {
		case at := <-said:
			return at
		case <-time.After(time.Minute):
			b.Fatal("outsight check says nothing")
			return time.Time{}
		}
	}
	found, gone := lines(out, `"kernel-text"`), lines(messages, "no longer found: kernel text")
	time.Sleep(5 * time.Second) // the first rounds judge all
	const idle = 30 * time.Second
	used := processorTimeOf(b, c.Process.Pid)
	time.Sleep(idle)
	share := 100 * float64(processorTimeOf(b, c.Process.Pid)-used) / float64(idle)
	var sum, longest time.Duration
	for i := 0; b.Loop(); i++ {
		time.Sleep(time.Second + time.Duration(i*137%1000)*time.Millisecond)
		put(was[0] ^ 0xff)
		began := time.Now()
		took := wait(found).Sub(began)
		sum, longest = sum+took, max(longest, took)
		put(was[0])
		wait(gone)
	}
	b.ReportMetric(float64(sum)/float64(b.N)/float64(time.Millisecond), "found-ms")
	b.ReportMetric(float64(longest)/float64(time.Millisecond), "longest-ms")
	b.ReportMetric(share, "%core")
}

// processorTimeOf is what a process has used so far, by its /proc/PID/stat.
func processorTimeOf(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		b.Fatalf("/proc/%d/stat: %s", pid, stat)
	}
	var ticks time.Duration
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * time.Second / 100 // USER_HZ
}
