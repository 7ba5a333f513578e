package main

import (
	"bytes"
	"context"
	"strings"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/vm"
)

// agentOf is what runs programs in a guest: its QEMU guest agent, or that of a lab guest.
func agentOf(m *vm.Machine, target string) (vm.Agent, error) {
	if m.Control.Agent != nil {
		return m.Control.Agent, nil
	}
	if name, ok := strings.CutPrefix(target, "lab:"); ok {
		g, err := lab.Open(name)
		if err != nil {
			return nil, err
		}
		return labAgent{g}, nil
	}
	e := &vm.Error{Kind: vm.ErrUnsupported, What: "ask the guest's programs", Why: "the machine has no port for a QEMU guest agent"}
	e.Do = `give it one (a virtserialport named org.qemu.guest_agent.0), or write the output of ps -e, lsmod and ss -tuln to files in the guest and give them to --told`
	if !m.Live() {
		e.Why, e.Do = "a dump runs no programs", "give --told files with the output of ps -e, lsmod and ss -tuln, written in the guest before the dump was taken"
	}
	return nil, e
}

// labAgent is the agent of a guest of the lab.
type labAgent struct{ guest *lab.Guest }

// Run implements [vm.Agent].
func (a labAgent) Run(ctx context.Context, program string, args ...string) (vm.AgentOutput, error) {
	var out, errs bytes.Buffer
	status, err := a.guest.Exec(ctx, lab.Command{Shell: shellQuote(append([]string{program}, args...)), Stdout: &out, Stderr: &errs})
	return vm.AgentOutput{Stdout: out.Bytes(), Stderr: errs.Bytes(), Status: status}, err
}
