package planted_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/plant"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/planted"
)

// TestGuestTended plants from outside, sees what the guest does, notices that a program was changed, and removes all at the end.
func TestGuestTended(t *testing.T) {
	t.Setenv("OUTSIGHT_PLANTED", t.TempDir())
	lg := labtest.Up(t, lab.Options{Name: "tended", SMP: 2, Private: true})
	labtest.Output(t, lg, "until [ $(cut -d. -f1 /proc/uptime) -ge 11 ]; do sleep 1; done")
	g, err := guest.Open(t.Context(), "lab:"+lg.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	o := planted.Options{Calls: []string{"unlink", "unlinkat"}, Tracepoints: []string{"signal_generate sig to=task->comm parent=task->real_parent->pid"}}
	if _, err := planted.Plant(t.Context(), g, planted.Options{Tracepoints: []string{"no_such_thing"}}, nil); err == nil || !strings.Contains(err.Error(), "no tracepoint of this name") {
		t.Fatalf("a tracepoint that there is not: %v", err)
	}
	refused := errors.New("no")
	if _, err := planted.Plant(t.Context(), g, o, func(*plant.Plan) error { return refused }); !errors.Is(err, refused) {
		t.Fatalf("who is asked says no: %v", err)
	}
	s, err := planted.Plant(t.Context(), g, o, func(*plant.Plan) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = s.Close()
		}
	}()
	if _, err := planted.Plant(t.Context(), g, planted.Options{All: true}, nil); err == nil || !strings.Contains(err.Error(), "remove") {
		t.Errorf("other probes over these: %v", err)
	}
	labtest.Output(t, lg, "touch /tmp/one; rm /tmp/one; for i in $(seq 50); do /bin/true; done")
	labtest.Output(t, lg, "sh -c 'kill -USR1 $$' || true")
	exits := 0
	await(t, s, func(e *trace.Event) bool {
		if e.Kind == trace.KindExit && e.Process != nil && e.Process.Comm == "true" {
			exits++
		}
		return exits == 50
	})
	await(t, s, func(e *trace.Event) bool {
		return e.Kind == trace.KindProbe && e.Name == "signal_generate" && strings.HasPrefix(e.Args, "sig=10 parent=") && strings.HasSuffix(e.Args, ` to="sh"`)
	})
	if n := s.Lost(); n != 0 {
		t.Errorf("%d events were lost", n)
	}

	// The program for modules that are loaded does not run here: nothing breaks.
	l, err := g.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for p, err := range bpf.Programs(t.Context(), l.Linux) {
		if err != nil || p.Name != "outsight_load" {
			continue
		}
		pg, err := l.Linux.Space.Translate(p.JITAddr + 16)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := labtest.OpenRAM(t, lg).WriteAt([]byte{0x0f, 0x0b}, int64(pg.PA)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, s, func(e *trace.Event) bool {
		return e.Kind == trace.KindFinding && e.Name == "planted-probe" && strings.Contains(e.Args, "machine code of program outsight_load")
	})
	closed = true
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := plant.Find(t.Context(), g); !errors.Is(err, plant.ErrNothing) {
		t.Errorf("after the end: %v", err)
	}
}

// await reads events until one is the one that is waited for.
func await(t *testing.T, s trace.Stream, is func(*trace.Event) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		var e trace.Event
		if err := s.Next(ctx, &e); err != nil {
			t.Fatalf("what was waited for did not come: %v", err)
		}
		if is(&e) {
			return
		}
	}
}
