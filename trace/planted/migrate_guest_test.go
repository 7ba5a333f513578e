package planted_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/plant"
	"github.com/outsight-vmi/outsight/trace/planted"
)

// TestGuestMigrate has a guest with probes migrate to another QEMU while it is busy, and saves it to a file from which a third one goes on: the probes go with it.
func TestGuestMigrate(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("OUTSIGHT_SLOW is not set")
	}
	for _, k := range kernels() {
		for _, private := range []bool{false, true} {
			name := k + "-shared"
			if private {
				name = k + "-private"
			}
			t.Run(name, func(t *testing.T) { migrate(t, "migrate-"+name, k, private) })
		}
	}
}

// unrest is a load that dirties memory.
const unrest = `for w in 1 2; do (while :; do for i in 1 2 3 4 5 6 7 8; do /bin/true; done; cat /proc/self/maps | head -3 >/tmp/unrest.$w; dd if=/dev/urandom of=/tmp/dirty.$w bs=64k count=16; done) >/dev/null 2>&1 & done; sleep 0.1`

func migrate(t *testing.T, name, kernel string, private bool) {
	l := lives(t, lab.Options{Name: name, Kernel: kernel, SMP: 2, Private: private, Append: steady})
	l.sh(unrest)
	slow := map[string]any{"max-bandwidth": 1 << 20}

	// To nowhere: nothing is planted meanwhile.
	l.command("migrate-set-parameters", slow, nil)
	l.command("migrate", map[string]any{"uri": "exec:cat >/dev/null"}, nil)
	l.refused("plant", l.tryPlanting())
	l.command("migrate_cancel", nil, nil)
	l.migration("cancelled")

	f := l.plant(few)
	l.sh("for i in $(seq 20); do /bin/true a-$i; done")
	f.exactly(20, "before", ran("a-"))
	socket := filepath.Join(t.TempDir(), "m")
	next := labtest.Twin(t, l.lab, name+"-2", "unix:"+socket)
	l.command("migrate", map[string]any{"uri": "unix:" + socket}, nil)
	l.migration("active")
	p, err := plant.Find(t.Context(), l.g)
	if err != nil {
		t.Fatal(err)
	}
	l.refused("remove", p.Remove(t.Context()))
	l.sh("for i in $(seq 20); do /bin/true b-$i; done")
	f.exactly(20, "while it migrates", ran("b-"))
	l.command("migrate-set-parameters", map[string]any{"max-bandwidth": 1 << 40, "downtime-limit": 5000}, nil)
	l.migration("completed")
	f.over(planted.ErrMigrated)
	if err := f.s.Close(); err == nil || !strings.Contains(err.Error(), "where it runs now") {
		t.Errorf("end the stream where it was: %v", err)
	}

	// There it is found, and goes on.
	there := l.movedTo(next)
	there.find()
	there.reads("c-")

	// Saved to a file, from which another goes on.
	file := filepath.Join(t.TempDir(), "state")
	there.command("migrate-set-parameters", map[string]any{"max-bandwidth": 1 << 40}, nil)
	there.command("migrate", map[string]any{"uri": "file:" + file}, nil)
	there.migration("completed")
	last := there.movedTo(labtest.Twin(t, next, name+"-3", "file:"+file))
	if err := next.Down(); err != nil {
		t.Error(err)
	}
	last.find()
	last.reads("d-")
	if err := last.find().Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	last.bare()
	f = last.plant(few)
	last.sh("for i in $(seq 20); do /bin/true e-$i; done")
	f.exactly(20, "planted again", ran("e-"))
	if err := f.close(); err != nil {
		t.Error(err)
	}
	last.bare()
}

// movedTo is the same guest in another QEMU.
func (l *lived) movedTo(g *lab.Guest) *lived {
	l.Helper()
	there := &lived{T: l.T, lab: g}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var status struct{ Status string }
		there.command("query-status", nil, &status)
		if status.Status == "running" {
			break
		}
		if time.Now().After(end) {
			l.Fatalf("it does not run there: %s", status.Status)
		}
	}
	opened := opened(l.T, g)
	opened.writes, opened.was = l.writes, l.was
	return opened
}

// migration waits for a state of the migration.
func (l *lived) migration(want string) {
	l.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var info struct {
			Status string
			Error  string `json:"error-desc"`
		}
		l.command("query-migrate", nil, &info)
		if info.Status == want {
			return
		}
		if info.Status == "failed" || time.Now().After(end) {
			l.Fatalf("the migration is %s, expected %s: %s", info.Status, want, info.Error)
		}
	}
}

func (l *lived) tryPlanting() error {
	_, err := planted.Plant(l.Context(), l.g, few, func(*plant.Plan) error { return errors.New("not refused") })
	return err
}

// refused wants a refusal for a migration.
func (l *lived) refused(what string, err error) {
	l.Helper()
	var refused *plant.RefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "migration") {
		l.Errorf("%s while it migrates: %v", what, err)
	}
}
