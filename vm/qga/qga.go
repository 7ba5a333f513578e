// Package qga runs programs in a guest through the QEMU guest agent, qemu-ga, which many
// images have (docs/interop/qemu-ga-ref in QEMU). It answers over a virtio-serial port: a
// socket of QEMU's, or what a daemon like libvirt passes on.
package qga

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// Port is the name of the agent's virtio-serial port, by which machines give it one.
const Port = "org.qemu.guest_agent.0"

// ErrSilent says that the machine has a port for an agent, and none answers.
var ErrSilent = errors.New("the guest agent does not answer")

// Asker passes a command to the agent and decodes its answer into result. A refusal of the
// agent's is a [*qmp.CommandError].
type Asker interface {
	Ask(ctx context.Context, c *qmp.Command) error
}

// maxOutput bounds what a program may write, in bytes. The agent itself stops at 16 MiB
// (GUEST_EXEC_MAX_OUTPUT).
const maxOutput = 32 << 20

// How often the agent is asked whether a program has ended: soon at first.
const (
	firstPoll = 5 * time.Millisecond
	lastPoll  = 200 * time.Millisecond
)

// status is the answer to guest-exec-status.
type status struct {
	Exited bool   `json:"exited"`
	Code   int    `json:"exitcode"`
	Signal int    `json:"signal"`
	Out    []byte `json:"out-data"` // base64
	Err    []byte `json:"err-data"`
	OutCut bool   `json:"out-truncated"`
	ErrCut bool   `json:"err-truncated"`
}

// Run runs a program of the guest, as [vm.Agent] has it.
func Run(ctx context.Context, a Asker, program string, args ...string) (out vm.AgentOutput, err error) {
	what := fmt.Sprintf("run %s in the guest", program)
	var started struct {
		PID int64 `json:"pid"`
	}
	start := struct {
		Path    string   `json:"path"`
		Args    []string `json:"arg,omitempty"`
		Capture bool     `json:"capture-output"`
	}{program, args, true}
	if err := a.Ask(ctx, &qmp.Command{Name: "guest-exec", Args: start, Result: &started}); err != nil {
		return out, explain(what, err)
	}
	for wait := firstPoll; ; wait = min(2*wait, lastPoll) {
		var s status
		if err := a.Ask(ctx, &qmp.Command{Name: "guest-exec-status", Args: map[string]int64{"pid": started.PID}, Result: &s}); err != nil {
			return out, explain(what, err)
		}
		if s.Exited {
			out = vm.AgentOutput{Stdout: s.Out, Stderr: s.Err, Status: s.Code, Truncated: s.OutCut || s.ErrCut}
			if s.Signal != 0 {
				out.Status = 128 + s.Signal
			}
			return out, nil
		}
		select {
		case <-ctx.Done():
			return out, explain(what, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// explain is the sentence for what went wrong.
func explain(what string, err error) error {
	e := &vm.Error{What: what, Err: err, Why: err.Error()}
	var refused *qmp.CommandError
	var known *vm.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &refused) && (refused.Class == "CommandNotFound" || refused.Class == "CommandDisabled"):
		e.Kind, e.Why = vm.ErrUnsupported, "the guest agent may not run programs: "+refused.Desc
		e.Do = "allow guest-exec where the agent is configured (/etc/qemu/qemu-ga.conf, or /etc/sysconfig/qemu-ga)"
	case errors.As(err, &refused):
		e.Why = "the guest agent refuses: " + refused.Desc
	case errors.Is(err, ErrSilent), errors.Is(err, context.DeadlineExceeded):
		e.Kind, e.Why = vm.ErrBusy, ErrSilent.Error()
		e.Do = "see whether qemu-guest-agent is installed and runs in the guest, and the guest is not paused"
	}
	return e
}
