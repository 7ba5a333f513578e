package groundtruth

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// breakpointsOnKVM has outsight watch a guest on KVM by breakpoints: it sees each program and each end once, in their order; and
// when it is killed in the middle, the guest runs on soon after.
func breakpointsOnKVM(t *testing.T, g *lab.Guest) {
	const programs = 20
	run := func() time.Duration {
		began := time.Now()
		labtest.Output(t, g, fmt.Sprintf("for i in $(seq %d); do /bin/busybox true marker-$i; done; exit 0", programs))
		return time.Since(began)
	}
	run() // so that all is in memory
	without := run()
	command := os.Getenv("OUTSIGHT_COMMAND")
	watch := exec.Command(command, "watch", "qemu:"+g.QMP(), "--source", "breakpoint", "--kinds", "exec,exit", "-o", "json")
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := watch.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	first, err := bufio.NewReader(said).ReadString('\n')
	if err != nil || !strings.Contains(first, "by breakpoints: exec, exit") {
		_ = watch.Process.Kill()
		t.Fatalf("outsight watch says %q, %v", first, err)
	}
	t.Logf("outsight watches after %v", time.Since(began).Round(time.Millisecond))
	events := make(chan string, 1<<12)
	go func() {
		defer close(events)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			events <- lines.Text()
		}
	}()
	with := run()
	seen := len(events)
	t.Logf("%d programs took %v, and %v without breakpoints: %v an event, of %d", programs, with.Round(time.Millisecond), without.Round(time.Millisecond),
		((with - without) / time.Duration(max(seen, 1))).Round(10*time.Microsecond), seen)
	loop := make(chan bool)
	go func() {
		defer close(loop)
		labtest.Output(t, g, "for i in $(seq 60); do /bin/busybox true more-$i; done; exit 0")
	}()
	time.Sleep(500 * time.Millisecond)
	killed := time.Now()
	_ = watch.Process.Kill()
	// The host, outsight's guardian and the monitor that is asked here are emulated, too, and share the processors with the guests
	// of other tests: 1.7 s were seen. On the machine itself it takes 0.1 s (trace/breakpoint has a test with a bound of its own).
	const bound = 5 * time.Second
	for runs := false; !runs; time.Sleep(5 * time.Millisecond) {
		runs = status(t, g) == vm.StateRunning
		if late := time.Since(killed); runs {
			t.Logf("the guest runs %v after outsight was killed", late.Round(time.Millisecond))
		} else if late > bound {
			t.Errorf("%v after outsight was killed the guest does not run", late)
			break
		}
	}
	select {
	case <-loop:
	case <-time.After(2 * time.Minute):
		t.Fatal("after outsight was killed the guest hangs")
	}
	_ = watch.Wait()
	var started, ended []string
	markers := map[int32]string{}
	for line := range events {
		var e struct {
			Event, Args, Result, Source, Note string
			PID                               int32
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			continue // the last line may be cut off
		}
		if e.Source != "breakpoint" || e.Note != "" {
			t.Errorf("incomplete: %s", line)
		}
		switch _, marker, ok := strings.Cut(strings.Trim(e.Args, `[]"`), "marker-"); {
		case e.Event == "exec" && ok:
			started, markers[e.PID] = append(started, marker), marker
		case e.Event == "exit" && markers[e.PID] != "":
			if ended = append(ended, markers[e.PID]); e.Result != "0" {
				t.Errorf("a program ends with %s", e.Result)
			}
		}
	}
	var want []string
	for i := range programs {
		want = append(want, fmt.Sprint(i+1))
	}
	if !slices.Equal(started, want) || !slices.Equal(ended, want) {
		t.Errorf("began: %v; ended: %v; want %v", started, ended, want)
	}
}

// status is what QEMU says the guest does.
func status(t *testing.T, g *lab.Guest) vm.State {
	t.Helper()
	c, err := qmp.Dial(t.Context(), g.QMP())
	if err != nil {
		return vm.StateUnknown // another is connected
	}
	defer c.Close()
	var s struct{ Status vm.State }
	if err := c.Execute(t.Context(), "query-status", nil, &s); err != nil {
		return vm.StateUnknown
	}
	return s.Status
}
