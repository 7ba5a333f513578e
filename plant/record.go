package plant

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/vm"
)

// record is what the host notes of a planting before it is armed, so that what the guest says of it later can be compared.
type record struct {
	ID      string    `json:"id"`
	Machine string    `json:"machine"`
	PID     int       `json:"pid"` // of the monitor
	Kernel  string    `json:"kernel"`
	BuildID string    `json:"build_id"`
	When    time.Time `json:"when"`
	Mailbox string    `json:"mailbox"`
	Code    string    `json:"code"`
	Data    string    `json:"data"`
	Sum     uint64    `json:"sum"` // of code and data, FNV-1a
	// Images are fingerprints of the programs' machine code, by name.
	Images map[string]string `json:"images,omitempty"`
	// Ended is when it was removed, or seen to be gone, and Why. The record is kept: a snapshot that has the probes may be restored.
	Ended time.Time `json:"ended,omitzero"`
	Why   string    `json:"why,omitempty"`
}

const (
	endRemoved = "removed"
	endGone    = "gone: the guest has booted again, or was put back to a moment before"
	// kept is how long records of plantings are kept that have ended.
	kept = 90 * 24 * time.Hour
)

func (plan *Plan) record() *record {
	m, b := plan.g.Machine(), plan.box
	return &record{
		ID: hex.EncodeToString(b.id[:]), Machine: m.Title(), PID: m.PID, Kernel: plan.p.s.Release, BuildID: plan.p.s.BuildID, When: b.when.UTC(),
		Mailbox: plan.p.mailbox.String(), Code: b.code.String(), Data: b.data.String(), Sum: b.sum,
	}
}

// folder is where records are: OUTSIGHT_PLANTED, or a folder of the user's state.
func folder() (string, error) {
	dir := os.Getenv("OUTSIGHT_PLANTED")
	if dir == "" {
		state := os.Getenv("XDG_STATE_HOME")
		if state == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", fmt.Errorf("%w: set OUTSIGHT_PLANTED to a folder for notes of what is planted", err)
			}
			state = filepath.Join(home, ".local", "state")
		}
		dir = filepath.Join(state, "outsight", "planted")
	}
	return dir, os.MkdirAll(dir, 0o700)
}

func pathOf(id string) (string, error) {
	dir, err := folder()
	return filepath.Join(dir, id+".json"), err
}

func (r *record) save() error {
	path, err := pathOf(r.ID)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (r *record) remove() error {
	path, err := pathOf(r.ID)
	if err != nil {
		return err
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// endRecord notes that a planting is not in its guest any more.
func endRecord(id [16]byte, why string) error {
	r, err := readRecord(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another host's
	}
	if err != nil {
		return err
	}
	if !r.Ended.IsZero() {
		return nil
	}
	return r.end(why)
}

func (r *record) end(why string) error {
	r.Ended, r.Why = time.Now().UTC(), why
	return r.save()
}

// found notes that a planting is in a machine, also if that is another than the one that it was planted in: a snapshot was restored, or it has migrated.
func (r *record) found(m *vm.Machine) error {
	if r == nil || r.Ended.IsZero() && r.PID == m.PID && r.Machine == m.Title() {
		return nil
	}
	r.Ended, r.Why, r.PID, r.Machine = time.Time{}, "", m.PID, m.Title()
	return r.save()
}

// lostBy is [ErrNothing], and says which planting is not in a machine any more that was in it, the first time that this is seen.
func lostBy(m *vm.Machine) error {
	all, err := records()
	if err != nil {
		return fmt.Errorf("%w (the notes of this host: %w)", ErrNothing, err)
	}
	lost := error(nil)
	for _, r := range all {
		if r.PID != m.PID || r.Machine != m.Title() || !r.Ended.IsZero() {
			continue
		}
		if err := r.end(endGone); err != nil {
			return fmt.Errorf("%w (the notes of this host: %w)", ErrNothing, err)
		}
		lost = fmt.Errorf("%w any more: those of %s UTC are gone: it has booted again, was put back to a moment before, or who planted was killed before that", ErrNothing, r.When.UTC().Format(time.DateTime))
	}
	if lost != nil {
		return lost
	}
	return ErrNothing
}

// records are all that this host has noted. Those that ended long ago are removed.
func records() (all []*record, err error) {
	dir, err := folder()
	if err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, path := range names {
		r, err := load(path)
		switch {
		case errors.Is(err, fs.ErrNotExist): // another process was faster
		case err != nil:
			return nil, err
		case !r.Ended.IsZero() && time.Since(r.Ended) > kept:
			if err := r.remove(); err != nil {
				return nil, err
			}
		default:
			all = append(all, r)
		}
	}
	return all, nil
}

// readRecord is what this host noted of a planting; nil: another host, or another user, planted it.
func readRecord(id [16]byte) (*record, error) {
	path, err := pathOf(hex.EncodeToString(id[:]))
	if err != nil {
		return nil, err
	}
	return load(path)
}

func load(path string) (*record, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// lock makes this the only outsight that writes into a machine, until unlock.
func lock(m *vm.Machine) (unlock func(), err error) {
	dir, err := folder()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, fmt.Sprintf("machine-%d.lock", m.PID))
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			return nil, fmt.Errorf("another outsight plants or removes probes in this machine (%s): %w", path, err)
		}
		// Who held it may have removed it meanwhile.
		mine, err1 := f.Stat()
		there, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return func() {
				_ = os.Remove(path)
				f.Close()
			}, nil
		}
		f.Close()
	}
}
