package lab

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// A Command is what to run in a guest.
type Command struct {
	Shell  string    // given to the guest's sh, as root, in /root
	Stdin  []byte    // kept in the guest's memory while the command runs, as is the output
	Stdout io.Writer // nil discards
	Stderr io.Writer // nil discards
}

const (
	// answerTime is how long the agent may take to answer at all. A guest under TCG on a
	// machine that is busy with ten others is slow, but not that slow.
	answerTime = time.Minute
	// silenceTime is how long a running command may give no sign; the agent gives one
	// three times a second.
	silenceTime = 2 * time.Minute
	// pieceSize is how much input is under way at a time: a Linux tty holds 64 KiB at
	// most and drops the rest.
	pieceSize = 16 << 10
)

// Exec runs a command in the guest and gives its exit status. It returns when the shell
// exits, even if something the shell started keeps running. Calls from several goroutines or
// processes wait for each other. When ctx ends, the command is killed.
func (g *Guest) Exec(ctx context.Context, c Command) (exitStatus int, err error) {
	// Waiting for another's command is not the guest's fault: no time limit here.
	unlock, err := lockFile(ctx, filepath.Join(g.Dir, "agent.lock"))
	if err != nil {
		return -1, err
	}
	defer unlock()
	l, err := g.dialAgent()
	if err != nil {
		return -1, err
	}
	defer l.conn.Close()
	stop := l.follow(ctx)
	defer stop()

	err = l.sync(answerTime)
	if err == nil {
		err = l.put("cmd", []byte(c.Shell+"\n"))
	}
	if err == nil {
		err = l.put("in", c.Stdin)
	}
	if err == nil {
		exitStatus, err = l.run(c.Stdout, c.Stderr)
	}
	if ctx.Err() != nil {
		stop()
		l.abandon()
		return -1, fmt.Errorf("lab: command in guest %s: %w", g.Name, context.Cause(ctx))
	}
	if err != nil {
		return -1, g.explain(err)
	}
	return exitStatus, nil
}

// Output runs a shell command in the guest and gives what it wrote to standard output. An
// exit status other than 0 is an error, with what the command complained of.
func (g *Guest) Output(ctx context.Context, shell string) ([]byte, error) {
	var out, errs bytes.Buffer
	status, err := g.Exec(ctx, Command{Shell: shell, Stdout: &out, Stderr: &errs})
	if err != nil {
		return nil, err
	}
	if status != 0 {
		return out.Bytes(), fmt.Errorf("lab: command in guest %s: exit status %d: %s", g.Name, status, complaint(errs.String()))
	}
	return out.Bytes(), nil
}

// explain says what may be wrong with the guest when its agent fails.
func (g *Guest) explain(err error) error {
	switch {
	case !g.Running():
		return fmt.Errorf("lab: guest %s has ended: %s", g.Name, g.lastWords())
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("lab: guest %s does not answer: is it paused, halted or still booting? Its console is in %s", g.Name, g.Console())
	}
	return fmt.Errorf("lab: agent of guest %s: %w", g.Name, err)
}

// An agentLine is a connection to the agent's serial port.
type agentLine struct {
	conn net.Conn
	r    *bufio.Reader
	// asked is set once the host has something to lose if the guest restarts.
	asked bool
}

func (g *Guest) dialAgent() (*agentLine, error) {
	conn, err := net.Dial("unix", filepath.Join(g.Dir, "agent"))
	if err != nil {
		if !g.Running() {
			return nil, fmt.Errorf("lab: guest %s has ended: %s", g.Name, g.lastWords())
		}
		return nil, fmt.Errorf("lab: agent of guest %s: %w", g.Name, err)
	}
	return newAgentLine(conn), nil
}

