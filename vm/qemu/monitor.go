package qemu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/qmp"
	"github.com/outsight-vmi/outsight/vm/ram"
)

// answers is what QEMU itself says about its machine.
type answers struct {
	version string
	state   vm.State
	blocks  []ram.Block // RAM in QEMU's address space, one after the other
	layout  phys.Layout
	cpus    []vm.Registers
}

// ask asks for state, memory map and registers, in as few round trips as will do: each
// costs a wake-up of QEMU's main loop.
func ask(ctx context.Context, c Commander) (t answers, err error) {
	var status status
	var devs []struct {
		ID   string `json:"id"`
		Size uint64 `json:"size"`
	}
	var mtree, first, registers string
	err = c.ExecuteAll(ctx, status.query(), &qmp.Command{Name: "query-memdev", Result: &devs},
		qmp.HMP("info mtree -f", &mtree), askHVA(0, &first), qmp.HMP(infoRegisters, &registers))
	// Registers come last: a processor that is stuck in its host does not show them.
	if err != nil && first == "" {
		return t, err
	}
	t.state, t.cpus = status.Status, parseRegisters(registers)
	sizes := map[string]uint64{}
	for _, d := range devs {
		sizes[d.ID[strings.LastIndexByte(d.ID, '/')+1:]] = d.Size
	}
	rows := parseMtree(mtree, sizes)
	if len(rows) == 0 {
		return t, errors.New("QEMU shows no RAM in its memory map (info mtree -f)")
	}
	var order []string
	for _, r := range rows {
		if slices.Contains(order, r.name) {
			continue
		}
		// A row of plain RAM begins there, so QEMU can say where it has it.
		out := first
		if r.start != 0 {
			if err := c.ExecuteAll(ctx, askHVA(r.start, &out)); err != nil {
				return t, err
			}
		}
		at, ok := parseHVA(out)
		if !ok || at < r.offset {
			return t, fmt.Errorf("QEMU does not say where it has RAM block %s: %.80q", r.name, out)
		}
		order = append(order, r.name)
		t.blocks = append(t.blocks, ram.Block{HVA: at - r.offset, Size: sizes[r.name]})
	}
	t.layout = layout(rows, order, sizes)
	return t, nil
}

// askHVA asks where QEMU has guest-physical address gpa in its own address space.
func askHVA(gpa uint64, out *string) *qmp.Command {
	return qmp.HMP(fmt.Sprintf("gpa2hva %#x", gpa), out)
}

// infoRegisters is the human monitor's command for what [parseRegisters] reads.
const infoRegisters = "info registers -a"

// status is QEMU's answer to query-status.
type status struct {
	Status vm.State `json:"status"`
}

func (s *status) query() *qmp.Command { return &qmp.Command{Name: "query-status", Result: s} }

func state(ctx context.Context, c Commander) (vm.State, error) {
	var s status
	err := c.ExecuteAll(ctx, s.query())
	return s.Status, err
}

// State implements [vm.Stater].
func (m *monitor) State(ctx context.Context) (s vm.State, err error) {
	err = m.with(ctx, "ask for the run state", func(c *qmp.Client) error {
		s, err = state(ctx, c)
		return err
	})
	return s, err
}

// Registers implements [vm.RegisterReader].
func (m *monitor) Registers(ctx context.Context) (regs []vm.Registers, err error) {
	err = m.with(ctx, "read the registers", func(c *qmp.Client) error {
		regs, err = Registers(ctx, c)
		return err
	})
	return regs, err
}

// QMP implements [vm.Monitor].
func (m *monitor) QMP(ctx context.Context, command string, args, result any) error {
	return m.with(ctx, "run "+command, func(c *qmp.Client) error { return c.Execute(ctx, command, args, result) })
}

// HMP implements [vm.Monitor].
func (m *monitor) HMP(ctx context.Context, line string) (out string, err error) {
	err = m.with(ctx, fmt.Sprintf("run %q", line), func(c *qmp.Client) error {
		out, err = c.HMP(ctx, line)
		return err
	})
	return out, err
}

// controlOf is what m can do.
func controlOf(m *monitor) vm.Control {
	return vm.Control{Pauser: m, Stater: m, Registers: m, Events: m, Monitor: m, Closer: m}
}

// qmpError is the sentence for what went wrong with the socket at path. pid is
// its QEMU's, where it is known.
func qmpError(what, path string, pid int, err error) *vm.Error {
	e := &vm.Error{What: what, Err: err}
	use := "use pid:N (outsight vms shows N), which needs no QMP"
	if pid != 0 {
		use = fmt.Sprintf("use pid:%d, which needs no QMP", pid)
	}
	switch {
	case errors.Is(err, qmp.ErrBusy):
		e.Kind, e.Why, e.Do = vm.ErrBusy, qmp.ErrBusy.Error(), use
	case errors.Is(err, qmp.ErrStale):
		e.Kind, e.Why, e.Do = vm.ErrGone, qmp.ErrStale.Error(), "remove "+path+" or start the machine again"
	case errors.Is(err, qmp.ErrNotQMP):
		e.Kind, e.Why = vm.ErrNotQMP, strings.TrimPrefix(err.Error(), "qmp "+path+": ")
		e.Do = "give the socket of -qmp, not that of a console, a human monitor or another program"
	case errors.Is(err, qmp.ErrTimeout):
		e.Kind, e.Why, e.Do = vm.ErrBusy, "QEMU greeted on its QMP socket and then stopped answering", use
	case errors.Is(err, qmp.ErrClosed):
		e.Kind, e.Why, e.Do = vm.ErrGone, "QEMU closed the QMP connection: it is shutting down", "start the machine again"
	case ram.IsPermission(err):
		e.Kind, e.Why, e.Do = vm.ErrPermission, "this user may not connect to "+path, "run as the machine's user or root"
	default:
		e.Why = err.Error()
	}
	return e
}
