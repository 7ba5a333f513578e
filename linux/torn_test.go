package linux

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/mapped"
	"github.com/outsight-vmi/outsight/virt"
)

// meddler is memory that the guest changes whenever a certain byte is read.
type meddler struct {
	phys.Memory
	at     phys.Addr
	meddle func(n int) // the nth time
	n      int
}

func (m *meddler) ReadAt(p []byte, pa phys.Addr) (int, error) {
	n, err := m.Memory.ReadAt(p, pa)
	if m.meddle != nil && m.at >= pa && m.at < pa+phys.Addr(len(p)) {
		m.n++
		m.meddle(m.n)
	}
	return n, err
}

// A task that becomes another one while it is read gives one row of either or an
// error, never a mixture.
func TestChangedWhileRead(t *testing.T) {
	for member, value := range map[string]func(old uint64, n int) uint64{
		"pid":            func(_ uint64, n int) uint64 { return uint64(100 + n) },
		"start_boottime": func(_ uint64, n int) uint64 { return uint64(n) * 1e9 },
		"mm":             func(old uint64, n int) uint64 { return old * uint64(n%2) },
	} {
		for _, times := range []int{0, 1, 2, 1000} {
			g := row(3)
			m := &meddler{Memory: g.Memory}
			s, err := Open(t.Context(), m, kernel.Options{})
			if err != nil {
				t.Fatal(err)
			}
			task := g.Tasks[2]
			old := g.Get(task, "task_struct", member)
			m.at = g.Phys(task + g.Member("task_struct", "comm"))
			m.meddle = func(n int) {
				if n <= times {
					g.Set(task, "task_struct", member, value(old, n+1))
					g.Put(task+g.Member("task_struct", "comm"), []byte{'a' + byte(n), 0})
				}
			}
			p, err := s.NewProcessReader().Process(t.Context(), s.TaskAt(virt.Addr(task)))
			if times > 2 {
				if !errors.Is(err, errChanged) || p != nil {
					t.Errorf("%s changes all the time: %+v, %v", member, p, err)
				}
				continue
			}
			want := "p"
			if times > 0 {
				want = string('a' + rune(times))
			}
			if err != nil || p.Comm != want || m.n != times+1 {
				t.Errorf("%s changed %d times: %+v, %v, read %d times", member, times, p, err, m.n)
			}
		}
	}
}

func TestNameMissing(t *testing.T) {
	g := row(1)
	g.Add(synth.Process{PID: 2, Comm: "kthreadd", Kernel: true})
	s := open(t, g)
	s.o.comm = 1 << 31 // past all memory
	for _, pid := range []int32{1, 2} {
		p, err := s.NewProcessReader().Process(t.Context(), s.TaskAt(virt.Addr(g.Tasks[pid])))
		if err != nil || len(p.Missing) != 1 || p.Missing[0].Part != PartName {
			t.Errorf("process %d: %+v, %v", pid, p, err)
		}
	}
}

// With some processors unknown the resident size would be wrong.
func TestProcessorsMissing(t *testing.T) {
	for _, unreadable := range []bool{true, false} {
		for _, old := range []bool{false, true} {
			g := synth.New(synth.Options{Old: old})
			g.Add(synth.Process{PID: 1, Comm: "p", Exe: "/p", RSS: 5})
			s := open(t, g)
			g.Put64(g.Address("nr_cpu_ids"), 0)
			if s.Walker = kobj.New(s.Kernel); unreadable {
				s.CPUAreasErr = phys.ErrNotPresent
			}
			ps, errs := processes(t, s)
			if len(ps) != 1 || len(errs) > 0 {
				t.Fatal(ps, errs)
			}
			if err := missing(ps[0], PartResident); (err == nil) != old || !old && ps[0].RSS != 0 {
				t.Errorf("old %v: %d, %v", old, ps[0].RSS, err)
			}
		}
	}
}

func TestReadBudget(t *testing.T) {
	g := row(3)
	s := open(t, g)
	l := s.NewProcessReader()
	l.r.Left = 150
	whole, cut, none := 0, 0, 0
	for _, pid := range []int32{1, 2, 3} {
		p, err := l.Process(t.Context(), s.TaskAt(virt.Addr(g.Tasks[pid])))
		switch {
		case errors.Is(err, kobj.ErrBudget):
			none++
		case err != nil:
			t.Error(err)
		case len(p.Missing) > 0:
			cut++
		default:
			whole++
		}
	}
	if whole == 0 || none == 0 || cut > 0 {
		t.Errorf("%d whole, %d cut, %d not read", whole, cut, none)
	}
}

// Titles count as arguments do, so that many processes that share one do not
// fill memory.
func TestTitleBudget(t *testing.T) {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "titled", Exe: "/t", Args: []string{"x"}, Title: "titled: worker"})
	s := open(t, g)
	l := s.NewProcessReader()
	l.textLeft = 80
	var last *Process
	for i := range 4 {
		var err error
		if last, err = l.Process(t.Context(), s.TaskAt(virt.Addr(g.Tasks[1]))); err != nil {
			t.Fatal(err)
		}
		if err := missing(last, PartArguments); i == 0 && err != nil {
			t.Error(err)
		}
	}
	if missing(last, PartArguments) == nil {
		t.Errorf("arguments %q, %d bytes left", last.Args, l.textLeft)
	}
}

// The file behind a mapping may be cut short at any time: an error, not a crash.
func TestMappingGone(t *testing.T) {
	g := row(3)
	f, err := os.CreateTemp(t.TempDir(), "ram")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := g.Raw(f, phys.Layout{}); err != nil {
		t.Fatal(err)
	}
	m, err := mapped.Open([]mapped.Backing{{File: f}}, phys.Identity(g.RAM))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s, err := Open(t.Context(), m, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	task := s.TaskAt(virt.Addr(g.Tasks[2]))
	_, err1 := s.NewProcessReader().Process(t.Context(), task)
	_, _, err2 := task.IDs()
	_, err3 := s.UserSpace(virt.Addr(g.Get(g.Tasks[2], "task_struct", "mm")))
	_, err4 := s.Hostname()
	_, err5 := s.CommandLine()
	errs := []error{err1, err2, err3, err4, err5}
	for _, err := range s.Processes(t.Context()) {
		errs = append(errs, err)
	}
	for _, err := range task.Threads(t.Context()) {
		errs = append(errs, err)
	}
	for i, err := range errs {
		if !errors.Is(err, phys.ErrGone) || strings.Contains(err.Error(), "panic") {
			t.Errorf("%d: %v", i, err)
		}
	}
}
