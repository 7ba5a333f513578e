// Package microvm is the driver for Firecracker and Cloud Hypervisor, on x86-64.
//
// Neither reports where its guest's RAM is. It is found among the mappings of the process,
// and the guest-physical map is one of a few, to be proven against the guest's own page
// tables. docs/decisions/0004-microvms.md has the reasons.
package microvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/ram"
)

// The monitors, as [vm.Info] calls them.
const (
	firecracker     = "firecracker"
	cloudHypervisor = "cloud-hypervisor"
)

// Driver implements [vm.Driver].
type Driver struct{}

var _ vm.Driver = Driver{}

// Recognise implements [vm.Driver]: by the name of the program. Releases carry their
// version and architecture: firecracker-v1.10.1-x86_64, cloud-hypervisor-static.
func (Driver) Recognise(p proc.Process) (vm.Info, bool) {
	base := p.Base()
	for _, vmm := range []string{firecracker, cloudHypervisor} {
		if rest, ok := strings.CutPrefix(base, vmm); ok && (rest == "" || strings.HasPrefix(rest, "-v") || rest == "-static") {
			c := configOf(vmm, p)
			return vm.Info{Name: c.name, VMM: vmm, Accel: "kvm", Arch: hostArch(), RAM: c.ram, CPUs: c.cpus, Kernel: p.Path(c.kernel), Initrd: p.Path(c.initrd)}, true
		}
	}
	return vm.Info{}, false
}

// hostArch is the architecture of this host, and so of the guests of these monitors.
func hostArch() string {
	if runtime.GOARCH == "amd64" {
		return "x86_64"
	}
	return runtime.GOARCH
}

// found is what was found out of a machine.
type found struct {
	c       config
	api     *api // nil: none that answers
	answers answers
	maps    []proc.Map
	regions []region
}

// look finds out what can be known of the machine that runs as p, whose info is i. It
// fills in i.
func look(ctx context.Context, p proc.Process, i *vm.Info, mayAsk bool) (f found, err error) {
	f.c = configOf(i.VMM, p)
	if f.c.api != "" && mayAsk {
		f.api = &api{vmm: i.VMM, path: p.Path(f.c.api), pid: p.PID}
		if st, err := os.Stat(f.api.path); err != nil || st.Mode()&fs.ModeSocket == 0 {
			f.api = nil
		} else if f.answers, err = f.api.ask(ctx); err != nil {
			f.api = nil
		}
	}
	size := f.c.ram
	if f.answers.ram != 0 {
		size = f.answers.ram
	}
	if i.Name == "" {
		i.Name = f.answers.name
	}
	i.State, i.Version = f.answers.state, f.answers.version
	if i.CPUs = proc.CountFiles(p.PID, proc.KVMProcessor); i.CPUs == 0 {
		i.CPUs = max(f.answers.cpus, f.c.cpus)
	}
	if f.maps, err = proc.Maps(p.PID); err != nil {
		return f, err
	}
	files := make([]string, 0, len(f.c.files))
	for _, name := range f.c.files {
		files = append(files, p.Path(name))
	}
	var guess bool
	f.regions, guess = find(regions(f.maps, files), size, func() proc.Flags {
		flags, _ := proc.MapFlags(p.PID) // optional
		return flags
	})
	if guess && f.unused(p) {
		f.regions = nil // before it has a machine, a monitor has memory of its own only
	}
	if i.RAM = size; len(f.regions) == 0 {
		return f, ram.ErrNone
	}
	i.RAM = ram.Total(blocks(f.regions))
	return f, nil
}

// unused reports whether p has no machine yet.
func (f *found) unused(p proc.Process) bool {
	has, known := proc.HasFD(p.PID, proc.KVMMachine)
	return known && !has
}

// Survey implements [vm.Driver].
func (Driver) Survey(ctx context.Context, p proc.Process, i *vm.Info) {
	f, err := look(ctx, p, i, true)
	if err == nil {
		err = check(p, *i, f)
	}
	if err != nil {
		i.Source, i.Missing = vm.SourceNone, f.failed("", p, *i, err).Why
		return
	}
	i.Source = vm.SourcePrivate
	if ram.Shared(f.maps, blocks(f.regions)) {
		i.Source = vm.SourceShared
	}
	if f.api == nil {
		i.Missing = "no API socket that answers: the run state is unavailable, and --pause stops its process"
	}
}

// check is nil if a machine that was found can be read.
func check(p proc.Process, i vm.Info, f found) error {
	if i.Arch != "x86_64" {
		return fmt.Errorf("it is a machine of another architecture, %s", i.Arch)
	}
	if ram.Shared(f.maps, blocks(f.regions)) {
		return nil
	}
	return proc.CheckMem(p.PID)
}

// Open implements [vm.Driver].
func (Driver) Open(ctx context.Context, p proc.Process, i vm.Info, opts vm.Options) (*vm.Machine, error) {
	m := &vm.Machine{Info: i}
	what := "open " + i.Title()
	f, err := look(ctx, p, &m.Info, !opts.NoQMP)
	if err == nil {
		err = check(p, m.Info, f)
	}
	if err != nil {
		return nil, f.failed(what, p, m.Info, err)
	}
	var sizes []uint64
	for _, r := range f.regions {
		sizes = append(sizes, r.size())
	}
	var why error
	m.Memory, m.Source, why, err = ram.Open(p.PID, f.maps, blocks(f.regions), opts.NoMap, layouts(i.VMM, sizes, f.regions[0].inode == 0))
	if err != nil {
		return nil, f.failed(what, p, m.Info, err)
	}
	// The pid may have been given to another process on the way.
	if now, err := proc.Get(p.PID); err != nil || now.Started != p.Started {
		m.Close()
		return nil, f.failed(what, p, m.Info, phys.ErrGone)
	}
	if why != nil {
		m.Notes = append(m.Notes, "the RAM is shared but cannot be mapped, so it is read more slowly: "+why.Error())
	}
	c := &control{p: p, info: m.Info, api: f.api}
	m.Control = vm.Control{Pauser: c, Stater: c, Events: vm.ExitEvents{Process: p}}
	return m, nil
}

// failed is the sentence for a machine that cannot be read.
func (f *found) failed(what string, p proc.Process, i vm.Info, err error) *vm.Error {
	e := ram.AccessError(what, p, i, err)
	switch {
	case errors.Is(err, ram.ErrNone) && f.unused(p):
		e.Kind, e.Why, e.Do = vm.ErrNotStarted, "the machine has not been started yet", "start it and try again"
	case errors.Is(err, ram.ErrNone):
		e.Do = "take a snapshot and open its memory file"
	case i.Arch != "x86_64":
		e.Kind, e.Do = vm.ErrUnsupported, "only x86_64 can be read for now"
	}
	return e
}
