package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/vm"
)

// question is something that a guest's programs are asked. The first that works gives the
// answer.
type question struct {
	what   string
	asked  [][]string
	covers bool // all tables of sockets, whatever it lists
}

// questions are what a guest is asked: each thing by a program that interprets what the
// kernel says, and by one that only passes it on, so that it shows which of them lies.
var questions = []question{
	{what: "processes", asked: [][]string{{"ps", "-e"}, {"ps"}}},
	{what: "the folder of processes", asked: [][]string{{"ls", "-1", "/proc"}}},
	{what: "modules", asked: [][]string{{"lsmod"}}},
	{what: "the kernel's list of modules", asked: [][]string{{"cat", "/proc/modules"}}},
	{what: "the kernel's log", asked: [][]string{{"dmesg"}}},
	{what: "ports", asked: [][]string{{"ss", "-tuln"}, {"netstat", "-tuln"}}, covers: true},
	{what: "the kernel's tables of sockets", asked: [][]string{{"cat", "/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6"}}},
}

// folders are where programs are looked for: an agent may have no PATH.
var folders = []string{"/usr/bin/", "/bin/", "/usr/sbin/", "/sbin/"}

// askTime bounds all questions to a guest.
const askTime = 30 * time.Second

// Ask asks the guest's own programs, through an agent, what is there. What one of them does
// not answer is left out; it is an error only if nothing is answered.
func Ask(ctx context.Context, agent vm.Agent) (*Told, error) {
	return ask(ctx, agent, func(string, ...any) {})
}

// ask is [Ask], and says whom it asks.
func ask(ctx context.Context, agent vm.Agent, say func(format string, args ...any)) (*Told, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	told := &Told{}
	var failed []error
	for i, q := range questions {
		say("asking the guest's programs for %s (%d of %d)", q.what, i+1, len(questions))
		err := q.ask(ctx, agent, told)
		if err == nil {
			continue
		}
		var refused *vm.Error
		if errors.As(err, &refused) && refused.Kind != nil { // no other program will do better
			return nil, err
		}
		failed = append(failed, fmt.Errorf("%s: %w", q.what, err))
	}
	if len(told.Words) == 0 {
		return nil, fmt.Errorf("the guest's programs say nothing: %w", errors.Join(failed...))
	}
	return told, nil
}

// ask has one program after the other answer.
func (q question) ask(ctx context.Context, agent vm.Agent, told *Told) (err error) {
	for _, program := range q.asked {
		var out vm.AgentOutput
		if out, err = runProgram(ctx, agent, program); err != nil {
			continue
		}
		name := strings.Join(program, " ")
		if out.Truncated {
			err = fmt.Errorf("%s: the agent kept only the beginning of its output", name)
			continue
		}
		// A table that the kernel does not have (IPv6) makes cat fail, after the others.
		if err = told.Read(name, bytes.NewReader(out.Stdout), time.Time{}); err != nil {
			err = fmt.Errorf("%s: %w (exit status %d) %.200s", name, err, out.Status, bytes.TrimSpace(out.Stderr))
			continue
		}
		w := told.Words[len(told.Words)-1]
		if q.covers {
			w.coversAll()
		}
		return nil
	}
	return err
}

// runProgram runs a program from wherever the guest has it.
func runProgram(ctx context.Context, agent vm.Agent, program []string) (out vm.AgentOutput, err error) {
	for _, dir := range folders {
		const notFound = 127 // of a shell
		if out, err = agent.Run(ctx, dir+program[0], program[1:]...); err == nil && out.Status != notFound {
			return out, nil
		}
		var refused *vm.Error
		if errors.As(err, &refused) && refused.Kind != nil || ctx.Err() != nil {
			break
		}
	}
	return out, err
}
