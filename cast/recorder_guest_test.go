package cast_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/cast"
	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/plugin"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// script is what is typed in a guest, by its program "terminal" (groundtruth/guests/terminal). It sleeps before it exits: sshd
// drops what a terminal has echoed and it has not read when the shell ends.
const script = `expect "# "
type "echo h\u00e4llo; printf 'caf\\303'; printf '\\251\\377\\n'\r"
expect "caf"
expect "# "
type "stty size\r"
expect "24 80"
resize 100x30
type "until [ \"$(stty size)\" = '30 100' ]; do sleep 0.1; done; echo resized\r"
expect "\nresized"
type "stty -echo; printf 'pass%s: ' word; read x; stty echo; echo got ${#x}\r"
expect "password: "
type "sec"
type "ret\r"
expect "got 6"
type "i=0; while [ $i -lt 300 ]; do echo line $i \u2603; i=$((i+1)); done\r"
expect "line 299"
expect "# "
type "sleep 1; exit\r"
`

// TestGuestSessions compares recordings with what the other side of the terminal wrote down in the guest, byte for byte.
func TestGuestSessions(t *testing.T) {
	kernels := []string{lab.DefaultKernel}
	if os.Getenv("OUTSIGHT_SLOW") != "" {
		kernels = lab.KernelNames()
	}
	for _, k := range kernels {
		t.Run(k, func(t *testing.T) {
			g := up(t, lab.Options{Name: "sessions-" + k, Kernel: k, SMP: 2})
			s := record(t, g, func() { play(t, g, script, "/bin/sh") })
			compare(t, g, s)
		})
	}
}

// TestGuestSSH records a session over SSH: what its client shows is what the recording of its terminal at the server plays, and
// what is typed at the client comes out there.
func TestGuestSSH(t *testing.T) {
	labtest.NeedQEMU(t)
	labtest.NeedTool(t, "mmdebstrap")
	g := up(t, lab.Options{Name: "sessions-ssh", Userland: lab.Debian, Memory: 1 << 30, SMP: 2})
	labtest.Output(t, g, `ssh-keygen -q -t ed25519 -N '' -f /root/key && mkdir -p /root/.ssh && cp /root/key.pub /root/.ssh/authorized_keys && chmod 700 /root/.ssh
systemctl start ssh; until ssh -i /root/key -o BatchMode=yes -o StrictHostKeyChecking=accept-new localhost true; do sleep 1; done; touch /root/.hushlogin`)
	s := record(t, g, func() {
		play(t, g, script, "/usr/bin/ssh", "-q", "-t", "-i", "/root/key", "localhost", "TERM=xterm exec /bin/sh -i")
	})
	compare(t, g, s)
	for _, p := range s {
		if strings.Contains(p.command, "sh -i") && p.env["TERM"] != "" {
			return
		}
	}
	t.Errorf("no recording is of the shell behind SSH: %+v", s)
}

// up boots a guest that can be traced, with the program "terminal" in it.
func up(t *testing.T, o lab.Options) *lab.Guest {
	t.Helper()
	labtest.NeedQEMU(t)
	path, err := plugin.Install(filepath.Join(t.TempDir(), plugin.FileName))
	if err != nil {
		labtest.Need(t, err.Error())
	}
	o.Plugin, o.Files = path, map[string]string{"/terminal": guests.Program(t, "terminal")}
	return labtest.Up(t, o)
}

// play has a command run on a terminal in the guest, with a script of what is typed.
func play(t *testing.T, g *lab.Guest, script string, command ...string) {
	t.Helper()
	line := "cd /tmp; PS1='# ' HOME=/root /terminal /tmp/typed /tmp/shown"
	for _, c := range command {
		line += " '" + c + "'"
	}
	var stderr strings.Builder
	if status, err := g.Exec(t.Context(), lab.Command{Shell: line, Stdin: []byte(script), Stderr: &stderr}); err != nil || status != 0 {
		t.Fatal(status, err, stderr.String())
	}
}

// recorded is a recording as a player sees it.
type recorded struct {
	path, command string
	env           map[string]string
	shown, typed  string
	marks, sizes  string
	width, height int
}

// record records what happens while do runs.
func record(t *testing.T, g *lab.Guest, do func()) (all []recorded) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gu, err := guest.Open(ctx, "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer gu.Close()
	s, err := tcg.Start(ctx, gu, tcg.Options{Calls: []string{}, Terminals: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	folder := filepath.Join(t.TempDir(), "recordings")
	r, err := cast.NewRecorder(cast.Options{Folder: folder, Title: g.Name})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		var e trace.Event
		for {
			if err := s.Next(ctx, &e); err != nil {
				done <- err
				return
			}
			if err := r.Event(&e); err != nil {
				done <- err
				return
			}
		}
	}()
	do()
	time.Sleep(300 * time.Millisecond) // what happened is on its way
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := s.Lost(); n != 0 {
		t.Errorf("%d events were lost", n)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*-pts-*.cast"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		all = append(all, parse(t, f))
	}
	return all
}

func parse(t *testing.T, path string) recorded {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(string(b), "\n")
	var h struct {
		Version, Width, Height int
		Command                string
		Env                    map[string]string
	}
	if err := json.Unmarshal([]byte(first), &h); err != nil || h.Version != 2 {
		t.Fatalf("%s: header %q: %v", path, first, err)
	}
	r := recorded{path: path, command: h.Command, env: h.Env, width: h.Width, height: h.Height}
	before := 0.0
	for line := range strings.Lines(rest) {
		var at float64
		var kind, text string
		if err := json.Unmarshal([]byte(line), &[]any{&at, &kind, &text}); err != nil || at < before {
			t.Fatalf("%s: %q behind %f: %v", path, line, before, err)
		}
		before = at
		switch kind {
		case "o":
			r.shown += text
		case "i":
			r.typed += text
		case "m":
			r.marks += fmt.Sprintf("%s after %d;", text, len(r.typed))
		case "r":
			r.sizes += text + ";"
		}
	}
	return r
}

// compare compares every recording with what the program "terminal" was shown and what it typed. With SSH there are two
// terminals in the guest: the client's, and the one at the server.
func compare(t *testing.T, g *lab.Guest, all []recorded) {
	t.Helper()
	shown, typed := labtest.Output(t, g, "cat /tmp/shown"), labtest.Output(t, g, "cat /tmp/typed")
	if len(all) == 0 {
		t.Fatal("nothing was recorded")
	}
	for _, r := range all {
		if want := strings.ToValidUTF8(shown, "\ufffd"); r.shown != want {
			t.Errorf("%s plays %d bytes\n%.2000q\nthe terminal was shown %d\n%.2000q", r.path, len(r.shown), r.shown, len(want), want)
		}
		if r.typed != typed {
			t.Errorf("%s has as typed\n%q\ntyped was\n%q", r.path, r.typed, typed)
		}
		if r.width != 80 || r.height != 24 || r.sizes != "100x30;" {
			t.Errorf("%s: %dx%d, then %s", r.path, r.width, r.height, r.sizes)
		}
		// SSH's client has its terminal raw: there only the server knows what is a password.
		if want := fmt.Sprintf("input without echo after %d;", strings.Index(typed, "secret")); r.marks != want && !strings.Contains(r.command, "ssh") {
			t.Errorf("%s: marks %q, want %q", r.command, r.marks, want)
		}
		t.Logf("%s: %d bytes shown, %d typed, %q; %s", r.command, len(r.shown), len(r.typed), r.env, r.marks)
	}
}
