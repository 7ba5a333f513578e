package planted_test

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
	"syscall"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/plant"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/planted"
)

const (
	// answersWithin is how long a guest may take for a command, on a machine that does other things as well.
	answersWithin = 90 * time.Second
	// chaosSeries are the processes whose calls are known in advance.
	chaosSeries = 3
)

// TestGuestChaos kills, stops, slows down and restarts, at random, what plants, reads and removes probes. The guest must never notice: it answers, its processes end
// well, its kernel has nothing to complain about, and its memory is as before. No event may be wrong, and what was lost must be counted exactly: the
// calls of the guest's processes are numbered. OUTSIGHT_CHAOS is for how long; make chaos-planted sets it.
func TestGuestChaos(t *testing.T) {
	long := time.Minute
	if v := os.Getenv("OUTSIGHT_CHAOS"); v != "" {
		var err error
		if long, err = time.ParseDuration(v); err != nil {
			t.Fatalf("OUTSIGHT_CHAOS: %v", err)
		}
	} else if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("make chaos-planted runs it")
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
	each := long / time.Duration(len(kernels()))
	for _, k := range kernels() {
		t.Run(k, func(t *testing.T) { chaos(t, r, k, each) })
	}
}

func chaos(t *testing.T, r *rand.Rand, kernel string, long time.Duration) {
	l := lives(t, lab.Options{
		Name: "planted-chaos-" + kernel, Kernel: kernel, SMP: 2, Private: r.IntN(2) == 0, Append: steady,
		Files: map[string]string{"/calls": guests.Program(t, "calls")},
	})
	for i := range chaosSeries {
		l.sh(fmt.Sprintf("/calls until /tmp/stop %d >/tmp/calls.%d 2>&1 & echo", i, i))
	}
	pids := strings.Fields(l.sh("pidof calls"))
	if len(pids) != chaosSeries {
		t.Fatalf("processes %v", pids)
	}
	c := &chaotic{lived: l, r: r, pids: strings.Join(pids, ",")}
	fds := l.sh("ls /proc/2/fd")
	f := l.plant(c.options()) // to know where, and what was there
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < long && !t.Failed(); {
		c.mistreat()
		l.sh("echo alive")
	}
	p, err := plant.Find(t.Context(), l.g)
	switch {
	case err == nil:
		if err := p.Remove(t.Context()); err != nil {
			t.Fatalf("remove what was left (%s): %v", p.State, err)
		}
	case !errors.Is(err, plant.ErrNothing):
		t.Fatal(err)
	}
	l.sh("touch /tmp/stop")
	var done string
	for began := time.Now(); strings.Count(done, "done") < chaosSeries && time.Since(began) < answersWithin; time.Sleep(200 * time.Millisecond) {
		done = l.sh("cat /tmp/calls.*")
	}
	if strings.Count(done, "done") != chaosSeries {
		t.Errorf("the guest's processes did not end well: %s", done)
	}
	if now := l.sh("ls /proc/2/fd"); now != fds {
		t.Errorf("the guest's kernel has the files %q, before %q", now, fds)
	}
	l.bare()
	t.Logf("%+v", c.total)
	if c.total.Exact == 0 || c.total.Events == 0 {
		t.Error("no session was counted")
	}
}

// chaotic mistreats what reads a guest's probes.
type chaotic struct {
	*lived
	r     *rand.Rand
	pids  string
	total struct {
		Sessions, Killed, Planted, Exact, Lossy, Busy int
		Events, Lost, Missed                          uint64
	}
}

func (c *chaotic) options() planted.Options {
	o := planted.Options{Calls: []string{"lseek"}, Ring: 512 << 10}
	for _, p := range strings.Split(c.pids, ",") {
		pid, _ := strconv.Atoi(p) // the guest's own pidof
		o.PIDs = append(o.PIDs, int32(pid))
	}
	return o
}

