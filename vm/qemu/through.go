package qemu

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// Commander runs commands of QEMU's monitor: a [qmp.Client], or a daemon that has the
// monitor and passes commands on to it.
type Commander interface {
	// ExecuteAll is as that of [qmp.Client].
	ExecuteAll(ctx context.Context, commands ...*qmp.Command) error
}

// MonitorAnswers are what QEMU said about its machine.
type MonitorAnswers struct{ answers answers }

// Ask asks QEMU through c for its version, the run state, the memory map and the registers.
func Ask(ctx context.Context, c Commander) (*MonitorAnswers, error) {
	ctx, cancel := context.WithTimeout(ctx, patienceAll)
	defer cancel()
	var v version
	if err := c.ExecuteAll(ctx, v.query()); err != nil {
		return nil, err
	}
	t, err := ask(ctx, c)
	if err != nil {
		return nil, err
	}
	t.version = v.String()
	return &MonitorAnswers{t}, nil
}

// OpenWith opens the machine that runs as p, recognised as i, with what QEMU said about
// it. With nil answers the memory map is a guess.
func (d Driver) OpenWith(p proc.Process, i vm.Info, a *MonitorAnswers, opts vm.Options) (*vm.Machine, error) {
	m := &vm.Machine{Info: i}
	var t *answers
	if a != nil {
		t = &a.answers
	}
	if err := d.open(p, m, t, opts); err != nil {
		return nil, err
	}
	return m, nil
}

// SurveyProcess completes i for a list with what the process alone shows.
func (Driver) SurveyProcess(p proc.Process, i *vm.Info) {
	c := configOf(p)
	i.Accel = accel(p, i.Accel)
	i.Source = vm.SourcePrivate
	if c.shared() {
		i.Source = vm.SourceShared
	}
	if err := checkAccess("", p, *i); err != nil {
		i.Source, i.Missing = vm.SourceNone, err.Why
	}
}

// EventOf is an event of QEMU's, however it arrived.
func EventOf(e qmp.Event) vm.Event { return eventOf(e) }

// State asks through c for the run state.
func State(ctx context.Context, c Commander) (vm.State, error) { return state(ctx, c) }

// Registers asks through c for the registers of every CPU.
func Registers(ctx context.Context, c Commander) ([]vm.Registers, error) {
	var out string
	err := c.ExecuteAll(ctx, qmp.HMP(infoRegisters, &out))
	regs := parseRegisters(out)
	if err == nil && len(regs) == 0 {
		err = fmt.Errorf("QEMU shows no registers: %.80q", out)
	}
	return regs, err
}

// version is QEMU's answer to query-version.
type version struct {
	QEMU struct{ Major, Minor, Micro int } `json:"qemu"`
}

func (v *version) query() *qmp.Command { return &qmp.Command{Name: "query-version", Result: v} }

func (v *version) String() string {
	return fmt.Sprintf("%d.%d.%d", v.QEMU.Major, v.QEMU.Minor, v.QEMU.Micro)
}
