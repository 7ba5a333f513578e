package groundtruth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// TestGuestSoak judges guests that nobody tampered with, again and again, while they do all that
// busy machines do (server -unrest): nothing may be found. OUTSIGHT_SOAK is for how long,
// OUTSIGHT_SOAK_KERNELS on which kernels ("debian" is a Debian guest with the default one); make soak sets both. Then everything must be checked at
// each look, too, memory is plugged in, and the guest boots its kernel by kexec at the end.
func TestGuestSoak(t *testing.T) {
	if os.Getenv("OUTSIGHT_SOAK") == "" && os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("make soak runs it")
	}
	labtest.NeedQEMU(t)
	long, kernels := 40*time.Second, []string{"6.12"}
	if v := os.Getenv("OUTSIGHT_SOAK"); v != "" {
		var err error
		if long, err = time.ParseDuration(v); err != nil {
			t.Fatalf("OUTSIGHT_SOAK: %v", err)
		}
	}
	if v := os.Getenv("OUTSIGHT_SOAK_KERNELS"); v != "" {
		kernels = strings.Fields(v)
	}
	for _, kernel := range kernels {
		t.Run(kernel, func(t *testing.T) { soak(t, kernel, long) })
	}
}

// soakModules are what server -unrest loads and removes.
var soakModules = []string{"macvlan", "8021q", "zram", "sch_prio", "crypto_user", "vsock_loopback"}

// soak soaks a kernel for so long: in another guest for the rest of it, if the emulator ends one.
func soak(t *testing.T, kernel string, long time.Duration) {
	for guests := 1; ; guests++ {
		w := &soaked{}
		t.Run(fmt.Sprint(guests), func(t *testing.T) {
			*w = soaked{T: t, began: time.Now(), said: map[string]int{}, when: map[string][]string{}, whole: os.Getenv("OUTSIGHT_SOAK") != ""}
			w.soak(kernel, long)
		})
		if long -= time.Since(w.began); !w.emulator || long <= 0 {
			return
		}
		if guests == maxEmulatorFaults {
			t.Fatalf("the emulator ended %d guests: %v were not soaked", guests, long.Round(time.Second))
		}
	}
}

