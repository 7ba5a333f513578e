// Package live reads the disks of a running machine as they were at one moment, while the machine goes on. QEMU keeps what the
// machine overwrites (copy-before-write), and serves the disk of that moment (snapshot-access) to this process alone, over NBD. Everything
// is taken down again, by a guardian if this process is killed.
package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/nbd"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/guardian"
)

// ErrNoMonitor says that a machine has no monitor that could be asked for its disks.
var ErrNoMonitor = errors.New("its disks can be read only through QEMU's monitor, and there is none")

// A Drive is a disk of a machine.
type Drive struct {
	// Name is what the monitor calls it: the ID of the drive, or of the device.
	Name string
	// File is what QEMU reads it from, and Format how: "qcow2", "raw".
	File, Format string
	Size         int64 // in bytes
	ReadOnly     bool

	node   string // of the block graph
	device string // the path of the device that has it
}

// Drives are the disks of a machine that have a medium.
func Drives(ctx context.Context, m vm.Monitor) ([]Drive, error) {
	if m == nil {
		return nil, ErrNoMonitor
	}
	var blocks []struct {
		Device   string `json:"device"`
		Qdev     string `json:"qdev"`
		Inserted *struct {
			NodeName string `json:"node-name"`
			Drv      string `json:"drv"`
			File     string `json:"file"`
			RO       bool   `json:"ro"`
			Image    struct {
				Size int64 `json:"virtual-size"`
			} `json:"image"`
		} `json:"inserted"`
	}
	if err := m.QMP(ctx, "query-block", nil, &blocks); err != nil {
		return nil, fmt.Errorf("ask for the disks: %w", err)
	}
	var drives []Drive
	for _, b := range blocks {
		i := b.Inserted
		if i == nil || b.Qdev == "" || i.NodeName == "" {
			continue // no medium, or no device: pflash
		}
		d := Drive{Name: b.Device, File: i.File, Format: i.Drv, Size: i.Image.Size, ReadOnly: i.RO, node: i.NodeName, device: devicePath(b.Qdev)}
		if d.Name == "" {
			d.Name = filepath.Base(strings.TrimSuffix(b.Qdev, "/virtio-backend"))
		}
		drives = append(drives, d)
	}
	return drives, nil
}

// devicePath is where a device's properties are, of what query-block calls qdev: an ID, or a path. What a virtio device has is in
// a device of its own below it, and the property in the upper one.
func devicePath(qdev string) string {
	if !strings.HasPrefix(qdev, "/") {
		return "/machine/peripheral/" + qdev
	}
	return strings.TrimSuffix(qdev, "/virtio-backend")
}

// A Snapshot is the disks of a machine as they were at one moment.
type Snapshot struct {
	// Drives are those that it has, and Devices their bytes.
	Drives  []Drive
	Devices []disk.Device

	m       vm.Monitor
	guard   *guardian.Guard
	dir     string
	clients []*nbd.Client
	parts   []part
	serving bool
}

// part is what was put on a drive.
type part struct {
	drive              Drive
	kept, before, then bool // which nodes are there
	inserted, exported bool
	names              nodeNames
}

type nodeNames struct{ kept, before, then string }

const prefix = "outsight-"

// namesOf are what the nth drive's nodes of a process are called: whoever finds them knows whose they are.
func namesOf(pid, n int) nodeNames {
	p := fmt.Sprintf("%s%d-%d-", prefix, pid, n)
	return nodeNames{p + "kept", p + "before", p + "then"}
}

// closeTime is how long it may take to take everything down.
const closeTime = 30 * time.Second

// Open keeps the moment on these drives. What the machine overwrites from then on is kept in a file without a name in a folder for temporary
// files; if that cannot be written, or takes too long, the moment is lost, and reads fail: the machine itself never waits or sees an
// error. target is what the guardian opens if this process is killed. The moment is the same for all drives only if the
// machine is paused meanwhile.
func Open(ctx context.Context, target string, m *vm.Machine, drives []Drive) (*Snapshot, error) {
	s := &Snapshot{Drives: drives, m: m.Control.Monitor}
	if s.m == nil {
		return nil, ErrNoMonitor
	}
	if err := Clean(ctx, s.m); err != nil {
		return nil, err
	}
	if err := s.open(ctx, target, m); err != nil {
		err = errors.Join(fmt.Errorf("keep a moment of the disks: %w", err), s.Close())
		// A command that was given up may have been carried out all the same.
		again, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		return nil, errors.Join(err, clean(again, s.m, func(pid int) bool { return pid == os.Getpid() }))
	}
	return s, nil
}

