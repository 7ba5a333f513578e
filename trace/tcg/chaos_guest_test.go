package tcg_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// answersWithin is how long a guest may take for a command while its consumer is mistreated, on a machine that does
// other things as well.
const answersWithin = 60 * time.Second

// chaosSeries are the processes whose calls are known in advance.
const chaosSeries = 3

// TestGuestChaos kills, stops, slows down and restarts what reads the events of a guest, at random. The guest must answer all the
// time, no event may be wrong, and what was lost must be counted exactly: the calls of the guest's processes are numbered, and
// have their number as an argument and as their result. OUTSIGHT_CHAOS is for how long; make chaos sets it.
func TestGuestChaos(t *testing.T) {
	long := time.Minute
	if v := os.Getenv("OUTSIGHT_CHAOS"); v != "" {
		var err error
		if long, err = time.ParseDuration(v); err != nil {
			t.Fatalf("OUTSIGHT_CHAOS: %v", err)
		}
	} else if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("make chaos runs it")
	}
	seed := rand.Uint64()
	if v := os.Getenv("SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("SEED: %v", err)
		}
		seed = n
	}
	t.Logf("SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	g := traced(t, lab.Options{Name: "chaos", Kernel: lab.DefaultKernel, SMP: 2, Files: map[string]string{"/calls": guests.Program(t, "calls")}})
	for i := range chaosSeries {
		labtest.Output(t, g, fmt.Sprintf("/calls until /tmp/stop %d >/tmp/calls.%d 2>&1 & echo", i, i))
	}
	pids := strings.Fields(labtest.Output(t, g, "pidof calls"))
	if len(pids) != chaosSeries {
		t.Fatalf("processes %v", pids)
	}
	// Somebody asks the guest for something all the time.
	asking, stop := context.WithCancel(t.Context())
	var worst, silent atomic.Int64
	asked := make(chan error, 1)
	go func() {
		for asking.Err() == nil {
			began := time.Now()
			for alive := false; !alive && asking.Err() == nil; {
				ctx, cancel := context.WithTimeout(t.Context(), answersWithin)
				var out []byte
				var err error
				// The line to the guest may lose an answer when the guest gets no processor for seconds: it is asked again, in the same time.
				for err == nil && strings.TrimSpace(string(out)) != "alive" {
					out, err = g.Output(ctx, "echo alive")
				}
				cancel()
				if alive = err == nil; alive {
					break
				}
				// On a machine that is busy its shell may read the line more slowly than it is written: does the guest itself go on?
				silent.Add(1)
				if stuck := goesOn(t, g); stuck != nil {
					asked <- fmt.Errorf("the guest does not answer for %v (%w), and does not go on: %w", time.Since(began), err, stuck)
					return
				}
			}
			worst.Store(max(worst.Load(), int64(time.Since(began))))
			time.Sleep(200 * time.Millisecond)
		}
		asked <- nil
	}()
	var total chaosCounts
	for began, n := time.Now(), 0; time.Since(began) < long && !t.Failed(); n++ {
		mistreat(t, r, g.Name, strings.Join(pids, ","), &total)
		select {
		case err := <-asked:
			t.Fatalf("session %d: %v", n, err)
		default:
		}
	}
	stop()
	if err := <-asked; err != nil {
		t.Error(err)
	}
	labtest.Output(t, g, "touch /tmp/stop")
	var done string
	for began := time.Now(); strings.Count(done, "done") < chaosSeries && time.Since(began) < answersWithin; time.Sleep(200 * time.Millisecond) {
		done = labtest.Output(t, g, "cat /tmp/calls.*")
	}
	if strings.Count(done, "done") != chaosSeries {
		t.Errorf("the guest's processes did not end well: %s", done)
	}
	t.Logf("%+v; the guest's slowest answer took %v, and %d times it was looked at instead", total, time.Duration(worst.Load()), silent.Load())
	if total.Exact == 0 || total.Events == 0 {
		t.Error("no session was counted")
	}
}

