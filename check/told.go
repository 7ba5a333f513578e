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

// Told is what a guest's own programs say of it: each of them for itself, so that it shows
// which of them is lied to.
type Told struct{ Words []*Word }

// Word is what one program, or one file, says. What it did not list is nil.
type Word struct {
	// From is the command or the file, Program what a file is the output of.
	From      string
	Program   string
	PIDs      map[int32]bool
	Modules   map[string]bool
	Listening map[Port]bool // TCP sockets that listen and UDP sockets without a peer
	// Covers are the tables of sockets that it lists: "tcp", "tcp6", "udp", "udp6".
	Covers map[string]bool
	// Log are the lines of the kernel's log, by when they were written, in microseconds since
	// boot; nil if it is not asked for.
	Log map[int64][]string
	// At is when it was said, by the guest's clock: what is younger cannot be missing. It is
	// zero where it was said between two looks, both of which have the object.
	At time.Time
}

// Port is a port of a protocol: tcp or udp.
type Port struct {
	Protocol string
	Number   uint16
}

func (p Port) String() string { return fmt.Sprintf("%s port %d", p.Protocol, p.Number) }

// errNotTold says that a text is of nothing that is known.
var errNotTold = errors.New("not the output, with its first line, of ps -e, lsmod, ss -tuln, netstat -tuln, dmesg or ls -1 /proc, nor a copy of /proc/modules or /proc/net/tcp, tcp6, udp, udp6")

