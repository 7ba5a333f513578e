package tcg_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// watch collects events until stop is called, which returns them.
func watch(t *testing.T, g *lab.Guest, o tcg.Options) (stop func() []trace.Event) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	gu, err := guest.Open(ctx, "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := tcg.Start(ctx, gu, o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan []trace.Event, 1)
	ended := make(chan struct{})
	t.Cleanup(func() { // where the test ends before it asks for them
		cancel()
		<-ended
	})
	go func() {
		defer close(ended)
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
		time.Sleep(300 * time.Millisecond) // what happened is on its way
		cancel()
		all := <-done
		if n := s.Lost(); n != 0 {
			t.Errorf("%d events were lost", n)
		}
		if err := errors.Join(s.Close(), gu.Close()); err != nil {
			t.Error(err)
		}
		return all
	}
}

// TestGuestTrace sees what a guest does: all of what was asked for, nothing else, with private and shared memory, and
// after another trace.
func TestGuestTrace(t *testing.T) {
	for _, o := range []lab.Options{
		{Name: "trace-shared", Kernel: "6.12", SMP: 2},
		{Name: "trace-private", Kernel: "5.10", Private: true},
	} {
		t.Run(o.Name, func(t *testing.T) {
			g := traced(t, o)
			for range 2 {
				stop := watch(t, g, tcg.Options{Calls: []string{"openat", "open", "unlink", "mkdir", "execve"}})
				invalid(t, g)
				labtest.Output(t, g, "mkdir /tmp/here; cat /etc/no-such-file 2>/dev/null; rmdir /tmp/here; /bin/busybox cat /dev/null")
				all := stop()
				for i := range all {
					// What began before the trace did, and is gone, is not known.
					if e := &all[i]; e.Process.Comm == "" && e.Process.PID != all[0].Process.PID {
						t.Errorf("pid %d has no name: %s(%s)", e.Process.PID, e.Name, e.Args)
					}
				}
				for _, want := range []struct{ name, args, result, comm string }{
					{"mkdir", `"/tmp/here", 0777`, "0", "mkdir"},
					{"open", `"/etc/no-such-file"`, "-1 ENOENT (No such file or directory)", "cat"},
					{"execve", `["/bin/busybox", "cat", "/dev/null"]`, "0", "sh"},
				} {
					if !slices.ContainsFunc(all, func(e trace.Event) bool {
						return strings.HasPrefix(e.Name, want.name) && strings.Contains(e.Args, want.args) && e.Result == want.result &&
							e.Process.PID > 0 && (want.comm == "" || e.Process.Comm == want.comm)
					}) {
						t.Errorf("no %v among %d events", want, len(all))
						for _, e := range all {
							t.Logf("%s %s(%s) = %s", e.Process.Comm, e.Name, e.Args, e.Result)
						}
					}
				}
				if i := slices.IndexFunc(all, func(e trace.Event) bool { return e.Name == "rmdir" || e.Name == "read" }); i >= 0 {
					t.Errorf("%s was not asked for", all[i].Name)
				}
			}
		})
	}
}

// invalid asks for what cannot be traced while another stream has the plugin: the error is about what was asked for.
func invalid(t *testing.T, g *lab.Guest) {
	t.Helper()
	gu, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer gu.Close()
	for want, o := range map[string]tcg.Options{
		"nosuchcall":      {Calls: []string{"nosuchcall"}},
		"nosuchfunction":  {Calls: []string{}, Probes: []string{"nosuchfunction"}},
		"nosuchsymbol":    {Calls: []string{}, Writes: []string{"nosuchsymbol:8"}},
		"another monitor": {Calls: []string{"openat"}},
	} {
		if s, err := tcg.Start(t.Context(), gu, o); err == nil {
			t.Errorf("%s: traced", want)
			s.Close()
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