// dialBooting is dialAgent for a guest whose QEMU has just made the socket: it refuses
// until QEMU listens there, a moment later.
func (g *Guest) dialBooting(ctx context.Context) (l *agentLine, err error) {
	for {
		l, err = g.dialAgent()
		if !errors.Is(err, syscall.ECONNREFUSED) || ctx.Err() != nil {
			return l, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func newAgentLine(conn net.Conn) *agentLine {
	return &agentLine{conn: conn, r: bufio.NewReaderSize(conn, maxLine)}
}

// follow makes the end of ctx end every wait on the line.
func (l *agentLine) follow(ctx context.Context) (stop func()) {
	done := context.AfterFunc(ctx, func() { l.conn.Close() })
	return func() { done() }
}

// hello waits for the agent's first word. Asking before would only fill the line: what the
// guest does not read is kept for it.
func (l *agentLine) hello(limit time.Duration) error {
	for {
		if f, err := l.next(limit); err != nil || f.kind == "boot" {
			return err
		}
	}
}

// sync stops whatever the agent was at and waits until it is ready. Only an answer to our
// own question counts.
func (l *agentLine) sync(limit time.Duration) error {
	nonce := rand.Text()
	end := time.Now().Add(limit)
	// The agent answers in milliseconds unless it waits for the rest of a piece from a
	// host that died: silence is met by filling that up, once. Lines that came while the
	// guest's port was not open yet are lost, hence all the other attempts.
	const wait, patience = time.Second, 4
	silences := 0
	for {
		if silences == patience {
			// One line: for the agent, each costs more than the bytes in it.
			if err := l.send(bytes.Repeat([]byte("#"), pieceSize)); err != nil {
				return err
			}
		}
		if err := l.send(fmt.Appendf(nil, "\nOLAB sync %s\n", nonce)); err != nil {
			return err
		}
		until := time.Now().Add(wait)
		if until.After(end) {
			until = end
		}
		for {
			f, err := l.next(time.Until(until))
			if errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(end) {
				silences++
				break // ask again
			}
			if err != nil {
				return err
			}
			if f.kind == "sync" && f.arg == nonce {
				l.asked = true
				return nil
			}
			if f.kind == "boot" {
				break
			}
			if f.size > 0 { // left over from another's command
				if _, err := copyData(nil, l.r, f); err != nil {
					return err
				}
			}
		}
	}
}

// put hands over a file of the command, piece by piece.
func (l *agentLine) put(name string, data []byte) error {
	if len(data) > 2048 {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = z.Write(data) // a Buffer takes everything
		z.Close()
		name, data = name+".gz", packed.Bytes()
	}
	for len(data) > 0 {
		piece := data[:min(len(data), pieceSize)]
		data = data[len(piece):]
		if err := l.send(fmt.Appendf(nil, "OLAB put %s %d\n%s", name, len(piece), piece)); err != nil {
			return err
		}
		for {
			f, err := l.next(answerTime)
			if err != nil {
				return err
			}
			if f.kind == "put" {
				break
			}
		}
	}
	return nil
}

// run starts the command and passes its output on until it ends.
func (l *agentLine) run(stdout, stderr io.Writer) (int, error) {
	if err := l.send([]byte("OLAB run\n")); err != nil {
		return -1, err
	}
	var wrote error
	for {
		f, err := l.next(silenceTime)
		if err != nil {
			return -1, err
		}
		switch f.kind {
		case "out", "err":
			w := stdout
			if f.kind == "err" {
				w = stderr
			}
			werr, err := copyData(w, deadlineReader{l}, f)
			if err != nil {
				return -1, err
			}
			if wrote == nil && werr != nil {
				wrote = fmt.Errorf("pass output on: %w", werr)
			}
		case "exit":
			status, _ := strconv.Atoi(f.arg) // readFrame has checked it
			return status, wrote
		}
	}
}

// ErrRestarted says that the guest began again while it ran a command.
var ErrRestarted = errors.New("the guest restarted meanwhile")

// next waits for the next frame.
func (l *agentLine) next(limit time.Duration) (frame, error) {
	_ = l.conn.SetReadDeadline(time.Now().Add(limit)) // if it fails, so does the read
	f, err := readFrame(l.r)
	if err == nil && f.kind == "boot" && l.asked {
		return f, ErrRestarted
	}
	return f, err
}

func (l *agentLine) send(p []byte) error {
	_ = l.conn.SetWriteDeadline(time.Now().Add(answerTime)) // if it fails, so does the write
	_, err := l.conn.Write(p)
	return err
}

// abandon orders the agent to stop, on a line whose answer will not be read.
func (l *agentLine) abandon() {
	addr := l.conn.RemoteAddr()
	if addr == nil {
		return
	}
	if conn, err := net.Dial(addr.Network(), addr.String()); err == nil {
		again := newAgentLine(conn)
		_ = again.sync(3 * time.Second) // the next command's sync does it if this one fails
		conn.Close()
	}
}

// deadlineReader renews the time limit with every read: slow is fine, silent is not.
type deadlineReader struct{ l *agentLine }

func (d deadlineReader) Read(p []byte) (int, error) {
	_ = d.l.conn.SetReadDeadline(time.Now().Add(silenceTime)) // if it fails, so does the read
	return d.l.r.Read(p)
}