// String says what a word lists, and as of when.
func (w *Word) String() string {
	var what []string
	count := func(n int, one, more string) {
		if n != 1 {
			one = more
		}
		what = append(what, fmt.Sprintf("%d %s", n, one))
	}
	if w.PIDs != nil {
		count(len(w.PIDs), "process", "processes")
	}
	if w.Modules != nil {
		count(len(w.Modules), "module", "modules")
	}
	if w.Listening != nil {
		count(len(w.Listening), "port", "ports")
	}
	if w.Log != nil {
		lines := 0
		for _, of := range w.Log {
			lines += len(of)
		}
		count(lines, "line of the kernel's log", "lines of the kernel's log")
	}
	if !w.At.IsZero() {
		what = append(what, "as of "+w.At.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("%s (%s)", w.From, strings.Join(what, ", "))
}

// source is what a word is called in findings: the command that was run, or the program with the file that has its output.
func (w *Word) source() string {
	if w.Program == "" {
		return w.From
	}
	return fmt.Sprintf("%s (%s)", w.Program, w.From)
}

// maxTold bounds what one file says, in lines.
const maxTold = 1 << 20

// Read adds what the output of a program in the guest says: of ps -e, ls /proc, lsmod, ss -tuln,
// netstat -tuln or dmesg, or the content of /proc/modules, /proc/net/tcp, tcp6, udp or udp6. It was
// taken at a time, by the guest's clock.
func (t *Told) Read(name string, r io.Reader, at time.Time) error {
	w := &Word{From: name, At: at}
	program := ""
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	var add func(fields []string)
	begins := ""
	for n := 0; lines.Scan() && n < maxTold; n++ {
		fields := strings.Fields(lines.Text())
		if begins == "" {
			begins = strings.TrimSpace(lines.Text())
		}
		switch {
		case len(fields) == 0:
		case w.Log != nil:
			w.logLine(lines.Text())
		case add == nil && w.logLine(lines.Text()):
			program = "dmesg"
			add = func([]string) {}
		case add == nil:
			if program, add = w.kind(fields); add == nil && n > 5 {
				return notTold(begins)
			}
		default:
			add(fields)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if add == nil {
		return notTold(begins)
	}
	if w.PIDs != nil && !w.PIDs[1] {
		return errors.New("process 1 is not in it: take it as root with ps -e, so that it has all processes")
	}
	if !at.IsZero() { // else the name is the command itself
		w.Program = program
	}
	t.Words = append(t.Words, w)
	return nil
}

// notTold is the error about a text that begins so.
func notTold(begins string) error {
	if begins == "" {
		return fmt.Errorf("it is empty: %w", errNotTold)
	}
	return fmt.Errorf("it begins with %.60q: %w", begins, errNotTold)
}

// kind says by the first line what the output is of, and returns what reads the lines that
// follow; nil if it is of nothing known.
func (w *Word) kind(head []string) (program string, add func([]string)) {
	switch {
	case slices.Contains(head, "PID"):
		column := slices.Index(head, "PID")
		w.PIDs = map[int32]bool{}
		return "ps", func(f []string) {
			if column < len(f) {
				w.pid(f[column])
			}
		}
	case head[0] == "Module" && slices.Contains(head, "Size"):
		w.Modules = map[string]bool{}
		return "lsmod", w.module
	case len(head) >= 6 && slices.Contains([]string{"Live", "Loading", "Unloading"}, head[4]):
		w.Modules = map[string]bool{}
		w.module(head)
		return "/proc/modules", w.module
	case slices.Contains(head, "Local"):
		w.Listening, w.Covers = map[Port]bool{}, map[string]bool{}
		if slices.Contains(head, "Netid") || slices.Contains(head, "Proto") { // else ss was asked for one protocol
			w.coversAll()
		}
		program = "ss"
		if slices.Contains(head, "Proto") {
			program = "netstat"
		}
		return program, w.socket
	case head[0] == "sl" && slices.Contains(head, "local_address"):
		w.Listening, w.Covers = map[Port]bool{}, map[string]bool{}
		t := procTable{word: w}
		t.line(head)
		return "/proc/net", t.line
	}
	if _, err := strconv.ParseInt(head[0], 10, 32); err == nil && len(head) <= 1 { // ls -1 /proc
		w.PIDs = map[int32]bool{}
		w.pid(head[0])
		return "ls /proc", func(f []string) { w.pid(f[0]) }
	}
	return "", nil
}

func (w *Word) pid(word string) {
	if pid, err := strconv.ParseInt(word, 10, 32); err == nil {
		w.PIDs[int32(pid)] = true
	}
}

func (w *Word) module(f []string) { w.Modules[f[0]] = true }

// socket reads a line of ss or netstat. The first address with a port is the local one.
func (w *Word) socket(f []string) {
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
			w.listens(protocol, uint16(n))
		}
		return
	}
}

// logLine reads a line of dmesg: "[    5.123456] text". It reports whether it is one.
func (w *Word) logLine(line string) bool {
	stamp, text, ok := strings.Cut(line, "] ")
	stamp, begins := strings.CutPrefix(stamp, "[")
	whole, part, point := strings.Cut(strings.TrimSpace(stamp), ".")
	if !ok || !begins || !point || len(part) != 6 {
		return false
	}
	seconds, err := strconv.ParseUint(whole, 10, 32)
	micros, err2 := strconv.ParseUint(part, 10, 32)
	if err != nil || err2 != nil {
		return false
	}
	if w.Log == nil {
		w.Log = map[int64][]string{}
	}
	at := int64(seconds)*1e6 + int64(micros)
	w.Log[at] = append(w.Log[at], text)
	return true
}

func (w *Word) coversAll() {
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		w.Covers[table] = true
	}
}

// listens notes a port. Who lists one socket of a protocol lists them all.
func (w *Word) listens(protocol string, port uint16) {
	w.Covers[protocol], w.Covers[protocol+"6"] = true, true
	w.Listening[Port{protocol, port}] = true
}

// procTable reads the tables of /proc/net, one behind the other.
type procTable struct {
	word     *Word
	protocol string
	waits    string // the state of those that count, include/net/tcp_states.h
}

// line reads a line: a head, or "0: 0100007F:0019 00000000:0000 0A …".
func (t *procTable) line(f []string) {
	if f[0] == "sl" {
		t.protocol, t.waits = "tcp", "0A"
		if slices.Contains(f, "drops") {
			t.protocol, t.waits = "udp", "07"
		}
		table := t.protocol
		if slices.Contains(f, "remote_address") { // the others' is called rem_address
			table += "6"
		}
		t.word.Covers[table] = true
		return
	}
	if len(f) < 4 || f[3] != t.waits {
		return
	}
	_, port, _ := strings.Cut(f[1], ":")
	if n, err := strconv.ParseUint(port, 16, 16); err == nil {
		t.word.Listening[Port{t.protocol, uint16(n)}] = true
	}
}
