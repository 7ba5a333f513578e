package check

import (
	"context"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/virt"
)

// holdings are what the kernel has at one look, of the kinds that programs ask for: by all ways that lead there, not only
// by the one on which it answers.
type holdings struct {
	processes  map[taskKey]*heldProcess
	modules    map[virt.Addr]heldModule
	sockets    map[socketKey]*network.Socket
	interfaces map[heldInterface]bool
	namespaces map[virt.Addr]bool // of networks
	bpf        map[heldBPF]string
	errs       []error // what could not be read
}

// heldProcess is a process with its numbers in all PID namespaces that it is in.
type heldProcess struct {
	taskKey
	comm    string
	numbers map[virt.Addr]int32 // by struct pid_namespace
}

type socketKey struct {
	addr  virt.Addr
	inode uint64
	state uint8
}

// heldModule is a module, with the number of its folder in sysfs: one that is loaded again may get the same place.
type heldModule struct {
	name   string
	number uint64
}

type heldInterface struct {
	addr, net virt.Addr
	name      string
	index     uint64 // is not given again soon
}

type heldBPF struct {
	objects string // as in a reading
	addr    virt.Addr
	id      uint32
}

// holdingsLayout is where members of the structures lie that objects are told apart by.
type holdingsLayout struct {
	started, thread            kobj.Field // of task_struct
	level, numbers, number, ns kobj.Field // of pid, upid
	upidSize                   uint32
	registered, index          kobj.Field // of net_device
	folder, folderID           kobj.Field // of module, kernfs_node
}

func holdingsLayoutOf(s *Subject) (*holdingsLayout, error) {
	return kobj.LayoutOf(s.Linux.Walker, "what programs ask for", func(r *kobj.Resolver, o *holdingsLayout) {
		o.started = r.Field("task_struct", "start_boottime", "real_start_time") // renamed in 5.5
		o.thread = r.Field("task_struct", "thread_pid")
		o.level, o.numbers = r.Field("pid", "level"), r.Field("pid", "numbers")
		o.number, o.ns, o.upidSize = r.Field("upid", "nr"), r.Field("upid", "ns"), r.Size("upid")
		o.registered, o.index = r.Field("net_device", "reg_state"), r.Field("net_device", "ifindex")
		o.folder, o.folderID = r.Optional("module", "mkobj.kobj.sd"), r.Optional("kernfs_node", "id")
	})
}

// hold reads what the kernel has.
func hold(ctx context.Context, s *Subject) *holdings {
	h := &holdings{
		processes: map[taskKey]*heldProcess{}, modules: map[virt.Addr]heldModule{}, sockets: map[socketKey]*network.Socket{},
		interfaces: map[heldInterface]bool{}, namespaces: map[virt.Addr]bool{}, bpf: map[heldBPF]string{},
	}
	o, err := holdingsLayoutOf(s)
	if err != nil {
		h.failed("what programs ask for", err)
		return h
	}
	h.holdProcesses(s, o)
	h.holdModules(ctx, s, o)
	h.holdSockets(s)
	h.holdInterfaces(ctx, s, o)
	h.holdBPF(ctx, s)
	return h
}

func (h *holdings) failed(what string, err error) {
	var shared partError
	if err != nil && !errors.Is(err, kobj.ErrUnsupported) && !errors.As(err, &shared) {
		h.errs = append(h.errs, fmt.Errorf("%s: %w", what, err))
	}
}

const maxPIDLevel = 32 // MAX_PID_NS_LEVEL

func (h *holdings) holdProcesses(s *Subject, o *holdingsLayout) {
	all, err := s.Tasks()
	if err != nil {
		h.failed("processes", err)
		return
	}
	r := s.Linux.Reader()
	for _, t := range all.all {
		if !t.leads() || t.pid == 0 || t.ended {
			continue
		}
		r.Err = nil
		p := &heldProcess{taskKey: taskKey{t.addr, t.pid, r.Uint(t.addr, o.started)}, comm: t.comm, numbers: map[virt.Addr]int32{}}
		pid := r.Pointer(t.addr, o.thread)
		if r.Err != nil || pid == 0 {
			continue // it is just being reaped
		}
		for level := range min(uint32(r.Uint(pid, o.level)), maxPIDLevel) + 1 {
			upid := o.numbers.At(pid) + virt.Addr(level*o.upidSize)
			p.numbers[r.Pointer(upid, o.ns)] = int32(r.Uint(upid, o.number))
		}
		if r.Err == nil {
			h.processes[p.taskKey] = p
		}
	}
}

func (h *holdings) holdModules(ctx context.Context, s *Subject, o *holdingsLayout) {
	ways, errs := moduleWays(ctx, s)
	for _, err := range errs {
		h.failed("modules", err)
	}
	for _, m := range ways.objects() {
		name, state, err := moduleState(s, m)
		if err != nil || state != moduleLive {
			continue
		}
		held := heldModule{name: name}
		if o.folder.Present() && o.folderID.Present() {
			r := s.Linux.Reader()
			if folder := r.Pointer(m, o.folder); folder != 0 { // 0: kobject_del, by a module that hides
				held.number = r.Uint(folder, o.folderID)
			}
		}
		h.modules[m] = held
	}
}

func (h *holdings) holdSockets(s *Subject) {
	ks, err := s.Sockets()
	if err != nil {
		h.failed("sockets", err)
		return
	}
	for _, k := range ks.all {
		// Those that were not accepted yet have no number.
		if k.Inode != 0 && (k.SeenIn&network.SeenInTable != 0 && k.Protocol != "tcp" || inTables(k)) {
			h.sockets[socketKey{k.Addr, k.Inode, k.State}] = k
		}
	}
}

func (h *holdings) holdInterfaces(ctx context.Context, s *Subject, o *holdingsLayout) {
	names, r := network.NewDeviceNames(s.Linux), s.Linux.Reader()
	for n, err := range network.Namespaces(ctx, s.Linux) {
		if err != nil {
			h.failed("interfaces", err)
			return
		}
		h.namespaces[n.Addr] = true
		for dev, err := range network.DeviceAddrs(ctx, s.Linux, n) {
			if err != nil {
				h.failed("interfaces", err)
				break
			}
			const mask = 0xff // it is a bit field of 8 up to 6.8
			if r.Err = nil; r.Uint(dev, o.registered)&mask == registered && r.Err == nil {
				h.interfaces[heldInterface{dev, n.Addr, names.Name(dev), r.Uint(dev, o.index)}] = true
			}
		}
	}
}

func (h *holdings) holdBPF(ctx context.Context, s *Subject) {
	for p, err := range bpf.Programs(ctx, s.Linux) {
		if err != nil {
			h.failed("BPF programs", err)
			break
		}
		if p.Refs > 0 {
			h.bpf[heldBPF{"prog", p.Addr, p.ID}] = p.Name
		}
	}
	for m, err := range bpf.Maps(ctx, s.Linux) {
		if err != nil {
			h.failed("BPF maps", err)
			break
		}
		h.bpf[heldBPF{"map", m.Addr, m.ID}] = m.Name
	}
	for l, err := range bpf.Links(ctx, s.Linux) {
		if err != nil {
			h.failed("BPF links", err)
			break
		}
		h.bpf[heldBPF{"link", l.Addr, l.ID}] = ""
	}
}
