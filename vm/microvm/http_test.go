package microvm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// monitor is the API of a monitor, as its description says it is.
type monitor struct {
	vmm  string
	fail bool // refuses to pause

	mu     sync.Mutex
	paused bool
	asked  []string
}

func (m *monitor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	what := r.Method + " " + r.URL.Path + string(body)
	if r.Method != http.MethodGet {
		m.asked = append(m.asked, what)
	}
	state := "Running"
	if m.paused {
		state = "Paused"
	}
	switch what {
	case "GET /":
		fmt.Fprintf(w, `{"id":"web","state":%q,"vmm_version":"1.17.0","app_name":"Firecracker"}`, state)
	case "GET /machine-config":
		fmt.Fprint(w, `{"vcpu_count":2,"mem_size_mib":256,"smt":false}`)
	case "GET /api/v1/vmm.ping":
		fmt.Fprint(w, `{"build_version":"v54","version":"54.0.0","pid":1,"features":[]}`)
	case "GET /api/v1/vm.info":
		fmt.Fprintf(w, `{"config":{"cpus":{"boot_vcpus":2},"memory":{"size":0,"zones":[{"size":134217728},{"size":134217728}]}},"state":%q,"memory_actual_size":268435456}`, state)
	case `PATCH /vm{"state":"Paused"}`, "PUT /api/v1/vm.pause":
		if m.fail {
			http.Error(w, `{"fault_message":"no"}`, http.StatusBadRequest)
			return
		}
		m.paused = true
		w.WriteHeader(http.StatusNoContent)
	case `PATCH /vm{"state":"Resumed"}`, "PUT /api/v1/vm.resume":
		m.paused = false
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, what, http.StatusNotFound)
	}
}

// listen serves h on a socket of this process.
func listen(t *testing.T, h http.Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return path
}

func TestAPI(t *testing.T) {
	for _, vmm := range []string{firecracker, cloudHypervisor} {
		m := &monitor{vmm: vmm}
		a := &api{vmm: vmm, path: listen(t, m), pid: os.Getpid()}
		got, err := a.ask(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got.state != vm.StateRunning || got.ram != 256<<20 || got.cpus != 2 || got.version == "" || (got.name == "web") != (vmm == firecracker) {
			t.Errorf("%s reports %+v", vmm, got)
		}
		c := &control{api: a}
		resume, err := c.Pause(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s, err := c.State(t.Context()); s != vm.StatePaused || err != nil {
			t.Errorf("%s: paused: %q %v", vmm, s, err)
		}
		if _, err := c.Pause(t.Context()); !errors.Is(err, vm.ErrBusy) {
			t.Errorf("%s: paused twice: %v", vmm, err)
		}
		for range 2 { // once is enough
			if err := resume(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if len(m.asked) != 2 || m.paused {
			t.Errorf("%s was asked %q", vmm, m.asked)
		}
		// A machine that somebody else paused stays so.
		m.paused, m.asked = true, nil
		if resume, err = c.Pause(t.Context()); err == nil {
			err = resume(t.Context())
		}
		if err != nil || len(m.asked) > 0 || !m.paused {
			t.Errorf("%s: paused already: %v, asked %q", vmm, err, m.asked)
		}
		// One that refuses is not left paused, nor stopped by a signal.
		m.paused, m.fail = false, true
		if _, err := c.Pause(t.Context()); err == nil || !strings.Contains(err.Error(), "400") {
			t.Errorf("%s refused: %v", vmm, err)
		}
	}
}

func TestStranger(t *testing.T) {
	a := &api{vmm: firecracker, path: listen(t, &monitor{}), pid: 1}
	if _, err := a.ask(t.Context()); !errors.Is(err, errStranger) {
		t.Errorf("asked another's API: %v", err)
	}
}

func TestSilentAPI(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := call(ctx, path, os.Getpid(), "GET", "/", ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an API that says nothing: %v", err)
	}
}

// TestRequest: what is sent is what a parser of HTTP takes it for.
func TestRequest(t *testing.T) {
	path := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %d", r.Method, r.URL, body, r.ContentLength)
	}))
	for want, c := range map[string][3]string{
		"GET /  0":              {"GET", "/", ""},
		"PUT /api/v1/x  0":      {"PUT", "/api/v1/x", ""},
		`PATCH /vm {"a":"b"} 9`: {"PATCH", "/vm", `{"a":"b"}`},
	} {
		got, err := call(t.Context(), path, os.Getpid(), c[0], c[1], c[2])
		if err != nil || string(got) != want {
			t.Errorf("%q %v, want %q", got, err, want)
		}
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add("HTTP/1.1 200 \r\nServer: Firecracker API\r\nContent-Length: 2\r\n\r\n{}")
	f.Add("HTTP/1.1 204 \r\n\r\n")
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		status, body, err := readAnswer(strings.NewReader(text))
		if err == nil && (status < 100 || status > 999 || len(body) > maxBody || len(body) > len(text)) {
			t.Errorf("status %d, %d bytes", status, len(body))
		}
	})
}

// TestFreeze stops and continues a process of ours.
func TestFreeze(t *testing.T) {
	cmd, out := beat(t)
	p, err := proc.Get(cmd)
	if err != nil {
		t.Fatal(err)
	}
	c := &control{p: p}
	resume, err := c.Pause(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if stopped, err := proc.Stopped(p.PID); !stopped || err != nil {
		t.Errorf("after Pause: stopped %v, %v", stopped, err)
	}
	if err := resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stopped, err := proc.Stopped(p.PID); stopped || err != nil {
		t.Errorf("after resume: stopped %v, %v", stopped, err)
	}
	if _, err := out.ReadString('\n'); err != nil {
		t.Errorf("it does not go on: %v", err)
	}
	// One that somebody else stopped stays so.
	if err := unix.Kill(p.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if stopped, _ := proc.Stopped(p.PID); stopped {
			break
		}
	}
	if resume, err = c.Pause(t.Context()); err == nil {
		err = resume(t.Context())
	}
	if stopped, _ := proc.Stopped(p.PID); !stopped || err != nil {
		t.Errorf("stopped already: stopped %v, %v", stopped, err)
	}
	// A pid that was given to another process is not signalled.
	p.Started++
	c = &control{p: p}
	if _, err := c.Pause(t.Context()); !errors.Is(err, vm.ErrGone) {
		t.Errorf("another process: %v", err)
	}
}

// beat starts a process that writes lines, and gives its pid and what it writes.
func beat(t *testing.T) (pid int, out *bufio.Reader) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "while :; do echo; sleep 0.01; done"}, &os.ProcAttr{Files: []*os.File{nil, w, w}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Kill()
		_, _ = p.Wait()
		r.Close()
	})
	return p.Pid, bufio.NewReader(r)
}
