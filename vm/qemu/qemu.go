// Package qemu is the driver for QEMU of any flavour: plain, libvirt, Proxmox,
// Incus.
//
// It finds machines by their processes, where their RAM lies by QMP, and where
// there is no usable QMP socket by the command line and the address space of the
// process; the guest-physical map is then a guess, to be proven against the
// guest's own page tables.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/qga"
	"github.com/outsight-vmi/outsight/vm/qmp"
	"github.com/outsight-vmi/outsight/vm/ram"
)

// How long a machine that was not named by its QMP socket may take to greet. It
// is read without QMP then.
const (
	patience     = time.Second
	patienceBusy = 300 * time.Millisecond // somebody is connected already: for longer than another outsight lingers
	patienceAll  = 5 * time.Second        // for all that it is asked
)

// Driver implements [vm.SocketDriver].
type Driver struct{}

var _ vm.SocketDriver = Driver{}

// Recognise implements [vm.Driver].
func (Driver) Recognise(p proc.Process) (vm.Info, bool) {
	if len(p.Args) < 2 {
		return vm.Info{}, false
	}
	arch, ok := isQEMU(p.Base())
	if !ok {
		return vm.Info{}, false
	}
	if arch == "" {
		arch, _ = isQEMU(p.Args[0])
	}
	c := configOf(p)
	i := vm.Info{
		Name: c.name, Alias: c.alias(), VMM: "qemu", Arch: arch, Accel: c.accel, Machine: c.machine,
		RAM: c.total(), CPUs: c.cpus, Kernel: p.Path(c.kernel), Initrd: p.Path(c.initrd),
	}
	for _, s := range c.sockets() {
		if path := p.Path(s); isSocket(path) {
			i.QMP = path
			break
		}
	}
	if path := p.Path(c.plugin); c.plugin != "" && isSocket(path) {
		i.Plugin = path
	}
	return i, true
}

func isSocket(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&fs.ModeSocket != 0
}

// agentOf is the guest agent of p; nil: it has no port for one. Whether one answers is
// known when it is asked.
func agentOf(p proc.Process) vm.Agent {
	c := configOf(p)
	if s := c.chardevs[c.agent]; s != "" {
		if path := p.Path(s); isSocket(path) {
			return qga.Socket{Path: path}
		}
	}
	return nil
}

// configOf is what the command line of p says, with the files it includes.
func configOf(p proc.Process) *config {
	c := parseCommandLine(p.Args[1:])
	for _, name := range c.readFiles {
		f, err := os.Open(p.Path(name))
		if err != nil {
			continue
		}
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			c.readConfig(f)
		}
		f.Close()
	}
	return c
}

// Survey implements [vm.Driver].
func (d Driver) Survey(ctx context.Context, p proc.Process, i *vm.Info) {
	d.SurveyProcess(p, i)
	if i.QMP == "" {
		i.State = vm.StateUnknown
		if i.Missing == "" {
			i.Missing = "no QMP socket: run state and registers are unavailable, and the memory map is a guess"
		}
		return
	}
	client, err := dial(ctx, i.QMP)
	if err != nil {
		if i.Missing == "" {
			i.Missing = qmpError("", i.QMP, p.PID, err).Why
		}
		return
	}
	defer client.Close()
	i.Version = client.Version
	if i.State, err = state(ctx, client); err != nil && i.Missing == "" {
		i.Missing = qmpError("", i.QMP, p.PID, err).Why
	}
}

// checkAccess is nil if a machine that would be read as i says can be.
func checkAccess(what string, p proc.Process, i vm.Info) *vm.Error {
	if err := checkArch(what, i); err != nil {
		return err
	}
	_, err := proc.Maps(p.PID)
	if err == nil && i.Source == vm.SourcePrivate {
		err = proc.CheckMem(p.PID)
	}
	if err != nil {
		return accessError(what, p, i, err)
	}
	return nil
}

func checkArch(what string, i vm.Info) *vm.Error {
	if i.Arch == "" || i.Arch == "x86_64" {
		return nil
	}
	return &vm.Error{
		Kind: vm.ErrUnsupported, What: what,
		Why: "it is a machine of another architecture, " + i.Arch, Do: "only x86_64 can be read for now",
	}
}