func (s *Snapshot) open(ctx context.Context, target string, m *vm.Machine) (err error) {
	if s.guard, err = guardian.Start(ctx, guarded, recipe{Target: target, PID: os.Getpid()}); err != nil {
		return err
	}
	if err := s.folder(m.PID); err != nil {
		return err
	}
	if err := s.guard.Arm(); err != nil {
		return err
	}
	for n, d := range s.Drives {
		s.parts = append(s.parts, part{drive: d, names: namesOf(os.Getpid(), n)})
		if err := s.keep(ctx, &s.parts[n], n); err != nil {
			return fmt.Errorf("drive %s: %w", d.Name, err)
		}
	}
	// Before anything is in use, because there can be one server: who else has it is not disturbed. Nodes of ours are there by now, by which
	// it is known as ours, too.
	socket := filepath.Join(s.dir, "nbd")
	server := map[string]any{"addr": map[string]any{"type": "unix", "data": map[string]any{"path": socket}}, "max-connections": len(s.Drives) + 1}
	if err := s.m.QMP(ctx, "nbd-server-start", server, nil); err != nil {
		return fmt.Errorf("QEMU has one NBD server, which something else may use now, such as another outsight: %w", err)
	}
	s.serving = true
	for n := range s.parts { // as shortly after each other as can be
		p := &s.parts[n]
		if err := s.m.QMP(ctx, "qom-set", property(p.drive.device, p.names.before), nil); err != nil {
			return fmt.Errorf("drive %s: %w", p.drive.Name, err)
		}
		p.inserted = true
	}
	for n := range s.parts {
		if err := s.serve(ctx, &s.parts[n], socket); err != nil {
			return fmt.Errorf("drive %s: %w", s.parts[n].drive.Name, err)
		}
	}
	return nil
}

// folder makes one where the monitor, which may be another user's, can make a socket.
func (s *Snapshot) folder(pid int) (err error) {
	if s.dir, err = os.MkdirTemp("", "outsight-disk-"); err != nil {
		return err
	}
	info, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) == os.Getuid() {
		return nil
	}
	return os.Chown(s.dir, int(owner.Uid), int(owner.Gid))
}

// keep puts a filter in front of a drive's node, which nobody uses yet.
func (s *Snapshot) keep(ctx context.Context, p *part, n int) error {
	path := filepath.Join(s.dir, fmt.Sprintf("kept%d", n))
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	// QEMU has it open by then, and it goes when QEMU closes it.
	defer os.Remove(path)
	defer file.Close()
	if err := file.Truncate(p.drive.Size); err != nil {
		return err
	}
	if info, err := os.Stat(s.dir); err == nil {
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Getuid() {
			if err := file.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
				return err
			}
		}
	}
	if err := s.m.QMP(ctx, "blockdev-add", map[string]any{"driver": "file", "node-name": p.names.kept, "filename": path}, nil); err != nil {
		return err
	}
	p.kept = true
	// The guest's writes wait for a copy at most so long, and never fail for it (QEMU 7.1 and later).
	const patience = 5 // seconds
	if err := s.m.QMP(ctx, "blockdev-add", map[string]any{
		"driver": "copy-before-write", "node-name": p.names.before, "file": p.drive.node, "target": p.names.kept,
		"on-cbw-error": "break-snapshot", "cbw-timeout": patience,
	}, nil); err != nil {
		return err
	}
	p.before = true
	return nil
}

// serve exports the moment of a drive, and connects to it.
func (s *Snapshot) serve(ctx context.Context, p *part, socket string) error {
	if err := s.m.QMP(ctx, "blockdev-add", map[string]any{"driver": "snapshot-access", "node-name": p.names.then, "file": p.names.before}, nil); err != nil {
		return err
	}
	p.then = true
	if err := s.m.QMP(ctx, "block-export-add", map[string]any{"type": "nbd", "id": p.names.then, "node-name": p.names.then, "name": p.names.then, "writable": false}, nil); err != nil {
		return err
	}
	p.exported = true
	c, err := nbd.Dial(ctx, socket, p.names.then)
	if err != nil {
		return err
	}
	s.clients = append(s.clients, c)
	s.Devices = append(s.Devices, c)
	return nil
}

func property(device, node string) map[string]any {
	return map[string]any{"path": device, "property": "drive", "value": node}
}

// Close takes everything down again. The machine is as it was before.
func (s *Snapshot) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	var errs []error
	for _, c := range s.clients {
		errs = append(errs, c.Close())
	}
	s.clients = nil
	qmp := func(what *bool, command string, args any) {
		if !*what {
			return
		}
		if err := s.m.QMP(ctx, command, args, nil); err != nil {
			errs = append(errs, err)
			return
		}
		*what = false
	}
	for n := range s.parts {
		p := &s.parts[n]
		qmp(&p.exported, "block-export-del", map[string]any{"id": p.names.then, "mode": "hard"})
	}
	qmp(&s.serving, "nbd-server-stop", nil)
	for n := range s.parts {
		p := &s.parts[n]
		qmp(&p.then, "blockdev-del", map[string]any{"node-name": p.names.then})
		qmp(&p.inserted, "qom-set", property(p.drive.device, p.drive.node))
		qmp(&p.before, "blockdev-del", map[string]any{"node-name": p.names.before})
		qmp(&p.kept, "blockdev-del", map[string]any{"node-name": p.names.kept})
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
		s.dir = ""
	}
	err := errors.Join(errs...)
	if s.guard != nil {
		if err == nil {
			s.guard.Done()
		} else {
			err = errors.Join(err, s.guard.Abandon(ctx)) // it tries what is left
		}
		s.guard = nil
	}
	if err != nil {
		return fmt.Errorf("take down what serves the disks: %w", err)
	}
	return nil
}