func (w *soaked) soak(kernel string, long time.Duration) {
	t := w.T
	o := lab.Options{
		Kernel: kernel, Memory: gib, SMP: 2, Modules: soakModules, Files: map[string]string{},
		QEMUArgs: append([]string{"-m", "1024M,slots=4,maxmem=4G"}, endStands...),
	}
	debian := kernel == lab.Debian // packages are upgraded by dpkg itself there
	if debian {
		o.Kernel, o.Userland = lab.DefaultKernel, lab.Debian
	}
	if patch := guests.Livepatch(t, kernel); patch != "" {
		o.Files["/livepatch.ko"] = patch
	}
	again := w.whole && !debian // it boots once more
	if again {
		vmlinuz, initrd, err := lab.BootFiles(t.Context(), lab.Options{Kernel: kernel}, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		o.Files["/boot/vmlinuz"], o.Files["/boot/initrd"] = vmlinuz, initrd
	}
	g := guests.UpServer(t, o)
	s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w.began = time.Now()
	defer w.report() // also of a guest that hangs in the end
	if text, err := os.ReadFile(g.Console()); err == nil {
		w.console = len(text)
	}
	if !w.judge(s, g, "before") {
		return
	}
	watch := w.watch(g)
	defer w.watched(watch, time.Now())

	unrest := make(chan string, 1)
	go func() {
		out, err := g.Output(t.Context(), fmt.Sprintf("/server -unrest %v 2>&1", long))
		if err != nil {
			out = fmt.Appendf(out, "%v", err)
		}
		unrest <- string(out)
	}()
	if w.whole {
		go w.memory(g, long/3)
	}
	for running := true; running; {
		select {
		case out := <-unrest:
			t.Logf("what was done:\n%s", out)
			if strings.Count(out, "churn ") < 10 {
				t.Error("the guest was not busy")
			}
			running = false
		default:
			if !w.judge(s, g, "while it is busy") {
				return
			}
		}
	}
	if !w.judge(s, g, "afterwards") {
		return
	}
	// What the guest's kernel itself stumbled over is not ours, and explains much.
	if out, err := g.Output(t.Context(), "dmesg | grep -A25 -E 'WARNING:|BUG:|ftrace failed|stall' | head -80"); err == nil && len(out) > 0 {
		t.Logf("the guest's kernel complains:\n%s", out)
	}
	if again {
		kexec(t, g, "/server -kexec /boot/vmlinuz -initrd /boot/initrd >/run/kexec.log 2>&1 & until grep -q loaded /run/kexec.log; do kill -0 $! || { cat /run/kexec.log; exit 1; }; sleep 0.1; done")
		w.rebooted(s, g)
	}
}

// kexec runs a command after which the guest starts again, sooner than it answers if it is slow.
func kexec(t *testing.T, g *lab.Guest, command string) {
	t.Helper()
	if out, err := g.Output(t.Context(), command); err != nil && !errors.Is(err, lab.ErrRestarted) {
		t.Fatalf("%v\n%s", err, out)
	}
}

// soaked is what was said of a guest that nothing may be said of.
type soaked struct {
	*testing.T
	began   time.Time
	whole   bool // everything must be checked
	mu      sync.Mutex
	said    map[string]int
	when    map[string][]string // the first times, since it began
	rounds  int
	longest time.Duration
	all     time.Duration

	boot     int           // which boot it is in, if nothing goes wrong
	up       time.Duration // the guest's, when it was seen to run last
	sound    time.Time     // when that was: what was found later does not count if it ended
	over     bool          // it ended by itself
	emulator bool          // by a fault of QEMU's
	console  int           // how much its console had written when it was up
}

func (w *soaked) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	if w.said[line]++; w.said[line] == 1 {
		w.Logf("%s", line) // at once, while the guest can be asked
	}
	if w.said[line] <= 8 {
		w.when[line] = append(w.when[line], time.Since(w.began).Round(100*time.Millisecond).String())
	}
}

// judge runs all checks once. It is false if the guest has ended by itself.
func (w *soaked) judge(s *guest.Guest, g *lab.Guest, when string) bool {
	w.Helper()
	began := time.Now()
	r, err := check.Run(w.Context(), s, check.All())
	took := time.Since(began)
	w.rounds++
	w.all += took
	w.longest = max(w.longest, took)
	if why := w.ended(s, g); why != "" {
		w.over = true
		text := w.obituary(g, why, r)
		if console, err := os.ReadFile(g.Console()); err == nil && staleBreakpoint(lastBoot(console, w.console)) {
			w.emulator = true
			w.Logf("%s\nIts processor ran a breakpoint that memory did not hold any more: QEMU's translation of that code was stale", text)
			return false
		}
		w.Error(text)
		return false
	}
	w.sound = began
	if err != nil {
		w.say("%s: %v", when, err)
		return true
	}
	for _, f := range r.Findings {
		w.say("%s %s found: %s; expected %s; seen %s; %v", when, f.Check.ID, f.Title, f.Expected, f.Seen, f.Evidence)
	}
	for _, gap := range r.Gaps {
		if !w.whole {
			w.Logf("%s not checked: %v", when, gap)
			continue
		}
		w.say("%s not checked: %v", when, gap)
	}
	return true
}

// watch starts "outsight check --every 1s" on the guest.
func (w *soaked) watch(g *lab.Guest) *exec.Cmd {
	w.Helper()
	c := exec.Command(command(w.T), "check", "lab:"+g.Name, "--every", "1s", "-o", "json")
	c.Env = append(os.Environ(), "XDG_CACHE_HOME="+w.TempDir())
	c.Stdout, c.Stderr = &bytes.Buffer{}, &bytes.Buffer{}
	if err := c.Start(); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = c.Process.Kill() })
	return c
}

