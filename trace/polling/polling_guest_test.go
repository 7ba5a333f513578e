package polling_test

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/polling"
)

// session is what is done in the guest, each step for long enough to be seen by its part.
const session = `
sleep 1
sleep 4 | nc -l -p 4444 >/dev/null &
sleep 2
sleep 2 | nc 127.0.0.1 4444 >/dev/null &
sleep 3
insmod /lib/modules/dummy.ko numdummies=0; sleep 2
ip link add dummy7 type dummy; sleep 2
ip link set dummy7 up; sleep 2
ip link set dummy7 promisc on; sleep 2
ip link set dummy7 down; sleep 2
ip link del dummy7; sleep 2
rmmod dummy; sleep 2
mkdir /tmp/mine /tmp/bound; mount -t tmpfs mine /tmp/mine; mkdir /tmp/mine/part; mount -o bind /tmp/mine/part /tmp/bound; sleep 3; umount /tmp/bound; umount /tmp/mine; sleep 3
sh -c 'sh -c "sleep 0.5; exit 3" shell-that-fails & exec sleep 2' # nobody reaps it meanwhile
nc -ll -p 5555 -e /bin/sh & n=$!
sleep 2
(echo "sleep 1"; sleep 2) | nc 127.0.0.1 5555
kill $n
sleep 1
echo done
`

// follow reads events until there has been none for so long, and marks them as watch does.
func follow(t *testing.T, s *polling.Stream, sensors *trace.Sensors, until func() bool) (events []trace.Event) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		var e trace.Event
		err := s.Next(ctx, &e)
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded) && t.Context().Err() == nil:
			if until() {
				return events
			}
		case err != nil:
			t.Fatal(err)
		default:
			sensors.Mark(&e)
			events = append(events, e)
			t.Logf("%s", e.AppendLine(nil, time.UTC))
		}
	}
}

// TestGuestPolling does what the session does in guests, and compares the events with it: each step is
// there, in its order, and nothing else; a guest that does nothing has no events; and a
// reboot is survived.
func TestGuestPolling(t *testing.T) {
	labtest.NeedQEMU(t)
	for _, o := range []lab.Options{
		{Kernel: "6.12", Modules: []string{"dummy"}},
		{Kernel: "5.10", Modules: []string{"dummy"}, Private: true},
	} {
		t.Run(fmt.Sprintf("%s private %v", o.Kernel, o.Private), func(t *testing.T) { testPolling(t, o) })
	}
}