// goesOn is an error if a virtual CPU of a guest does nothing for a minute.
func goesOn(t *testing.T, g *lab.Guest) error {
	before, err := switches(t, g)
	if err != nil {
		return err
	}
	for began := time.Now(); ; time.Sleep(time.Second) {
		now, err := switches(t, g)
		if err != nil {
			return err
		}
		stuck := 0
		for stuck < min(len(now), len(before)) && now[stuck] != before[stuck] {
			stuck++
		}
		if stuck == len(before) {
			return nil
		}
		if time.Since(began) > answersWithin {
			return fmt.Errorf("its CPU %d did not go on to another task for %v", stuck, time.Since(began))
		}
	}
}

// switches is how often each CPU of a guest has gone on to another task.
func switches(t *testing.T, g *lab.Guest) (all []uint64, err error) {
	l, err := guest.LookAt(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	count, err := l.Linux.Member("rq", "nr_switches")
	if err != nil {
		return nil, err
	}
	for cpu := range l.Linux.CPUAreas {
		q, err := l.Linux.PerCPU("runqueues", cpu)
		if err != nil {
			return nil, err
		}
		n, err := l.Linux.Space.U64(count.At(q))
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

type chaosCounts struct {
	Sessions, Killed, Exact, Lossy, Busy int
	Events, Lost                         uint64
}

// mistreat runs one consumer.
func mistreat(t *testing.T, r *rand.Rand, name, pids string, total *chaosCounts) {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run", "^TestChaosConsumer$", "-test.v")
	hold := r.IntN(4) == 0
	c.Env = append(os.Environ(), "OUTSIGHT_CHAOS_CONSUMER="+name, "OUTSIGHT_CHAOS_PIDS="+pids, fmt.Sprintf("OUTSIGHT_CHAOS_HOLD=%v", hold))
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	total.Sessions++
	lines := make(chan string, 1024)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	begun := false
	for patience := time.After(2 * answersWithin); !begun; {
		select {
		case l, open := <-lines:
			if !open {
				t.Fatalf("the consumer ended before it began: %v", c.Wait())
			}
			begun = strings.HasPrefix(l, "READY")
			wrong(t, l)
		case <-patience:
			_ = c.Process.Kill()
			t.Fatal("the consumer does not begin")
		}
	}
	killed := false
	for range 1 + r.IntN(6) {
		time.Sleep(time.Duration(r.IntN(700)) * time.Millisecond)
		switch r.IntN(5) {
		case 0:
			killed = true
		case 1, 2:
			_ = c.Process.Signal(syscall.SIGSTOP)
			time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
			if r.IntN(4) == 0 { // it dies while it is stopped
				killed = true
			} else {
				_ = c.Process.Signal(syscall.SIGCONT)
			}
		case 3:
			_ = c.Process.Signal(syscall.SIGUSR1) // too slow
		}
		if killed {
			break
		}
	}
	if killed {
		total.Killed++
		_ = c.Process.Kill()
	} else {
		_ = c.Process.Signal(syscall.SIGTERM)
	}
	ended := false
	for patience := time.After(2 * answersWithin); ; {
		select {
		case l, open := <-lines:
			if open {
				wrong(t, l)
				ended = end(t, l, total) || ended
				continue
			}
		case <-patience:
			_ = c.Process.Kill()
			t.Error("the consumer does not end")
		}
		break
	}
	_ = c.Wait()
	if !killed && !ended {
		t.Error("a consumer that was asked to end did not say what it counted")
	}
}

func wrong(t *testing.T, line string) {
	if strings.HasPrefix(line, "WRONG") {
		t.Error(line)
	}
}

// end compares what a consumer missed with what the plugin counted.
func end(t *testing.T, line string, total *chaosCounts) bool {
	var state string
	var events, missing, lost uint64
	if n, _ := fmt.Sscanf(line, "END %s %d %d %d", &state, &events, &missing, &lost); n != 4 {
		return false
	}
	total.Events += events
	total.Lost += lost
	if state == "busy" {
		total.Busy++
		return true
	}
	total.Exact++
	if lost > 0 {
		total.Lossy++
	}
	if missing != lost {
		t.Errorf("%d records are missing, and %d were counted as lost", missing, lost)
	}
	return true
}

// TestChaosConsumer is the process that [TestGuestChaos] mistreats.
func TestChaosConsumer(t *testing.T) {
	name := os.Getenv("OUTSIGHT_CHAOS_CONSUMER")
	if name == "" {
		t.Skip("it is run by TestGuestChaos")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gu, err := guest.Open(ctx, "lab:"+name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer gu.Close()
	o := tcg.Options{Calls: []string{"lseek"}, Ring: 1 << 20}
	for _, p := range strings.Split(os.Getenv("OUTSIGHT_CHAOS_PIDS"), ",") {
		pid, _ := strconv.Atoi(p)
		o.PIDs = append(o.PIDs, int32(pid))
	}
	if os.Getenv("OUTSIGHT_CHAOS_HOLD") == "true" {
		o.Hold = tcg.Hold{Calls: []string{"lseek"}, Limit: 20 * time.Millisecond, Decide: func(context.Context, *trace.Event) tcg.Decision { return tcg.Allow }}
	}
	var s *tcg.Stream
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if s, err = tcg.Start(ctx, gu, o); err == nil {
			break
		}
		// The plugin notices within a moment that the last consumer was killed.
		if time.Since(began) > answersWithin || !strings.Contains(err.Error(), "another monitor") {
			t.Fatal(err)
		}
	}
	defer s.Close()
	term, slow := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	signal.Notify(slow, syscall.SIGUSR1)
	fmt.Println("READY")
	counts := map[int32]*guests.Series{}
	var e trace.Event
	var events, quietAt uint64
	var ending, quiet time.Time
	var settled bool
	for n := 0; ; n++ {
		if n%256 == 0 {
			select {
			case <-term:
				ending, quiet, quietAt = time.Now(), time.Now(), s.Lost()
			case <-slow:
				if ending.IsZero() {
					time.Sleep(time.Duration(100+rand.IntN(400)) * time.Millisecond)
				}
			default:
			}
		}
		if !ending.IsZero() && n%16 == 0 {
			if lost := s.Lost(); lost != quietAt {
				quiet, quietAt = time.Now(), lost
			}
			// What was lost of a process is missing only once one of its later calls was seen.
			if settled = time.Since(quiet) > 500*time.Millisecond && all(counts, func(c *guests.Series) bool { return c.At.After(quiet) }); settled || time.Since(ending) > 20*time.Second {
				break
			}
		}
		wait, stop := context.WithTimeout(ctx, 10*time.Second)
		err := s.Next(wait, &e)
		stop()
		if errors.Is(err, context.DeadlineExceeded) {
			continue
		}
		if err != nil {
			fmt.Println("WRONG", err)
			return
		}
		if e.Name != "lseek" {
			continue
		}
		events++
		c := counts[e.TID]
		if c == nil {
			c = &guests.Series{}
			counts[e.TID] = c
		}
		if why := c.Call(call(&e)); why != "" {
			fmt.Printf("WRONG %s: %s(%s) = %s <%s> of %d\n", why, e.Name, e.Args, e.Result, e.Note, e.TID)
		}
	}
	var missing uint64
	for _, c := range counts {
		missing += c.Missing()
	}
	state := "exact"
	if !settled || !all(counts, func(c *guests.Series) bool { return !c.Late }) {
		state = "busy"
	}
	fmt.Println("END", state, events, missing, s.Lost())
}

func call(e *trace.Event) guests.Call {
	return guests.Call{Args: e.Args, Result: e.Result, Note: e.Note, Returned: e.Returned, Lost: e.Lost, At: e.Time}
}

// all reports whether all processes were seen, and something holds for each.
func all(counts map[int32]*guests.Series, holds func(c *guests.Series) bool) bool {
	n := 0
	for _, c := range counts {
		if holds(c) {
			n++
		}
	}
	return n == chaosSeries
}
