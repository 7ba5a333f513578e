package top

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	_ "github.com/outsight-vmi/outsight/table/views" // for details
	"github.com/outsight-vmi/outsight/vm"
)

const hostile = "\x1b]0;x\x07\x1b[2J\n\u202e"

func synthetic(t *testing.T) *synth.Guest {
	t.Helper()
	g := synth.New(synth.Options{})
	for _, p := range []synth.Process{
		{PID: 1, Comm: "init", Exe: "/sbin/init", Args: []string{"init"}, CPUTime: 5 * time.Second, RSS: 20, VSize: 90},
		{PID: 7, PPID: 1, Comm: "web", Exe: "/bin/web", Args: []string{"web", "--port", "80"}, CPUTime: time.Second, RSS: 300, VSize: 900},
		{PID: 9, PPID: 7, Comm: hostile, Exe: "/bin/x", Args: []string{hostile, "two"}, CPUTime: 2 * time.Second, RSS: 30, VSize: 90},
		{PID: 12, PPID: 1, Comm: "kworker", Kernel: true},
	} {
		g.Add(p)
	}
	return g
}

// attach is a session with the guest in m.
func attach(t *testing.T, m phys.Memory, source vm.Source) *guest.Guest {
	t.Helper()
	machine := &vm.Machine{Info: vm.Info{Name: "web", Source: source}, Memory: m, Proven: true}
	g, err := guest.Attach(t.Context(), machine, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

func sample(t *testing.T, s Source) *Sample {
	t.Helper()
	out, err := s.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func pids(lines []Line) (out []int32) {
	for _, l := range lines {
		out = append(out, l.PID)
	}
	return out
}

func TestFrame(t *testing.T) {
	g := synthetic(t)
	s := NewGuest(attach(t, g.Memory, vm.SourceDump))
	before := sample(t, s)
	g.Set(g.Tasks[7], "task_struct", "se.sum_exec_runtime", uint64(1500*time.Millisecond))
	now := sample(t, s)
	now.At = before.At.Add(time.Second)
	for _, c := range []struct {
		o    Options
		want []int32
	}{
		{Options{}, []int32{7, 1, 9, 12}},
		{Options{Order: ByCPU, Reverse: true}, []int32{12, 9, 1, 7}},
		{Options{Order: ByMemory}, []int32{7, 9, 1, 12}},
		{Options{Order: ByPID}, []int32{1, 7, 9, 12}},
		{Options{Order: ByName}, []int32{9, 1, 12, 7}},
		{Options{Order: ByTime}, []int32{1, 9, 7, 12}},
		{Options{Order: ByCPU, Tree: true}, []int32{1, 7, 9, 12}},
		{Options{Order: ByPID, Reverse: true, Tree: true}, []int32{1, 12, 7, 9}},
		{Options{Filter: "PORT"}, []int32{7}},
		{Options{Filter: "9"}, []int32{9}},
		{Options{Filter: "nothing"}, nil},
	} {
		if got := pids(Frame(before, now, c.o)); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.o, got, c.want)
		}
	}
	lines := Frame(before, now, Options{})
	if lines[0].Percent != 50 || lines[1].Percent != 0 {
		t.Errorf("percentages %v, %v", lines[0].Percent, lines[1].Percent)
	}
	if first := Frame(nil, now, Options{}); first[0].Percent >= 0 {
		t.Errorf("a percentage without an interval: %v", first[0].Percent)
	}
	if tree := Frame(before, now, Options{Tree: true}); tree[2].Branch != "│  └─ " {
		t.Errorf("branch %q", tree[2].Branch)
	}
	// What was exchanged for another program of the same number has no past.
	now.Processes[1].Key.Born++
	if l := Frame(before, now, Options{Order: ByPID}); l[1].Percent >= 0 {
		t.Errorf("%v %% of another process's time", l[1].Percent)
	}
}

// tame fails where a line could move a terminal's cursor.
func tame(t *testing.T, lines []string) {
	t.Helper()
	for _, l := range lines {
		l = strings.ReplaceAll(strings.ReplaceAll(l, reverse, ""), plain, "")
		if strings.ContainsFunc(l, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u202e' }) {
			t.Errorf("drawn: %q", l)
		}
	}
}

func TestHostileText(t *testing.T) {
	s := NewGuest(attach(t, synthetic(t).Memory, vm.SourceDump))
	now := sample(t, s)
	now.Host, now.Release = hostile, hostile
	plainText := Text(nil, now, Options{Filter: hostile}, 0)
	tame(t, strings.Split(strings.TrimSuffix(plainText, "\n"), "\n"))
	m := model{width: 70, height: 12}
	m.sampled(now)
	tame(t, m.draw())
	if all := strings.Join(m.draw(), "\n"); !strings.Contains(all, `\x1b]0;x\x07`) {
		t.Errorf("the hostile process is not shown:\n%s", all)
	}
	m.move(2)
	m.key("f", "f")
	tame(t, m.draw())
	m.key("esc", "")
	m.key("/", "/")
	m.key("x", hostile)
	tame(t, m.draw())
}

func TestKeys(t *testing.T) {
	s := NewGuest(attach(t, synthetic(t).Memory, vm.SourceDump))
	m := model{width: 100, height: 7} // room for two processes
	m.sampled(sample(t, s))
	m.key("p", "p")
	m.key("down", "")
	m.key("down", "")
	if m.lines[m.row].PID != 9 || m.top != 1 {
		t.Errorf("row %d, top %d", m.row, m.top)
	}
	m.key("m", "m") // the selection goes with the process
	if m.lines[m.row].PID != 9 {
		t.Errorf("selected is %d", m.lines[m.row].PID)
	}
	if m.key("a", "a") != ask || m.view != "maps" || m.of.PID != 9 {
		t.Errorf("maps: %q of %d", m.view, m.of.PID)
	}
	m.key("esc", "")
	m.key("/", "/")
	for _, k := range "web?" {
		m.key(string(k), string(k))
	}
	if len(m.lines) != 0 || m.key("f", "f") != nothing {
		t.Errorf("%v match %q", pids(m.lines), m.options.Filter)
	}
	m.key("backspace", "")
	m.key("backspace", "")
	m.key("enter", "")
	if !slices.Equal(pids(m.lines), []int32{7}) || m.view != "" {
		t.Errorf("%v match %q", pids(m.lines), m.options.Filter)
	}
	if m.key("q", "q") != quit {
		t.Error("q does not quit")
	}
	for h := range 9 {
		m.height, m.width = h, h
		m.move(0)
		m.draw()
	}
}

func TestDetail(t *testing.T) {
	s := NewGuest(attach(t, synthetic(t).Memory, vm.SourceDump))
	lines := s.Detail(t.Context(), "ps", 9, 100)
	if all := strings.Join(lines, "\n"); !strings.Contains(all, `\x1b]0;x`) || strings.Contains(all, "--port") {
		t.Errorf("%q", lines)
	}
	tame(t, lines)
	s.Close()
	if _, err := s.Sample(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestBatchOfADump(t *testing.T) {
	s := NewGuest(attach(t, synthetic(t).Memory, vm.SourceDump))
	var b strings.Builder
	if err := Batch(t.Context(), s, &b, Options{Order: ByPID}, time.Hour, 3, 60); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != 8 || lines[3] != columns || !strings.HasSuffix(lines[5], " web --po…") || !strings.Contains(lines[5], " - ") {
		t.Errorf("%s", b.String())
	}
}

// TestReboot: another first process is another boot.
func TestReboot(t *testing.T) {
	g := synthetic(t)
	s := NewGuest(attach(t, g.Memory, vm.SourceShared))
	sample(t, s)
	g.Set(g.Tasks[1], "task_struct", "start_boottime", 77)
	if _, err := s.Sample(t.Context()); !errors.Is(err, ErrEnded) || !strings.Contains(fmt.Sprint(err), "rebooted") {
		t.Errorf("first process: %v", err)
	}
}

// TestEnd: a guest whose monitor ends is gone.
func TestEnd(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	machine := &vm.Machine{Info: vm.Info{Name: "web", Source: vm.SourceShared, PID: cmd.Process.Pid}, Memory: synthetic(t).Memory, Proven: true}
	g, err := guest.Attach(t.Context(), machine, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s := NewGuest(g)
	sample(t, s)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if _, err := s.Sample(t.Context()); !errors.Is(err, ErrEnded) || !errors.Is(err, vm.ErrGone) {
		t.Errorf("without a monitor: %v", err)
	}
}