func testPolling(t *testing.T, o lab.Options) {
	g := labtest.Up(t, o)
	labtest.Output(t, g, "rmmod dummy; sleep 1")
	target, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	sensors := trace.NewSensors()
	look, err := target.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := sensors.Prime(t.Context(), look); err != nil {
		t.Error(err)
	}
	look.Close()
	s, err := polling.Start(t.Context(), target, polling.Options{Warn: func(err error) { t.Logf("warned: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	idle := time.Now().Add(5 * time.Second)
	if events := follow(t, s, sensors, func() bool { return time.Now().After(idle) }); len(events) > 0 {
		t.Errorf("%d events of an idle guest", len(events))
	}
	done := make(chan error, 1)
	go func() {
		out, err := g.Output(t.Context(), session)
		if err == nil && !strings.HasSuffix(string(out), "done\n") {
			err = fmt.Errorf("the session printed %q", out)
		}
		done <- err
	}()
	over := false
	events := follow(t, s, sensors, func() bool {
		select {
		case err := <-done:
			if over = true; err != nil {
				t.Error(err)
			}
			return false // what is still to come
		default:
			return over
		}
	})
	compare(t, events)

	again := make(chan error, 1)
	go func() {
		_, _ = g.Output(t.Context(), "reboot -f") // never answers
	}()
	go func() {
		end := time.Now().Add(3 * time.Minute)
		for target.Boot() == 0 && time.Now().Before(end) {
			time.Sleep(time.Second)
		}
		err := errors.New("it did not come back")
		for err != nil && time.Now().Before(end) { // its agent may not be there yet
			time.Sleep(time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			_, err = g.Output(ctx, "sleep 0.777; sleep 1")
			cancel()
		}
		again <- err
	}()
	over = false
	events = follow(t, s, sensors, func() bool {
		select {
		case err := <-again:
			if over = true; err != nil {
				t.Error(err)
			}
			return false
		default:
			return over
		}
	})
	boots := 0
	for _, e := range events {
		if e.Kind == trace.KindBoot {
			boots++
		}
	}
	if boots != 1 || !slices.ContainsFunc(events, func(e trace.Event) bool { return e.Kind == trace.KindExec && e.Args == "sleep 0.777" }) {
		t.Errorf("%d events of a boot, and after it %d events", boots, len(events))
	}
}

// compare compares events with the session.
func compare(t *testing.T, events []trace.Event) {
	t.Helper()
	got := map[string][]string{}
	notes := map[string]string{}
	add := func(group, what string) { got[group] = append(got[group], what) }
	programs := map[string]bool{}
	fails := false
	for _, e := range events {
		what := string(e.Kind) + " " + e.Object
		switch e.Kind {
		case trace.KindModule, trace.KindUnload:
			add("modules", what)
		case trace.KindDevice:
			add("devices", what+" "+e.Args)
		case trace.KindMount, trace.KindUnmount:
			if from, _, bind := strings.Cut(e.Args, " on "); bind && e.Name == "bind" {
				what += " " + from
			}
			add("mounts", what)
		case trace.KindListen:
			add("listeners", what)
		case trace.KindConnect, trace.KindAccept:
			port := e.Object[strings.LastIndex(e.Object[:strings.Index(e.Object, "->")], ":"):]
			if e.Kind == trace.KindConnect {
				port = e.Object[strings.LastIndex(e.Object, ":"):]
			} else {
				port, _, _ = strings.Cut(port, "->")
			}
			add(string(e.Kind), port)
		case trace.KindExec:
			programs[path.Base(strings.Fields(e.Args + " -")[0])] = true
			if e.Note != "" {
				notes[e.Args] = e.Note
			}
		case trace.KindExit:
			fails = fails || e.Result == "status 3"
		case trace.KindFork, trace.KindClose, trace.KindLost:
		default:
			t.Errorf("nobody did: %s", e.AppendLine(nil, time.UTC))
		}
	}
	slices.Sort(got["mounts"])
	for group, want := range map[string][]string{
		"modules": {"module dummy", "unload dummy"},
		"devices": {"device dummy7 appeared, down", "device dummy7 up", "device dummy7 promiscuous", "device dummy7 down", "device dummy7 vanished"},
		"mounts":  {"mount /tmp/bound bind /tmp/mine/part", "mount /tmp/mine", "unmount /tmp/bound", "unmount /tmp/mine"}, // those of one look, sorted
		"connect": {":4444", ":5555"},
		"accept":  {":4444", ":5555"},
	} {
		if !slices.Equal(got[group], want) {
			t.Errorf("%s: %q, want %q", group, got[group], want)
		}
	}
	listeners := strings.Join(got["listeners"], " ")
	if !strings.Contains(listeners, ":4444") || !strings.Contains(listeners, ":5555") || len(got["listeners"]) != 2 {
		t.Errorf("listeners %q", listeners)
	}
	for _, name := range []string{"nc", "sleep", "sh"} { // what ends at once may be missed
		if !programs[name] {
			t.Errorf("no event of %s, but of %v", name, programs)
		}
	}
	if !fails {
		t.Error("no exit with status 3")
	}
	marked := false
	for _, note := range notes {
		marked = marked || strings.HasPrefix(note, "shell ") && strings.Contains(note, ":5555")
	}
	if !marked {
		t.Errorf("the shell below nc is not marked: %q", notes)
	}
}

// BenchmarkGuestPolling is what looking costs, as a share of one processor: at all kinds of things, of a
// guest with 500 processes that does nothing, and of one that starts a process ten times a second.
func BenchmarkGuestPolling(b *testing.B) {
	labtest.NeedQEMU(b)
	for _, private := range []bool{false, true} {
		g := labtest.Up(b, lab.Options{Kernel: "6.12", Memory: 1 << 30, Private: private})
		labtest.Output(b, g, "for i in $(seq 440); do sleep 100000 </dev/null >/dev/null 2>&1 & done; sleep 5; echo ok")
		target, err := guest.Open(b.Context(), "lab:"+g.Name, guest.Options{})
		if err != nil {
			b.Fatal(err)
		}
		memory := map[bool]string{false: "shared", true: "private"}[private]
		b.Run(memory+"/idle", func(b *testing.B) { benchmark(b, target) })
		labtest.Output(b, g, "(while :; do sleep 0.1; done) </dev/null >/dev/null 2>&1 & echo ok")
		b.Run(memory+"/busy", func(b *testing.B) { benchmark(b, target) })
		if err := errors.Join(target.Close(), g.Down()); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmark(b *testing.B, g *guest.Guest) {
	s, err := polling.Start(b.Context(), g, polling.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	const long = 20 * time.Second
	var share float64
	var events int
	for b.Loop() {
		ctx, cancel := context.WithTimeout(b.Context(), long)
		before, began := used(), time.Now()
		var e trace.Event
		for s.Next(ctx, &e) == nil {
			events++
		}
		share += float64(used()-before) / float64(time.Since(began))
		cancel()
	}
	b.ReportMetric(100*share/float64(b.N), "%core")
	b.ReportMetric(float64(events)/float64(b.N)/long.Seconds(), "events/s")
}
