package groundtruth

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// outsight is the command itself, built once for all tests.
var outsight = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "groundtruth-")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "outsight")
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "../cmd/outsight")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build outsight: %w: %s", err, b)
	}
	return out, os.Chmod(dir, 0o755) // for TestGuestOfAnotherUser
})

var madeOutsight atomic.Bool

func TestMain(m *testing.M) {
	status := m.Run()
	if madeOutsight.Load() {
		path, _ := outsight()
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(status)
}

// command is the path of the command. Where there is no Go to build it, OUTSIGHT_COMMAND
// is one that is built already.
func command(t *testing.T) string {
	t.Helper()
	if built := os.Getenv("OUTSIGHT_COMMAND"); built != "" {
		return built
	}
	path, err := outsight()
	if err != nil {
		t.Fatal(err)
	}
	madeOutsight.Store(true)
	return path
}

// answer is what one run of the command gave.
type answer struct {
	status         int
	stdout, stderr string
	took           time.Duration
}

// patience is how long any run may take: an end to tests that hang, not a
// measure of speed.
const patience = 30 * time.Second

// run runs the command; as makes it another user's.
func run(t *testing.T, as *syscall.Credential, args ...string) answer {
	t.Helper()
	binary := command(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, binary, args...)
	c.Env = append(os.Environ(), "XDG_CACHE_HOME="+t.TempDir())
	if as != nil {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	}
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	start := time.Now()
	err := c.Run()
	if ctx.Err() != nil {
		t.Fatalf("outsight %q hangs", args)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return answer{c.ProcessState.ExitCode(), stdout.String(), stderr.String(), time.Since(start)}
}

// refused checks for exit status 3 with one sentence on standard error that has
// all the words, and nothing on standard output.
func refused(t *testing.T, a answer, words ...string) {
	t.Helper()
	line := strings.TrimSuffix(a.stderr, "\n")
	if a.status != 3 || a.stdout != "" || strings.Contains(line, "\n") || !strings.HasPrefix(line, "outsight: ") {
		t.Errorf("exit status %d, standard error %q, standard output %.200q", a.status, a.stderr, a.stdout)
	}
	for _, w := range words {
		if !strings.Contains(line, w) {
			t.Errorf("%q does not say %q", line, w)
		}
	}
	t.Logf("%v: %s", a.took.Round(time.Millisecond), line)
}

func TestRefusedFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int64, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, max(size, int64(len(content)))); err != nil {
			t.Fatal(err)
		}
		return path
	}
	arm := elf.Header64{Type: uint16(elf.ET_CORE), Machine: uint16(elf.EM_AARCH64), Version: 1, Ehsize: 64, Phentsize: 56}
	copy(arm.Ident[:], elf.ELFMAG)
	arm.Ident[elf.EI_CLASS], arm.Ident[elf.EI_DATA], arm.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	var core bytes.Buffer
	binary.Write(&core, binary.LittleEndian, arm)

	garbage := make([]byte, 8<<20)
	for i := range garbage {
		garbage[i] = byte(i*7 + i>>8)
	}
	for _, c := range []struct {
		name, path string
		words      []string
	}{
		{"zeros", file("zeros", 256<<20, nil), []string{"zeros"}},
		{"garbage", file("garbage", 0, garbage), []string{"no Linux kernel found"}},
		{"empty", file("empty", 0, nil), []string{"empty"}},
		{"directory", dir, []string{"directory"}},
		{"missing", filepath.Join(dir, "missing"), []string{"no such file"}},
		{"another architecture", file("arm", 1<<20, core.Bytes()), []string{"arm64"}},
		{"pid of no VM", fmt.Sprintf("pid:%d", os.Getpid()), []string{"virtual machine"}},
		{"no such pid", "pid:4000000", []string{"4000000"}},
		{"no such name", "no-such-vm", []string{"no-such-vm", "vms"}},
		{"no such lab guest", "lab:no-such-guest", []string{"no-such-guest"}},
	} {
		t.Run(c.name, func(t *testing.T) { refused(t, run(t, nil, "ps", c.path), c.words...) })
	}
}

