package planted_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/trace"
)

// TestGuestProcessors takes processors from a guest and gives them back, and plugs another one in, while probes are tended: the events of each are seen, none is lost.
func TestGuestProcessors(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("OUTSIGHT_SLOW is not set")
	}
	for _, k := range kernels() {
		t.Run(k, func(t *testing.T) { processors(t, k) })
	}
}

func processors(t *testing.T, kernel string) {
	l := lives(t, lab.Options{Name: "processors-" + kernel, Kernel: kernel, SMP: 2, Append: steady, QEMUArgs: []string{"-smp", "2,maxcpus=4"}})
	f := l.plant(few)
	// on runs programs on one processor, and sees them there.
	on := func(cpu int, mark string) {
		t.Helper()
		l.sh(fmt.Sprintf("for i in $(seq 20); do taskset %x /bin/true %s-$i; done", 1<<cpu, mark))
		f.exactly(20, mark, func(e *trace.Event) bool { return ran(mark+"-")(e) && e.VCPU == cpu && e.Process.Comm == "true" })
	}
	online := func(cpu, on int) {
		t.Helper()
		l.sh(fmt.Sprintf("echo %d >/sys/devices/system/cpu/cpu%d/online", on, cpu))
	}
	on(0, "first")
	on(1, "second")
	for i := range 3 {
		online(1, 0)
		on(0, fmt.Sprint("alone", i))
		online(1, 1)
		on(1, fmt.Sprint("back", i))
	}
	if strings.TrimSpace(l.sh("cat /sys/devices/system/cpu/possible")) == "0-1" {
		t.Logf("kernel %s takes the emulator for a bare machine, in which no processor is plugged in", kernel)
	} else {
		l.plugged(on)
	}
	if n := f.seen(func(e *trace.Event) bool { return e.Kind == trace.KindFinding }); n != 0 {
		t.Errorf("%d findings", n)
	}
	if err := f.close(); err != nil {
		t.Error(err)
	}
	l.bare()
}

// plugged plugs a processor in, and takes it out again.
func (l *lived) plugged(on func(cpu int, mark string)) {
	l.Helper()
	var slots []struct {
		Type  string
		Props map[string]any
		Path  string `json:"qom-path"`
	}
	l.command("query-hotpluggable-cpus", nil, &slots)
	plugged := 0
	for _, s := range slots {
		if s.Path == "" && plugged == 0 {
			args := map[string]any{"driver": s.Type, "id": "plugged"}
			for k, v := range s.Props {
				args[k] = v
			}
			l.command("device_add", args, nil)
			plugged++
		}
	}
	if plugged != 1 {
		l.Fatalf("no processor can be plugged in: %+v", slots)
	}
	var cpu int
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if n, _ := fmt.Sscan(l.sh("for c in 2 3; do [ -e /sys/devices/system/cpu/cpu$c/online ] && echo $c; done; true"), &cpu); n == 1 {
			break
		}
		if time.Now().After(end) {
			l.Fatal("the guest does not notice its new processor")
		}
	}
	l.sh(fmt.Sprintf("echo 1 >/sys/devices/system/cpu/cpu%d/online", cpu))
	on(cpu, "plugged")
	l.command("device_del", map[string]any{"id": "plugged"}, nil)
	for end := time.Now().Add(30 * time.Second); l.sh(fmt.Sprintf("[ -e /sys/devices/system/cpu/cpu%d ] && echo there; true", cpu)) != ""; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			l.Fatal("the guest does not give its processor back")
		}
	}
	on(0, "unplugged")
}
