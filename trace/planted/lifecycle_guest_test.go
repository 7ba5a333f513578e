package planted_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/plant"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/planted"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// few is what is planted where the kernel must not take long to verify it.
var few = planted.Options{Calls: []string{"unlink", "unlinkat"}}

// steady are kernel arguments for a guest that shall end if it has an oops, and whose kernel does not complain that its processors get no time: on a busy
// host they do not, and a snapshot that is restored under TCG goes on at a later time.
const steady = "panic_on_oops=1 rcupdate.rcu_cpu_stall_suppress=1 nosoftlockup"

// lived is a guest in whose life something happens while probes are planted in it.
type lived struct {
	*testing.T
	lab *lab.Guest
	g   *guest.Guest

	writes []plant.Write // of the last planting
	was    []byte        // what was there before
}

// lives boots a guest, and waits until something may be planted in it.
func lives(t *testing.T, o lab.Options) *lived {
	t.Helper()
	t.Setenv("OUTSIGHT_PLANTED", t.TempDir())
	return opened(t, labtest.Up(t, o))
}

// opened is a guest that runs already.
func opened(t *testing.T, lg *lab.Guest) *lived {
	t.Helper()
	g, err := guest.Open(t.Context(), "lab:"+lg.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	l := &lived{T: t, lab: lg, g: g}
	l.settled()
	return l
}

// settled waits until the guest is up for long enough.
func (l *lived) settled() {
	l.Helper()
	l.sh("until [ $(cut -d. -f1 /proc/uptime) -ge 11 ]; do sleep 0.5; done")
}

// sh runs a command in the guest.
func (l *lived) sh(command string) string {
	l.Helper()
	return labtest.Output(l.T, l.lab, command)
}

// again waits until a guest that begins again answers, and has been up for long enough.
func (l *lived) again() {
	l.Helper()
	for began := time.Now(); ; time.Sleep(500 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(l.Context(), 30*time.Second)
		out, err := l.lab.Output(ctx, "cut -d. -f1 /proc/uptime")
		cancel()
		if err == nil && len(out) > 0 {
			break
		}
		if time.Since(began) > 3*time.Minute {
			l.Fatalf("the guest does not come up again: %v", err)
		}
	}
	l.settled()
}

// content is what is where was written.
func (l *lived) content() (all []byte) {
	l.Helper()
	look, err := l.g.Look(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	defer look.Close()
	for _, w := range l.writes {
		b := make([]byte, w.Size)
		if err := look.Linux.ReadAt(b, w.At); err != nil {
			l.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// plant plants and reads on in the background.
func (l *lived) plant(o planted.Options) *followed {
	l.Helper()
	s, err := planted.Plant(l.Context(), l.g, o, func(p *plant.Plan) error {
		l.writes = p.Writes
		l.was = l.content()
		return nil
	})
	if err != nil {
		l.Fatal(err)
	}
	return l.follow(s)
}

// find finds what is planted, which must be whole.
func (l *lived) find() *plant.Planting {
	l.Helper()
	p, err := plant.Find(l.Context(), l.g)
	if err != nil {
		l.Fatal(err)
	}
	if len(p.Problems) > 0 || p.State != "done" || !p.Noted() {
		l.Errorf("found it %s, noted %v, with the problems %q", p.State, p.Noted(), p.Problems)
	}
	return p
}

// bare checks that nothing is planted, that memory is as it was, and that the guest's kernel has nothing to complain about. Prepare sees each byte of what
// was or would be written.
func (l *lived) bare() {
	l.Helper()
	if _, err := plant.Find(l.Context(), l.g); !errors.Is(err, plant.ErrNothing) {
		l.Errorf("nothing should be planted: %v", err)
	}
	if !bytes.Equal(l.content(), l.was) {
		l.Error("the memory is not what it was")
	}
	l.sound()
}

// sound checks the guest's kernel log.
func (l *lived) sound() {
	l.Helper()
	log := l.sh("dmesg")
	for _, bad := range []string{"BUG:", "WARNING:", "Oops", "general protection", "Call Trace", "stack-protector", "int3:", "hung_task", "soft lockup"} {
		if i := strings.Index(log, bad); i >= 0 {
			l.Errorf("the guest's kernel log has %q:\n%.4000s", bad, log[max(0, i-500):])
		}
	}
}

// monitor runs a line of the human monitor, and wants no complaint.
func (l *lived) monitor(line string) string {
	l.Helper()
	var out string
	l.qmp(func(ctx context.Context, q *qmp.Client) (err error) {
		out, err = q.HMP(ctx, line)
		return err
	})
	if strings.HasPrefix(out, "Error") {
		l.Fatalf("%s: %s", line, out)
	}
	return out
}

// command runs a QMP command.
func (l *lived) command(name string, args, result any) {
	l.Helper()
	l.qmp(func(ctx context.Context, q *qmp.Client) error { return q.Execute(ctx, name, args, result) })
}

func (l *lived) qmp(do func(context.Context, *qmp.Client) error) {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), 2*time.Minute)
	defer cancel()
	var err error
	for try := 0; ; try++ { // it serves one at a time
		var q *qmp.Client
		if q, err = qmp.Dial(ctx, l.lab.QMP()); err == nil {
			err = errors.Join(do(ctx, q), q.Close())
			break
		}
		if !errors.Is(err, qmp.ErrBusy) || try == 5 {
			break
		}
	}
	if err != nil {
		l.Fatal(err)
	}
}

// record is what the host notes of the only planting that there ever was.
func (l *lived) records() (all []struct{ ID, Why string }) {
	l.Helper()
	paths, err := filepath.Glob(filepath.Join(os.Getenv("OUTSIGHT_PLANTED"), "*.json"))
	if err != nil {
		l.Fatal(err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			l.Fatal(err)
		}
		var r struct{ ID, Why string }
		if err := json.Unmarshal(b, &r); err != nil {
			l.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// followed is a stream that is read all the time.
type followed struct {
	*testing.T
	s      *planted.Tended
	cancel context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	events []trace.Event
	err    error
}

func (l *lived) follow(s *planted.Tended) *followed {
	ctx, cancel := context.WithCancel(l.Context())
	f := &followed{T: l.T, s: s, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(f.ended)
		for {
			var e trace.Event
			err := s.Next(ctx, &e)
			e.Args, e.Result = strings.Clone(e.Args), strings.Clone(e.Result)
			f.mu.Lock()
			if err != nil {
				f.err = err
				f.mu.Unlock()
				return
			}
			f.events = append(f.events, e)
			f.mu.Unlock()
		}
	}()
	l.Cleanup(func() { f.cancel(); <-f.ended })
	return f
}

// seen counts events.
func (f *followed) seen(is func(*trace.Event) bool) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.events {
		if is(&f.events[i]) {
			n++
		}
	}
	return n
}

// exactly waits until so many events have come, or were counted as lost, and no more.
func (f *followed) exactly(n int, what string, is func(*trace.Event) bool) {
	f.Helper()
	for end := time.Now().Add(20 * time.Second); f.seen(is) < n && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond)
	// A host that is very busy may lose some: those are counted.
	got, lost := f.seen(is), f.s.Status().Lost
	if got > n || uint64(n-got) > lost {
		f.Errorf("%s: %d events, expected %d, and %d were counted as lost", what, got, n, lost)
	}
	if lost > 0 {
		f.Logf("%s: %d events were lost", what, lost)
	}
}

// over waits for the end of the stream by itself.
func (f *followed) over(want error) {
	f.Helper()
	select {
	case <-f.ended:
	case <-time.After(time.Minute):
		f.Fatal("the stream does not end")
	}
	if !errors.Is(f.err, want) {
		f.Errorf("it ended with %v, expected %v", f.err, want)
	}
}

// close ends it as a user does.
func (f *followed) close() error {
	f.cancel()
	<-f.ended
	return f.s.Close()
}

func finding(text string) func(*trace.Event) bool {
	return func(e *trace.Event) bool { return e.Kind == trace.KindFinding && strings.Contains(e.Args, text) }
}

// ran is the exit of a program with one argument, by which it is known.
func ran(mark string) func(*trace.Event) bool {
	return func(e *trace.Event) bool { return e.Kind == trace.KindExec && strings.Contains(e.Args, mark) }
}