func TestRefusedSockets(t *testing.T) {
	serve := func(name string, talk func(net.Conn)) string {
		path := filepath.Join(t.TempDir(), name)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				t.Cleanup(func() { c.Close() })
				go talk(c)
			}
		}()
		return path
	}
	stale := filepath.Join(t.TempDir(), "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, c := range []struct {
		name, path string
		words      []string
	}{
		{"dead peer", serve("dead", func(net.Conn) {}), []string{"answer"}},
		{"not QMP", serve("http", func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }), []string{"QMP"}},
		{"stale", stale, []string{"stale"}},
	} {
		t.Run(c.name, func(t *testing.T) { refused(t, run(t, nil, "ps", c.path), c.words...) })
	}
}

func TestGuestFirmware(t *testing.T) {
	g := labtest.Up(t, lab.Options{Firmware: true})
	refused(t, run(t, nil, "ps", "qemu:"+g.QMP()), "firmware")
	refused(t, run(t, nil, "ps", fmt.Sprintf("pid:%d", g.PID())), "firmware")
}

func TestGuestNotStarted(t *testing.T) {
	g := labtest.Up(t, lab.Options{Firmware: true, QEMUArgs: []string{"-S"}})
	refused(t, run(t, nil, "ps", "qemu:"+g.QMP()), "not been started")
}

// TestGuestBusy holds the one seat that a QMP socket has.
func TestGuestBusy(t *testing.T) {
	g := labtest.Up(t, lab.Options{})
	c, err := net.Dial("unix", g.QMP())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	refused(t, run(t, nil, "ps", "qemu:"+g.QMP()), "in use", "pid:")
	if a := run(t, nil, "ps", fmt.Sprintf("pid:%d", g.PID())); a.status != 0 || !strings.Contains(a.stdout, "kthreadd") {
		t.Errorf("by pid: exit status %d: %s", a.status, a.stderr)
	}
}

func TestGuestOfAnotherUser(t *testing.T) {
	g := labtest.Up(t, lab.Options{})
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user")
	}
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	refused(t, run(t, nobody, "ps", fmt.Sprintf("pid:%d", g.PID())), "root")
}

func TestGuestHalted(t *testing.T) {
	g := labtest.Up(t, lab.Options{})
	go g.Output(t.Context(), "halt -f")
	target := "qemu:" + g.QMP()
	var a answer
	for range 40 {
		if a = run(t, nil, "ps", target); a.status != 0 {
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	refused(t, a, "halted", "--post-mortem")
	if a := run(t, nil, "ps", target, "--post-mortem"); a.status != 0 || !strings.Contains(a.stdout, "kthreadd") {
		t.Errorf("post-mortem: exit status %d: %s", a.status, a.stderr)
	}
}

// TestGuestReboot looks at a guest without pause while it goes through a reboot:
// each look gives the processes or one clear refusal.
func TestGuestReboot(t *testing.T) {
	g := labtest.Up(t, lab.Options{})
	target := "qemu:" + g.QMP()
	offset := func() (string, answer) {
		a := run(t, nil, "info", target, "-o", "json")
		var info struct {
			Offset string `json:"kaslr_offset"`
			Booted string `json:"booted"`
		}
		if a.status == 0 {
			if err := json.Unmarshal([]byte(a.stdout), &info); err != nil {
				t.Fatal(err)
			}
		}
		return info.Offset + " " + info.Booted, a
	}
	first, a := offset()
	if a.status != 0 {
		t.Fatal(a.stderr)
	}
	go g.Output(t.Context(), "reboot -f")
	refusals := 0
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		now, a := offset()
		if a.status != 0 {
			refused(t, a)
			refusals++
			continue
		}
		if now != first {
			t.Logf("%s, then %d refusals, then %s", first, refusals, now)
			if a := run(t, nil, "ps", target); a.status != 0 {
				t.Error(a.stderr)
			}
			return
		}
	}
	t.Error("the guest did not come back")
}
