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
}

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

func removeRecord(id [16]byte) error { return (&record{ID: hex.EncodeToString(id[:])}).remove() }

// readRecord is what this host noted of a planting; nil: another host, or another user, planted it.
func readRecord(id [16]byte) (*record, error) {
	path, err := pathOf(hex.EncodeToString(id[:]))
	if err != nil {
		return nil, err
	}
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
