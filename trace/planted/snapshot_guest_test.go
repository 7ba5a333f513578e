package planted_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/plant"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/planted"
)

// TestGuestSnapshot puts a guest back to moments before, while and after probes were planted in it: they are found whole and work, or are gone, and who reads them says
// so.
func TestGuestSnapshot(t *testing.T) {
	labtest.NeedTool(t, "qemu-img")
	for _, k := range kernels() {
		t.Run(k, func(t *testing.T) { snapshots(t, k) })
	}
}

func snapshots(t *testing.T, kernel string) {
	disk := filepath.Join(t.TempDir(), "snapshots.qcow2")
	if out, err := exec.Command("qemu-img", "create", "-f", "qcow2", disk, "16M").CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	l := lives(t, lab.Options{
		Name: "snapshot-" + kernel, Kernel: kernel, SMP: 2, Append: steady,
		QEMUArgs: []string{"-drive", "if=none,id=snapshots,format=qcow2,file=" + disk},
	})
	l.monitor("savevm before")
	f := l.plant(few)
	l.sh("for i in $(seq 20); do /bin/true a-$i; done")
	f.exactly(20, "planted", ran("a-"))
	l.monitor("savevm planted")
	l.sh("for i in $(seq 20); do /bin/true b-$i; done")
	f.exactly(20, "after the snapshot", ran("b-"))

	// Back to when it was planted, under the eyes of who reads it.
	l.monitor("loadvm planted")
	l.noticed(f, "at an earlier moment")
	l.sh("for i in $(seq 20); do /bin/true c-$i; done")
	f.exactly(20, "in the snapshot", ran("c-"))
	if n := f.seen(finding("at an earlier moment")); n != 1 {
		t.Errorf("%d findings that it was put back, expected 1", n)
	}
	f.mu.Lock()
	for _, e := range f.events {
		if d := time.Since(e.Time); ran("c-")(&e) && (d < 0 || d > 40*time.Second) {
			t.Errorf("%s happened %v ago", e.Args, d)
		}
	}
	f.mu.Unlock()

	// Back to before it was planted.
	l.monitor("loadvm before")
	f.over(planted.ErrRemoved)
	if err := f.s.Close(); err != nil {
		t.Errorf("end the stream: %v", err)
	}
	if n := f.seen(func(e *trace.Event) bool { return e.Kind == trace.KindFinding }); n != 2 {
		t.Errorf("%d findings, expected that it is gone, too", n)
	}
	l.bare()
	if r := l.records(); len(r) != 1 || r[0].Why == "" {
		t.Errorf("the host notes %+v", r)
	}

	// And there it is again, known, for whoever comes later.
	l.monitor("loadvm planted")
	l.find()
	l.reads("d-")
	if err := l.find().Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.bare()
	if os.Getenv("OUTSIGHT_SLOW") != "" {
		l.whileAtWork()
	}
}

// noticed waits until a finding is reported.
func (l *lived) noticed(f *followed, text string) {
	l.Helper()
	for end := time.Now().Add(30 * time.Second); f.seen(finding(text)) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			l.Fatalf("not noticed in 30 s: %s", text)
		}
	}
}

// reads reads what is planted already, from another session, and leaves it there.
func (l *lived) reads(mark string) {
	l.Helper()
	g, err := guest.Open(l.Context(), "lab:"+l.lab.Name, guest.Options{})
	if err != nil {
		l.Fatal(err)
	}
	defer g.Close()
	s, err := planted.Plant(l.Context(), g, planted.Options{}, nil)
	if err != nil {
		l.Fatal(err)
	}
	f := l.follow(s)
	l.sh("for i in $(seq 20); do /bin/true " + mark + "$i; done")
	f.exactly(20, "read by another session", ran(mark))
	if n := f.seen(func(e *trace.Event) bool { return e.Kind == trace.KindFinding }); n != 0 {
		l.Errorf("%d findings", n)
	}
	if err := f.close(); err != nil {
		l.Error(err)
	}
}

// whileAtWork saves a guest while its kernel loads what is planted, and comes back to that: it ends the job by itself, or that is waited for where it is to be removed.
func (l *lived) whileAtWork() {
	l.Helper()
	planting := make(chan error, 1)
	var s *planted.Tended
	go func() {
		var err error
		s, err = planted.Plant(l.Context(), l.g, planted.Options{}, func(p *plant.Plan) error {
			l.writes = p.Writes
			l.was = l.content()
			return nil
		})
		planting <- err
	}()
	other, err := guest.Open(l.Context(), "lab:"+l.lab.Name, guest.Options{})
	if err != nil {
		l.Fatal(err)
	}
	defer other.Close()
	state := ""
	for end := time.Now().Add(time.Minute); state != "running"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			l.Fatalf("it is never seen at work: %s", state)
		}
		if p, err := plant.Find(l.Context(), other); err == nil {
			state = p.State
		}
	}
	l.monitor("savevm work")
	if err := <-planting; err != nil {
		l.Fatal(err)
	}
	if err := s.Close(); err != nil {
		l.Fatal(err)
	}
	l.bare()
	for _, wait := range []bool{true, false} { // the job's end
		l.monitor("loadvm work")
		p, err := plant.Find(l.Context(), l.g)
		if err != nil {
			l.Fatal(err)
		}
		l.Logf("put back to when it was %s", p.State)
		if wait { // who reads them does
			l.reads("e-")
			l.find()
		}
		if err := p.Remove(l.Context()); err != nil {
			l.Fatal(err)
		}
		l.bare()
	}
}