// mistreat runs one reader, which also plants if nothing is planted, and removes what it has planted.
func (c *chaotic) mistreat() {
	t, r := c.T, c.r
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestChaosReader$", "-test.v")
	first := r.IntN(3) == 0 // it removes what is there, and plants anew
	cmd.Env = append(os.Environ(), "OUTSIGHT_CHAOS_READER="+c.lab.Name, "OUTSIGHT_CHAOS_PIDS="+c.pids, fmt.Sprintf("OUTSIGHT_CHAOS_ANEW=%v", first))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	c.total.Sessions++
	lines := make(chan string, 1024)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	killed := false
	if r.IntN(3) == 0 { // whatever it is at: looking, planting, removing
		select {
		case <-time.After(time.Duration(r.Int64N(int64(5 * time.Second)))):
		case line := <-lines:
			c.wrong(line)
		}
		killed = true
	} else {
		c.ready(lines, cmd)
	}
	for range 1 + r.IntN(6) {
		if killed {
			break
		}
		time.Sleep(time.Duration(r.IntN(700)) * time.Millisecond)
		switch r.IntN(6) {
		case 0:
			killed = true
		case 1, 2, 3:
			_ = cmd.Process.Signal(syscall.SIGSTOP)
			time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
			if killed = r.IntN(4) == 0; !killed { // else it dies while it is stopped
				_ = cmd.Process.Signal(syscall.SIGCONT)
			}
		case 4:
			_ = cmd.Process.Signal(syscall.SIGUSR1) // too slow
		}
	}
	if killed {
		c.total.Killed++
		_ = cmd.Process.Kill()
	} else {
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	ended := false
	for patience := time.After(2 * answersWithin); ; {
		select {
		case line, open := <-lines:
			if open {
				c.wrong(line)
				ended = c.end(line) || ended
				continue
			}
		case <-patience:
			_ = cmd.Process.Kill()
			t.Error("the reader does not end")
		}
		break
	}
	_ = cmd.Wait()
	if !killed && !ended {
		t.Error("a reader that was asked to end did not say what it counted")
	}
}

// ready waits until a reader has begun.
func (c *chaotic) ready(lines <-chan string, cmd *exec.Cmd) {
	c.Helper()
	for patience := time.After(2 * answersWithin); ; {
		select {
		case line, open := <-lines:
			if !open {
				c.Fatalf("the reader ended before it began: %v", cmd.Wait())
			}
			c.wrong(line)
			if strings.HasPrefix(line, "READY") {
				if strings.HasSuffix(line, "planted") {
					c.total.Planted++
				}
				return
			}
		case <-patience:
			_ = cmd.Process.Kill()
			c.Fatal("the reader does not begin")
		}
	}
}

func (c *chaotic) wrong(line string) {
	if strings.HasPrefix(line, "WRONG") {
		c.Error(line)
	} else if strings.Contains(line, "chaos_guest_test.go") {
		c.Log(line)
	}
}

// end compares what a reader missed with what was counted as lost.
func (c *chaotic) end(line string) bool {
	var state string
	var events, missing, lost, missed uint64
	if n, _ := fmt.Sscanf(line, "END %s %d %d %d %d", &state, &events, &missing, &lost, &missed); n != 5 {
		return false
	}
	c.total.Events += events
	c.total.Lost += lost
	c.total.Missed += missed
	if state == "busy" {
		c.total.Busy++
		return true
	}
	c.total.Exact++
	if lost > 0 {
		c.total.Lossy++
	}
	// What a preemptible kernel left out is an upper bound.
	if missing > lost || missing < lost-missed {
		c.Errorf("%d records are missing, and %d were counted as lost, %d of them left out", missing, lost, missed)
	}
	return true
}

// TestChaosReader is the process that [TestGuestChaos] mistreats.
func TestChaosReader(t *testing.T) {
	name := os.Getenv("OUTSIGHT_CHAOS_READER")
	if name == "" {
		t.Skip("it is run by TestGuestChaos")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g, err := guest.Open(ctx, "lab:"+name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s := chaosBegin(ctx, t, g)
	term, slow := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	signal.Notify(slow, syscall.SIGUSR1)
	how := "read"
	if s.Planted() {
		how = "planted"
	}
	fmt.Println("READY", how)
	r := &chaosRead{s: s, counts: map[int32]*guests.Series{}}
	if err := r.run(ctx, term, slow); err != nil {
		fmt.Println("WRONG", err)
		return
	}
	var missing uint64
	for _, c := range r.counts {
		missing += c.Missing()
	}
	state := "exact"
	if !r.settled || !r.all(func(c *guests.Series) bool { return !c.Late }) {
		state = "busy"
	}
	st := s.Status()
	if st.Damaged != 0 {
		fmt.Printf("WRONG the ring was damaged %d times\n", st.Damaged)
	}
	fmt.Println("END", state, r.events, missing, s.Lost(), st.Missed)
	if err := s.Close(); err != nil {
		fmt.Println("WRONG", err)
	}
}

// chaosBegin plants, or reads what another reader has left, if that is whole.
func chaosBegin(ctx context.Context, t *testing.T, g *guest.Guest) *planted.Tended {
	c := &chaotic{pids: os.Getenv("OUTSIGHT_CHAOS_PIDS")}
	p, err := plant.Find(ctx, g)
	switch {
	case errors.Is(err, plant.ErrNothing):
	case err != nil:
		t.Fatal(err)
	case os.Getenv("OUTSIGHT_CHAOS_ANEW") == "true" || !p.Settled() || len(p.Problems) > 0 || p.Ring() == 0:
		if p.Settled() && p.State == "done" && len(p.Objects) > 0 && p.Objects[0].FD >= 0 && p.Ring() == 0 {
			fmt.Println("WRONG it is neither there nor gone:", p.Problems)
		}
		if err := p.Remove(ctx); err != nil {
			fmt.Println("WRONG remove what was left:", p.State, err)
			t.FailNow()
		}
	}
	s, err := planted.Plant(ctx, g, c.options(), func(*plant.Plan) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// chaosRead is what a reader has read.
type chaosRead struct {
	s       *planted.Tended
	counts  map[int32]*guests.Series
	events  uint64
	settled bool // what was lost is known
}

func (r *chaosRead) run(ctx context.Context, term, slow <-chan os.Signal) error {
	var e trace.Event
	var quietAt uint64
	var ending, quiet time.Time
	for n := 0; ; n++ {
		if n%256 == 0 {
			select {
			case <-term:
				ending, quiet, quietAt = time.Now(), time.Now(), r.s.Lost()
			case <-slow:
				if ending.IsZero() {
					time.Sleep(time.Duration(100+rand.IntN(400)) * time.Millisecond)
				}
			default:
			}
		}
		if !ending.IsZero() && n%16 == 0 {
			if lost := r.s.Lost(); lost != quietAt {
				quiet, quietAt = time.Now(), lost
			}
			// What was lost of a process is missing only once one of its later calls was seen.
			if r.settled = time.Since(quiet) > 500*time.Millisecond && r.all(func(c *guests.Series) bool { return c.At.After(quiet) }); r.settled || time.Since(ending) > 20*time.Second {
				return nil
			}
		}
		wait, stop := context.WithTimeout(ctx, 10*time.Second)
		err := r.s.Next(wait, &e)
		stop()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			continue
		case err != nil:
			return err
		case e.Kind == trace.KindFinding:
			return fmt.Errorf("a finding: %s", e.Args)
		case e.Name != "lseek":
			continue
		}
		r.events++
		c := r.counts[e.TID]
		if c == nil {
			c = &guests.Series{}
			r.counts[e.TID] = c
		}
		if why := c.Call(guests.Call{Args: e.Args, Result: e.Result, Note: e.Note, Returned: e.Returned, Lost: e.Lost, At: e.Time}); why != "" {
			return fmt.Errorf("%s: %s(%s) = %s <%s> of %d", why, e.Name, e.Args, e.Result, e.Note, e.TID)
		}
	}
}

// all reports whether all processes were seen, and something holds for each.
func (r *chaosRead) all(holds func(c *guests.Series) bool) bool {
	n := 0
	for _, c := range r.counts {
		if holds(c) {
			n++
		}
	}
	return n == chaosSeries
}
