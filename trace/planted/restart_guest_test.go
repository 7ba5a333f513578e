package planted_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/plant"
	"github.com/outsight-vmi/outsight/trace/planted"
)

// TestGuestRestart has a guest boot again in all ways while its probes are tended: the stream says so and ends, nothing is written into the next kernel, which lies
// at the same addresses where KASLR is off, and probes can be planted there.
func TestGuestRestart(t *testing.T) {
	slow := os.Getenv("OUTSIGHT_SLOW") != ""
	for _, k := range kernels() {
		for how, address := range map[string]string{"sysrq": "", "reset": " nokaslr", "kexec": ""} {
			if how != "sysrq" && !slow {
				continue
			}
			t.Run(k+"-"+how, func(t *testing.T) { restart(t, k, how, address) })
		}
	}
}

func restart(t *testing.T, kernel, how, address string) {
	o := lab.Options{Name: "restart-" + kernel + "-" + how, Kernel: kernel, SMP: 2, Append: steady + address}
	if how == "kexec" {
		vmlinuz, initrd, err := lab.BootFiles(t.Context(), lab.Options{Kernel: kernel}, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		o.Memory = 1 << 30
		o.Files = map[string]string{"/boot/vmlinuz": vmlinuz, "/boot/initrd": initrd, "/server": guests.Program(t, "server")}
	}
	l := lives(t, o)
	f := l.plant(few)
	l.sh("for i in $(seq 30); do /bin/true a-$i; done")
	f.exactly(30, "before", ran("a-"))
	l.restart(how)
	f.over(planted.ErrRemoved)
	if n := f.seen(finding("booted again")); n != 1 {
		t.Errorf("%d findings, expected that it has booted again", n)
	}
	if err := f.s.Close(); err != nil {
		t.Errorf("end the stream: %v", err)
	}
	if r := l.records(); len(r) != 1 || !strings.HasPrefix(r[0].Why, "gone") {
		t.Errorf("the host notes %+v", r)
	}
	l.again()
	if _, err := plant.Find(t.Context(), l.g); !errors.Is(err, plant.ErrNothing) {
		t.Errorf("after it has booted again: %v", err)
	}
	f = l.plant(few)
	l.sh("for i in $(seq 30); do /bin/true b-$i; done")
	f.exactly(30, "after", ran("b-"))
	if err := f.close(); err != nil {
		t.Error(err)
	}
	l.bare()
}

// restart has the guest boot again.
func (l *lived) restart(how string) {
	l.Helper()
	var err error
	switch how {
	case "sysrq":
		_, err = l.lab.Output(l.Context(), "(sleep 0.3; echo b >/proc/sysrq-trigger) & sleep 5")
	case "reset":
		l.command("system_reset", nil, nil)
	case "kexec":
		_, err = l.lab.Output(l.Context(), "/server -kexec /boot/vmlinuz -initrd /boot/initrd >/run/kexec.log 2>&1 & until grep -q loaded /run/kexec.log; do kill -0 $! || { cat /run/kexec.log; exit 1; }; sleep 0.1; done")
	}
	if err != nil && !errors.Is(err, lab.ErrRestarted) {
		l.Fatal(err)
	}
}

// TestGuestResetAtWork resets a guest at random moments while probes are planted or removed: the next kernel comes up whole. What the last one had still lies in memory
// then, and must not be taken for a guest.
func TestGuestResetAtWork(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("OUTSIGHT_SLOW is not set")
	}
	for _, k := range kernels() {
		for _, address := range []string{"", " nokaslr"} {
			t.Run(k+strings.TrimSpace(address), func(t *testing.T) {
				l := lives(t, lab.Options{Name: "reset-" + k + strings.TrimSpace(address), Kernel: k, SMP: 2, Append: steady + address})
				seed := rand.Uint64()
				t.Logf("SEED=%d", seed)
				r := rand.New(rand.NewPCG(seed, 0))
				for range 5 {
					l.resetAtWork(time.Duration(r.Int64N(int64(4 * time.Second))))
				}
			})
		}
	}
}

func (l *lived) resetAtWork(after time.Duration) {
	l.Helper()
	done := make(chan error, 1)
	go func() {
		for {
			s, err := planted.Plant(l.Context(), l.g, few, func(p *plant.Plan) error {
				l.writes = p.Writes
				return nil
			})
			if err == nil {
				err = s.Close()
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	time.Sleep(after)
	l.command("system_reset", nil, nil)
	select {
	case err := <-done:
		l.Logf("reset after %v: %v", after.Round(time.Millisecond), err)
	case <-time.After(4 * time.Minute):
		l.Fatal("planting does not end")
	}
	l.again()
	if _, err := plant.Find(l.Context(), l.g); !errors.Is(err, plant.ErrNothing) {
		l.Errorf("after it has booted again: %v", err)
	}
	look, err := l.g.Look(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	defer look.Close()
	load, err := planted.Compile(l.Context(), look, few)
	if err != nil {
		l.Fatal(err)
	}
	if _, err := plant.Prepare(l.Context(), l.g, *load); err != nil { // which sees that all is filler
		l.Error(err)
	}
	l.sound()
}
