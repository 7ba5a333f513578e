package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

// Command is one command of [Client.ExecuteAll].
type Command struct {
	Name   string
	Args   any // nil: none
	Result any // what it returns is decoded into it; nil: dropped
}

// HMP is the command of the human monitor whose output is stored in out. See [Client.HMP].
func HMP(command string, out *string) *Command {
	return &Command{Name: "human-monitor-command", Args: map[string]string{"command-line": command}, Result: out}
}

// HMP runs a command of the human monitor and returns what it prints, which may
// be a complaint: the human monitor has no errors.
func (c *Client) HMP(ctx context.Context, command string) (string, error) {
	var out string
	if err := c.ExecuteAll(ctx, HMP(command, &out)); err != nil {
		return "", fmt.Errorf("hmp %q: %w", command, err)
	}
	return out, nil
}

// Execute runs a command with args (nil: none) and decodes what it returns into
// result (nil: dropped). The error is a [*CommandError] when QEMU refused. After
// [ErrTimeout] and a cancelled ctx QEMU may still carry the command out; unless it was
// in the middle of a line, more can be sent, which it does afterwards.
func (c *Client) Execute(ctx context.Context, command string, args, result any) error {
	return c.ExecuteAll(ctx, &Command{Name: command, Args: args, Result: result})
}

// ExecuteAll runs commands, one after the other, in one round trip: each would cost a
// wake-up of QEMU's main loop. It ends with the first error, which is as that of
// [Client.Execute]; QEMU carries those after it out all the same.
func (c *Client) ExecuteAll(ctx context.Context, commands ...*Command) error {
	if len(commands) == 0 {
		return nil
	}
	caller := ctx
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, CommandTimeout)
		defer cancel()
	}
	deadline, _ := ctx.Deadline()
	answers, err := c.submit(deadline, commands)
	at := commands[0]
	for n := 0; err == nil && n < len(commands); n++ {
		at = commands[n]
		var a answer
		if a, err = c.await(ctx, answers); err == nil {
			at = a.command
			err = a.decode()
		}
	}
	var refused *CommandError
	switch {
	case err == nil, errors.As(err, &refused):
		return err
	case errors.Is(caller.Err(), context.Canceled):
		err = caller.Err()
	}
	return fmt.Errorf("%s: %w", at.Name, err)
}

// pending is a command that was sent and not answered yet.
type pending struct {
	id      uint64
	command *Command
	to      chan<- answer // has room for it
}

// answer is what QEMU said to a command.
type answer struct {
	command *Command
	message message
}

func (a answer) decode() error {
	switch {
	case a.message.Error != nil:
		a.message.Error.Command = a.command.Name
		return a.message.Error
	case a.command.Result == nil:
		return nil
	}
	if err := json.Unmarshal(a.message.Return, a.command.Result); err != nil {
		return fmt.Errorf("unexpected answer: %w", err)
	}
	return nil
}

// submit sends commands in one piece. Their answers come over the channel.
func (c *Client) submit(deadline time.Time, commands []*Command) (<-chan answer, error) {
	c.send.Lock()
	defer c.send.Unlock()
	answers := make(chan answer, len(commands))
	calls := make([]pending, 0, len(commands))
	var all []byte
	for _, cmd := range commands {
		c.id++
		req, err := json.Marshal(struct {
			Execute   string `json:"execute"`
			Arguments any    `json:"arguments,omitempty"`
			ID        uint64 `json:"id"`
		}{cmd.Name, cmd.Args, c.id})
		if err != nil {
			return nil, err
		}
		calls = append(calls, pending{c.id, cmd, answers})
		all = append(append(all, req...), '\n')
	}
	c.mu.Lock()
	err := c.err
	if err == nil {
		c.waiting = append(c.waiting, calls...)
	}
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	_ = c.conn.SetWriteDeadline(deadline)
	if _, err := c.conn.Write(all); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = ErrTimeout
		}
		return nil, c.fail(ioError(err)) // half a command may have been written
	}
	return answers, nil
}

// await waits for the next answer.
func (c *Client) await(ctx context.Context, answers <-chan answer) (answer, error) {
	select {
	case a := <-answers:
		return a, nil
	default:
	}
	var greeted <-chan time.Time
	if !c.isAnswered() {
		t := time.NewTimer(time.Until(c.firstBy))
		defer t.Stop()
		greeted = t.C
	}
	for {
		select {
		case a := <-answers:
			return a, nil
		case <-c.done:
			select {
			case a := <-answers: // it came before the end
				return a, nil
			default:
				return answer{}, c.failure()
			}
		case <-greeted:
			if c.isAnswered() {
				continue
			}
		case <-ctx.Done():
		}
		if c.midLine.Load() { // nothing would match any more
			return answer{}, c.fail(ErrTimeout)
		}
		return answer{}, ErrTimeout
	}
}