// watched ends it: it said nothing.
func (w *soaked) watched(c *exec.Cmd, began time.Time) {
	_ = c.Process.Signal(syscall.SIGTERM) // in the background of a shell, SIGINT is ignored
	_ = c.Wait()
	for _, out := range []any{c.Stdout, c.Stderr} {
		for line := range strings.Lines(fmt.Sprint(out)) {
			var f struct {
				At                    time.Time
				Title, Expected, Seen string
				Evidence              []string
			}
			switch { // a finding may have the words of the messages, too
			case json.Unmarshal([]byte(line), &f) == nil:
				line = fmt.Sprintf("%s %s; expected %s; seen %s; %v", f.At.Format(time.TimeOnly), f.Title, f.Expected, f.Seen, f.Evidence)
			case strings.Contains(line, "nothing found"), strings.Contains(line, "interrupt"), strings.Contains(line, " verified "), strings.Contains(line, "try again when"), !w.whole && strings.Contains(line, "not checked"):
				continue
			}
			if w.over && (f.At.IsZero() || !f.At.Before(w.sound)) { // what is left of a kernel was judged
				w.Logf("--every 1s: %s", strings.TrimSpace(line))
				continue
			}
			w.say("--every 1s: %s", strings.TrimSpace(line))
		}
	}
	used := c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	w.Logf("--every 1s took %v of processor time, %.1f %% of a processor, and at most %d MiB of memory", used.Round(time.Millisecond), 100*used.Seconds()/time.Since(began).Seconds(), c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss>>10)
}

// memory plugs memory into a guest, and takes it out again after a while.
func (w *soaked) memory(g *lab.Guest, wait time.Duration) {
	type args = map[string]any
	if !w.sleep(wait) {
		return
	}
	for _, c := range []struct {
		command string
		args    args
		after   time.Duration
	}{
		{"object-add", args{"qom-type": "memory-backend-memfd", "id": "soak", "size": 256 << 20, "share": true}, 0},
		{"device_add", args{"driver": "pc-dimm", "id": "soakdimm", "memdev": "soak"}, wait},
		{"device_del", args{"id": "soakdimm"}, 0},
	} {
		q, err := qmp.Dial(w.Context(), g.QMP()) // each time: it serves one at a time
		if err == nil {
			err = errors.Join(q.Execute(w.Context(), c.command, c.args, nil), q.Close())
		}
		if err != nil {
			w.Logf("memory hotplug: %v", err)
			return
		}
		if !w.sleep(c.after) {
			return
		}
	}
}

// sleep is false if the test ends meanwhile.
func (w *soaked) sleep(long time.Duration) bool {
	select {
	case <-w.Context().Done():
		return false
	case <-time.After(long):
		return true
	}
}

// rebooted waits until a guest that was rebooted by kexec can be judged again.
func (w *soaked) rebooted(s *guest.Guest, g *lab.Guest) {
	w.Helper()
	for try := range 120 {
		time.Sleep(time.Second)
		l, err := s.Look(w.Context())
		if err != nil {
			if try == 119 {
				w.Errorf("after kexec: %v", err)
			}
			continue
		}
		boot := l.Boot
		l.Close()
		if boot > 0 {
			if _, err := g.Output(w.Context(), "true"); err == nil {
				w.boot, w.up = boot, 0
				w.judge(s, g, "after kexec")
				return
			}
		}
	}
	if why := w.stopped(g); why != "" {
		w.Error(w.obituary(g, why, nil))
	}
	w.Error("the guest was not seen to boot by kexec")
}

func (w *soaked) report() {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range slices.Sorted(maps.Keys(w.said)) {
		w.Errorf("%d times (%s) %s", w.said[line], strings.Join(w.when[line], " "), line)
	}
	w.Logf("judged %d times, each %v, at most %v", w.rounds, (w.all / time.Duration(max(w.rounds, 1))).Round(time.Millisecond), w.longest.Round(time.Millisecond))
}
