package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/lab/state"
)

// A Guest is a virtual machine that Up has started, in this process or another.
type Guest struct {
	Name     string
	Dir      string // where its sockets and logs are
	Kernel   Kernel // zero for a guest that stays in its firmware
	Userland string
	Memory   uint64
	SMP      int
	Accel    string
	Private  bool
	Firmware bool
	Process  int // QEMU's process id
	Started  time.Time
}

// QMP is the path of the guest's QMP socket. It serves one client at a time, and the lab
// never takes it.
func (g *Guest) QMP() string { return state.QMP(g.Dir) }

// PID is the process id of the guest's QEMU.
func (g *Guest) PID() int { return g.Process }

// Console is the path of the log of the guest's console.
func (g *Guest) Console() string { return filepath.Join(g.Dir, "console.log") }

// Running reports whether the guest's QEMU is alive: it holds a lock for as long as it lives.
func (g *Guest) Running() bool { return state.Held(g.Dir) }

// Open finds a running guest by name. For one that has ended by itself it gives the guest,
// whose logs can still be read, and an error.
func Open(name string) (*Guest, error) {
	if !state.ValidName(name) {
		return nil, fmt.Errorf("lab: invalid guest name %q", name)
	}
	root, err := state.Dir()
	if err != nil {
		return nil, err
	}
	g, err := load(filepath.Join(root, name))
	switch {
	case errors.Is(err, fs.ErrNotExist) && state.Held(filepath.Join(root, name)):
		return nil, fmt.Errorf("lab: guest %s is still being started", name)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("lab: no guest %s; running: %s", name, runningNames())
	case err != nil:
		return nil, err
	case !g.Running():
		return g, fmt.Errorf("lab: guest %s has ended: %s", name, g.lastWords())
	}
	return g, nil
}

func runningNames() string {
	all, _ := List()
	names := []string{}
	for _, g := range all {
		names = append(names, g.Name)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// List gives the running guests, by name.
func List() ([]Guest, error) { return list(true) }

// Ended gives the guests that have ended by themselves. Their logs can still be read; Down
// removes what is left of them.
func Ended() ([]Guest, error) { return list(false) }

func list(running bool) ([]Guest, error) {
	root, err := state.Dir()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(root) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	var all []Guest
	for _, e := range entries {
		if g, err := load(filepath.Join(root, e.Name())); err == nil && g.Running() == running {
			all = append(all, *g)
		}
	}
	return all, nil
}

func load(dir string) (*Guest, error) {
	text, err := os.ReadFile(state.Record(dir))
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	g := &Guest{}
	if err := json.Unmarshal(text, g); err != nil {
		return nil, fmt.Errorf("lab: %s: %w", dir, err)
	}
	g.Dir = dir
	return g, nil
}

func (g *Guest) save() error {
	text, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return writeAtomic(state.Record(g.Dir), text)
}

// Down ends the guest at once, as pulling the plug does, and removes what is left of it.
func (g *Guest) Down() error {
	if g.Running() {
		now, err := load(g.Dir)
		if err == nil && now.Process != g.Process || errors.Is(unix.Kill(g.Process, 0), unix.ESRCH) {
			return nil // it has ended, and another has its name since
		}
		if err := g.kill(); err != nil {
			return err
		}
	}
	// Under the lock: the next guest of this name may be on its way already.
	lock, err := lockDir(g.Dir)
	if err != nil {
		return nil
	}
	defer lock.Close()
	if err := os.RemoveAll(g.Dir); err != nil {
		return fmt.Errorf("lab: guest %s: %w", g.Name, err)
	}
	return nil
}

// kill ends QEMU. While the lock is held, the process id is QEMU's.
func (g *Guest) kill() error {
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.Kill(g.Process, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("lab: end guest %s (process %d): %w", g.Name, g.Process, err)
		}
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
			if !g.Running() {
				return nil
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return fmt.Errorf("lab: guest %s (process %d) cannot be ended", g.Name, g.Process)
}

// lastWords gives what QEMU said at the end, or else the guest.
func (g *Guest) lastWords() string {
	for _, name := range []string{"qemu.log", "console.log"} {
		if text := tail(filepath.Join(g.Dir, name)); text != "" {
			return text
		}
	}
	return "it left no message"
}

// tail gives the last lines of a log in one line of plain text: the guest may have
// written anything.
func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil {
		_, _ = f.Seek(max(0, st.Size()-4096), io.SeekStart) // what cannot seek is read from its start
	}
	buf := make([]byte, 4096)
	n, _ := f.Read(buf)
	text := strings.Map(func(r rune) rune {
		if r != '\n' && (r < ' ' || r > '~') {
			return -1
		}
		return r
	}, string(buf[:n]))
	return complaint(text)
}
