package plant

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/vm"
)

// TestRecords follows what the host notes of a planting: it is gone from its machine, comes back in a snapshot that is restored elsewhere, and is removed.
func TestRecords(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("OUTSIGHT_PLANTED", dir)
	here, there := &vm.Machine{Info: vm.Info{Name: "a", PID: 10}}, &vm.Machine{Info: vm.Info{Name: "b", PID: 11}}
	id := [16]byte{1}
	r := &record{ID: "01000000000000000000000000000000", Machine: here.Title(), PID: here.PID, When: time.Unix(1_800_000_000, 0)}
	if err := r.save(); err != nil {
		t.Fatal(err)
	}
	if err := lostBy(there); !errors.Is(err, ErrNothing) || err.Error() != ErrNothing.Error() {
		t.Errorf("another machine never had it: %v", err)
	}
	if err := lostBy(here); !errors.Is(err, ErrNothing) || !strings.Contains(err.Error(), "2027-01-15") {
		t.Errorf("it is gone: %v", err)
	}
	if err := lostBy(here); !errors.Is(err, ErrNothing) || err.Error() != ErrNothing.Error() {
		t.Errorf("that was said before: %v", err)
	}
	r, err := readRecord(id)
	if err != nil || r.Ended.IsZero() || r.Why != endGone {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := r.found(there); err != nil {
		t.Fatal(err)
	}
	if err := lostBy(here); err.Error() != ErrNothing.Error() {
		t.Errorf("it is elsewhere: %v", err)
	}
	if err := endRecord(id, endRemoved); err != nil {
		t.Fatal(err)
	}
	if err := endRecord([16]byte{2}, endRemoved); err != nil {
		t.Errorf("another host's: %v", err)
	}
	if r, err = readRecord(id); err != nil || r.Why != endRemoved || r.PID != there.PID {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := (*record)(nil).found(here); err != nil {
		t.Error(err)
	}

	// What ended long ago is forgotten, and what no record is said.
	r.Ended = time.Now().Add(-kept - time.Hour)
	if err := r.save(); err != nil {
		t.Fatal(err)
	}
	if all, err := records(); err != nil || len(all) != 0 {
		t.Errorf("%d records, %v", len(all), err)
	}
	if _, err := readRecord(id); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := lostBy(here); !errors.Is(err, ErrNothing) || !strings.Contains(err.Error(), "x.json") {
		t.Errorf("a damaged record: %v", err)
	}
}

// TestTicked tells a clock from memory that another kernel uses by now.
func TestTicked(t *testing.T) {
	const now = 4294892296
	for _, c := range []struct {
		last, now uint64
		want      bool
	}{
		{0, now, false}, {now, now, false}, {now, now + 1, true}, {now, now + 5000, true}, {now, now - 1, false}, {now, 0, false}, {now, 0xffff888003a12340, false},
	} {
		if got := ticked(c.last, c.now); got != c.want {
			t.Errorf("%d, then %d: %v", c.last, c.now, got)
		}
	}
}

func TestStanding(t *testing.T) {
	for state, want := range map[vm.State]string{vm.StateRunning: "", vm.StatePaused: "paused", "postmigrate": "where it runs now", "suspended": "suspended"} {
		err := standing(state, nil)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", state, err)
		}
	}
}
