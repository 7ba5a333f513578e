package check

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Told is what a guest's own programs say of it. What they did not list is nil.
type Told struct {
	PIDs      map[int32]bool
	Modules   map[string]bool
	Listening map[Port]bool // TCP sockets that listen and UDP sockets without a peer
	// At is when it was said: what is younger cannot be missing. From are the files.
	At   time.Time
	From []string
}

// Port is a port of a protocol: tcp or udp.
type Port struct {
	Protocol string
	Number   uint16
}

func (p Port) String() string { return fmt.Sprintf("%s port %d", p.Protocol, p.Number) }

// errNotTold says that a text is of nothing that is known.
var errNotTold = errors.New("it is not the output of ps, lsmod, ss or netstat, nor /proc/modules")

// maxTold bounds what one file says, in lines.
const maxTold = 1 << 20

// Read adds what the output of a program in the guest says: of ps -e, lsmod, ss -tuln or
// netstat -tuln, or the content of /proc/modules. It was taken at a time, by the guest's clock.
func (t *Told) Read(name string, r io.Reader, at time.Time) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	var add func(fields []string)
	for n := 0; lines.Scan() && n < maxTold; n++ {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) == 0:
		case add == nil:
			if add = t.kind(fields); add == nil && n > 5 {
				return errNotTold
			}
		default:
			add(fields)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if add == nil {
		return errNotTold
	}
	if t.PIDs != nil && !t.PIDs[1] {
		return errors.New("process 1 is not in it: take it with ps -e, so that it has all processes")
	}
	t.From = append(t.From, name)
	if t.At.IsZero() || at.Before(t.At) {
		t.At = at
	}
	return nil
}

// kind tells by the first line what the output is of, and returns what reads the lines that
// follow; nil if it is of nothing known.
func (t *Told) kind(head []string) func([]string) {
	switch {
	case slices.Contains(head, "PID"):
		column := slices.Index(head, "PID")
		t.PIDs = map[int32]bool{}
		return func(f []string) {
			if column < len(f) {
				if pid, err := strconv.ParseInt(f[column], 10, 32); err == nil {
					t.PIDs[int32(pid)] = true
				}
			}
		}
	case head[0] == "Module" && slices.Contains(head, "Size"):
		t.Modules = map[string]bool{}
		return t.module
	case len(head) >= 6 && slices.Contains([]string{"Live", "Loading", "Unloading"}, head[4]):
		t.Modules = map[string]bool{}
		t.module(head)
		return t.module
	case slices.Contains(head, "Local"):
		t.Listening = map[Port]bool{}
		return t.socket
	}
	return nil
}

func (t *Told) module(f []string) { t.Modules[f[0]] = true }

// socket reads a line of ss or netstat. The first address with a port is the local one.
func (t *Told) socket(f []string) {
	protocol := ""
	for _, word := range f {
		switch {
		case strings.HasPrefix(word, "tcp"), word == "LISTEN":
			protocol = "tcp"
		case strings.HasPrefix(word, "udp"), word == "UNCONN" && protocol == "":
			protocol = "udp"
		}
	}
	for _, word := range f {
		colon := strings.LastIndexByte(word, ':')
		if colon < 0 || protocol == "" {
			continue
		}
		// Programs print names of services unless they are asked not to.
		if n, err := net.LookupPort(protocol, word[colon+1:]); err == nil {
			t.Listening[Port{protocol, uint16(n)}] = true
		}
		return
	}
}
