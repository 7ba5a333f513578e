package lab

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeAgent plays the guest's end: it answers each line with what reply says.
func fakeAgent(t *testing.T, reply func(w io.Writer, r *bufio.Reader, words []string)) *agentLine {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "agent"))
	if err != nil {
		t.Fatal(err)
	}
	host, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close(); ln.Close() })
	go func() {
		guest, err := ln.Accept()
		if err != nil {
			return
		}
		defer guest.Close()
		r := bufio.NewReader(guest)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if words := strings.Fields(line); len(words) > 1 && words[0] == "OLAB" {
				reply(guest, r, words)
			}
		}
	}()
	return newAgentLine(host)
}

func TestExchange(t *testing.T) {
	got := map[string][]byte{}
	stdin := bytes.Repeat([]byte{0, 1, '\n', 0xff}, 40_000)
	l := fakeAgent(t, func(w io.Writer, r *bufio.Reader, words []string) {
		switch words[1] {
		case "sync":
			// The end of somebody else's output, in the midst of a line, comes first.
			fmt.Fprintf(w, "\x00garbage OLAB exit 0\nOLAB out 5\nOLAB \n\nOLAB sync other\nOLAB sync %s\n", words[2])
		case "put":
			var n int64
			fmt.Sscan(words[3], &n)
			data, _ := io.ReadAll(io.LimitReader(r, n))
			got[words[2]] = append(got[words[2]], data...)
			fmt.Fprintf(w, "OLAB put %d\n", n)
		case "run":
			var packed bytes.Buffer
			z := gzip.NewWriter(&packed)
			z.Write([]byte("packed"))
			z.Close()
			fmt.Fprintf(w, "OLAB out 7\nOLAB \x00\nxOLAB alive\nOLAB err 3\nbadOLAB out.gz %d\n%sOLAB exit 42\n", packed.Len(), packed.Bytes())
		}
	})
	if err := l.sync(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.put("cmd", []byte("true\n")), l.put("in", stdin)); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	status, err := l.run(&out, &errs)
	if status != 42 || err != nil || out.String() != "OLAB \x00\npacked" || errs.String() != "bad" {
		t.Errorf("status %d, error %v, output %q, errors %q", status, err, out.String(), errs.String())
	}
	z, err := gzip.NewReader(bytes.NewReader(got["in.gz"]))
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(z); err != nil || !bytes.Equal(data, stdin) || string(got["cmd"]) != "true\n" {
		t.Errorf("input changed on its way: %v, %d bytes", err, len(data))
	}
}

func TestRestart(t *testing.T) {
	l := fakeAgent(t, func(w io.Writer, _ *bufio.Reader, words []string) {
		if words[1] == "sync" {
			fmt.Fprintf(w, "OLAB boot\nOLAB sync %s\n", words[2])
		} else {
			fmt.Fprint(w, "OLAB out 3\nabc\nOLAB boot\n")
		}
	})
	if err := l.sync(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := l.run(nil, nil); !errors.Is(err, ErrRestarted) {
		t.Errorf("a restart in the midst of a command: %v", err)
	}
}

func TestNoAnswer(t *testing.T) {
	l := fakeAgent(t, func(io.Writer, *bufio.Reader, []string) {})
	if err := l.sync(50 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a dead agent: %v", err)
	}
}

func TestFailingWriter(t *testing.T) {
	l := fakeAgent(t, func(w io.Writer, _ *bufio.Reader, _ []string) {
		fmt.Fprint(w, "OLAB out 3\nabcOLAB out 3\ndefOLAB exit 0\n")
	})
	r, w := io.Pipe()
	r.Close()
	if status, err := l.run(w, nil); status != 0 || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("status %d, error %v", status, err)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte("OLAB boot\nOLAB out 3\nabcOLAB err.gz 2\n\x1f\x8bOLAB exit 7\n"))
	f.Add([]byte("OLAB exit 256\nOLAB out -1\nOLAB out 99999999999\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(text), maxLine)
		for range len(text) + 1 {
			frame, err := readFrame(r)
			if err != nil {
				return
			}
			if frame.size < 0 || frame.size > 0 && frame.kind != "out" && frame.kind != "err" {
				t.Fatalf("%+v", frame)
			}
			copyData(nil, r, frame)
		}
		t.Fatal("frames out of nothing")
	})
}