// dial connects to a QMP socket that is optional.
func dial(ctx context.Context, path string) (*qmp.Client, error) {
	wait := patience
	if qmp.InUse(path) {
		wait = patienceBusy
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return qmp.Dial(ctx, path)
}

// accel is the accelerator that p really uses: the command line says which ones
// to try.
func accel(p proc.Process, said string) string {
	has, known := proc.HasFD(p.PID, proc.KVMMachine)
	switch {
	case has:
		return "kvm"
	case known && (said == "" || said == "kvm"):
		return "tcg"
	}
	return said
}

// Open implements [vm.Driver].
func (d Driver) Open(ctx context.Context, p proc.Process, i vm.Info, opts vm.Options) (*vm.Machine, error) {
	m := &vm.Machine{Info: i}
	if i.QMP == "" || opts.NoQMP {
		if i.QMP == "" {
			m.Notes = append(m.Notes, "it has no QMP socket: the memory map is a guess")
		}
		m.Control.Events = vm.ExitEvents{Process: p}
		if err := d.open(p, m, nil, opts); err != nil {
			return nil, err
		}
		return m, nil
	}
	c, err := dial(ctx, i.QMP)
	var t *answers
	if err == nil {
		t, err = query(ctx, c)
	}
	if err != nil {
		m.Notes = append(m.Notes, qmpError("ask QEMU", i.QMP, 0, err).Why+": the memory map is a guess")
		m.Control.Events = vm.ExitEvents{Process: p}
	} else { // else each use of it would wait for nothing
		m.Control = controlOf(newMonitor(i.QMP, p.PID, c))
	}
	if err := d.open(p, m, t, opts); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// query asks over c, and closes it where that fails.
func query(ctx context.Context, c *qmp.Client) (*answers, error) {
	ctx, cancel := context.WithTimeout(ctx, patienceAll)
	defer cancel()
	t, err := ask(ctx, c)
	if err != nil {
		c.Close()
		return nil, err
	}
	t.version = c.Version
	return &t, nil
}

// OpenSocket implements [vm.SocketDriver].
func (d Driver) OpenSocket(ctx context.Context, path string, opts vm.Options, find func() ([]vm.HostMachine, error)) (*vm.Machine, error) {
	what := "open qemu:" + path
	c, err := qmp.Dial(ctx, path)
	if err != nil {
		return nil, qmpError(what, path, ownerOf(path, find), err)
	}
	p, i, err := d.behind(c, path, find)
	if err != nil {
		c.Close()
		return nil, err
	}
	t, err := query(ctx, c)
	if err != nil {
		return nil, qmpError(what, path, p.PID, err)
	}
	i.QMP = path
	m := &vm.Machine{Info: i, Control: controlOf(newMonitor(path, p.PID, c))}
	if err := d.open(p, m, t, opts); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// behind is the process at the other end of c.
func (d Driver) behind(c *qmp.Client, path string, find func() ([]vm.HostMachine, error)) (proc.Process, vm.Info, error) {
	if c.PID != 0 {
		if p, err := proc.Get(c.PID); err == nil {
			if i, ok := d.Recognise(p); ok {
				return p, vm.Complete(i, p, d), nil
			}
		}
	}
	// The listening end may have been made by another process (libvirt hands it
	// over), or in another PID namespace: look for the path.
	found, err := find()
	for _, f := range found {
		if sameFile(f.Info.QMP, path) {
			return f.Process, f.Info, nil
		}
	}
	return proc.Process{}, vm.Info{}, &vm.Error{
		Kind: vm.ErrNotVM, What: "open qemu:" + path, Err: err,
		Why: fmt.Sprintf("it speaks QMP, but the process that listens there (pid %d) is not a QEMU system emulator that this user can see", c.PID),
		Do:  "run on the same host as QEMU, as root",
	}
}

// ownerOf is the pid of the machine with a QMP socket at path, for a hint.
func ownerOf(path string, find func() ([]vm.HostMachine, error)) int {
	found, _ := find()
	for _, f := range found {
		if sameFile(f.Info.QMP, path) {
			return f.Process.PID
		}
	}
	return 0
}

func sameFile(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// open gives m its memory. t is nil when QEMU said nothing.
func (d Driver) open(p proc.Process, m *vm.Machine, t *answers, opts vm.Options) error {
	what := "open " + m.Title()
	if err := checkArch(what, m.Info); err != nil {
		return err
	}
	maps, err := proc.Maps(p.PID)
	if err != nil {
		return accessError(what, p, m.Info, err)
	}
	m.Accel = accel(p, m.Accel)
	var blocks []ram.Block
	var layouts []phys.Layout
	if t != nil {
		m.State, m.Version, m.Proven, m.Registers = t.state, t.version, true, t.cpus
		blocks, layouts = t.blocks, []phys.Layout{t.layout}
	} else {
		c := configOf(p)
		if blocks, err = findRAM(maps, c); err != nil {
			return accessError(what, p, m.Info, err)
		}
		layouts = c.layouts(blocks)
		if n := c.pluggedNote(maps, blocks); n != "" {
			m.Notes = append(m.Notes, n)
		}
	}
	var why error
	m.Memory, m.Source, why, err = ram.Open(p.PID, maps, blocks, opts.NoMap, layouts)
	if err != nil {
		return accessError(what, p, m.Info, err)
	}
	// The pid may have been given to another process on the way.
	if now, err := proc.Get(p.PID); err != nil || now.Started != p.Started {
		m.Close()
		return accessError(what, p, m.Info, phys.ErrGone)
	}
	if why != nil {
		m.Notes = append(m.Notes, "the RAM is shared but cannot be mapped, so it is read more slowly: "+why.Error())
	}
	m.RAM = ram.Total(blocks)
	m.Control.Agent = agentOf(p)
	return nil
}

func sizes(blocks []ram.Block) (s []uint64) {
	for _, b := range blocks {
		s = append(s, b.Size)
	}
	return s
}

// accessError is [ram.AccessError], with what helps with a QEMU.
func accessError(what string, p proc.Process, i vm.Info, err error) *vm.Error {
	e := ram.AccessError(what, p, i, err)
	if errors.Is(err, ram.ErrNone) {
		e.Do = "free its QMP socket, or give it one, so that QEMU can be asked"
	}
	return e
}
