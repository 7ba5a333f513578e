package libvirt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// open finds the domain of f.
func open(t *testing.T, f *fake) *domain {
	t.Helper()
	d := New()
	dom, err := d.lookUp(t.Context(), f.at, f.uuid, proc.Process{PID: 71})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dom.Close() })
	return dom
}

// TestRecognise: libvirt's processes are distinguished from those that others start.
func TestRecognise(t *testing.T) {
	const uuid = "203f250b-0ff8-4c53-9915-cb113cf8d1d9"
	domain := []string{
		"/usr/bin/qemu-system-x86_64", "-name", "guest=web,debug-threads=on", "-S", "-uuid", uuid,
		"-chardev", "socket,id=charmonitor,fd=26,server=on,wait=off", "-mon", "chardev=charmonitor,id=monitor,mode=control",
	}
	i, ok := New().Recognise(proc.Process{Exe: domain[0], Args: domain})
	if !ok || i.Name != "web" || i.UUID != uuid || i.Manager != "libvirt" || i.QMP != "" {
		t.Errorf("%v %+v", ok, i)
	}
	for _, args := range [][]string{
		{"/usr/bin/qemu-system-x86_64", "-name", "web", "-uuid", uuid, "-qmp", "unix:/x,server"},
		{"/usr/bin/qemu-system-x86_64", "-chardev", "socket,id=charmonitor,fd=26", "-uuid", "web"},
		{"/usr/bin/grep", "-uuid", uuid, ",id=charmonitor,"},
		{"/usr/bin/qemu-system-x86_64", ",id=charmonitor,", "-uuid"},
	} {
		if i, ok := New().Recognise(proc.Process{Exe: args[0], Args: args}); ok {
			t.Errorf("%q is taken for %+v", args, i)
		}
	}
}

// TestPause: pausing is libvirt's suspension, and only what it stopped is resumed.
func TestPause(t *testing.T) {
	f := startFake(t, "web")
	dom := open(t, f)
	resume, err := dom.Pause(t.Context())
	if err != nil || f.count(procSuspend) != 1 {
		t.Fatal(err, f.calls)
	}
	if s, err := dom.listState(t.Context()); s != vm.StatePaused || err != nil {
		t.Errorf("paused, its state is %q: %v", s, err)
	}
	if err := resume(t.Context()); err != nil || f.count(procResume) != 1 || f.state != 1 {
		t.Errorf("resumed %d times: %v", f.count(procResume), err)
	}
	for _, reason := range []golibvirt.DomainPausedReason{golibvirt.DomainPausedUser, golibvirt.DomainPausedIoerror} {
		f.set(func() { f.state, f.reason = 3, uint32(reason) })
		resume, err = dom.Pause(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := resume(t.Context()); err != nil || f.count(procSuspend) != 1 || f.count(procResume) != 1 {
			t.Errorf("a domain that was paused (%v) was touched: %v, %v", reason, f.calls, err)
		}
	}
	// Its disk failed while we had it paused: it stays stopped.
	f.set(func() { f.state = 1 })
	if resume, err = dom.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.reason = uint32(golibvirt.DomainPausedIoerror) })
	if err := resume(t.Context()); err != nil || f.count(procResume) != 1 {
		t.Errorf("resumed after an I/O error: %v", err)
	}
}

// TestPauseHangs: a daemon that has not said whether it suspended the domain when the
// caller gives up is resumed, over another connection.
func TestPauseHangs(t *testing.T) {
	f := startFake(t, "web")
	dom := open(t, f)
	f.set(func() { f.hang = []uint32{procSuspend}; f.reason = 1 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for f.count(procSuspend) == 0 {
			time.Sleep(time.Millisecond)
		}
		f.set(func() { f.state = 3 }) // it did
		cancel()
	}()
	_, err := dom.Pause(ctx)
	if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "may be paused") || f.count(procResume) != 1 || f.state != 1 {
		t.Errorf("%v; calls %v", err, f.calls)
	}
}

// TestReconnect: a daemon that was restarted is connected to again, and one that drops
// every connection is given up.
func TestReconnect(t *testing.T) {
	f := startFake(t, "web")
	dom := open(t, f)
	f.set(func() { f.drop = []uint32{procGetState} })
	if s, err := dom.listState(t.Context()); s != vm.StateRunning || err != nil || f.conns != 2 {
		t.Errorf("%q, %v after %d connections", s, err, f.conns)
	}
	f.set(func() { f.drop = []uint32{procGetState, procGetState, procGetState} })
	if _, err := dom.listState(t.Context()); !errors.Is(explain("x", err), vm.ErrGone) {
		t.Errorf("%v", err)
	}
}

// TestHang: a daemon that hangs costs its time limit, at whatever it hangs, and several
// who wait for it wait at once.
func TestHang(t *testing.T) {
	for _, at := range []uint32{procAuthList, procOpen, procLookupUUID} {
		f := startFake(t, "web")
		f.hang = []uint32{at}
		d := New()
		began := time.Now()
		results := make(chan error)
		for range 4 {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				_, err := d.lookUp(ctx, f.at, f.uuid, proc.Process{PID: 71})
				results <- err
			}()
		}
		for range 4 {
			if err := <-results; !errors.Is(explain("x", err), vm.ErrBusy) || !strings.Contains(explain("x", err).Why, f.at.socket) {
				t.Errorf("hanging at %d: %v", at, err)
			}
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("hanging at %d took %v", at, took)
		}
	}
}

// TestLookUp: another daemon's domain is none of this one's.
func TestLookUp(t *testing.T) {
	f := startFake(t, "web")
	d := New()
	if _, err := d.lookUp(t.Context(), f.at, UUID{9}, proc.Process{PID: 71}); !errors.As(err, new(*unknownError)) {
		t.Errorf("an unknown UUID: %v", err)
	}
	dir := filepath.Join(filepath.Dir(f.at.socket), "qemu")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for text, ok := range map[string]bool{"71\n": true, "72": false, "": true} {
		if err := os.WriteFile(filepath.Join(dir, "web.pid"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		dom, err := d.lookUp(t.Context(), f.at, f.uuid, proc.Process{PID: 71})
		if (err == nil) != ok {
			t.Errorf("it runs as %q: %v", text, err)
		}
		if err == nil {
			dom.Close()
		}
	}
	if n := f.count(procClose); n != f.conns {
		t.Errorf("%d connections, %d closed in words", f.conns, n)
	}
}

// TestShared: domains of one daemon share a connection while they are open.
func TestShared(t *testing.T) {
	f := startFake(t, "web")
	d := New()
	var all []*domain
	for range 3 {
		dom, err := d.lookUp(t.Context(), f.at, f.uuid, proc.Process{PID: 71})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, dom)
	}
	for _, dom := range all {
		if f.conns != 1 || f.count(procClose) != 0 {
			t.Errorf("%d connections, %d closed", f.conns, f.count(procClose))
		}
		dom.Close()
	}
	if f.count(procClose) != 1 {
		t.Error("the last one did not close it")
	}
	if _, err := all[0].State(t.Context()); !errors.Is(err, vm.ErrGone) {
		t.Errorf("a closed domain answers: %v", err)
	}
}

// TestExecute: answers, refusals of QEMU's and of libvirt's, and nonsense.
func TestExecute(t *testing.T) {
	f := startFake(t, "web")
	dom := open(t, f)
	reply := ""
	f.monitor = func(command string) string {
		if command != `{"execute":"query-status"}` {
			t.Errorf("asked %q", command)
		}
		return reply
	}
	for _, c := range []struct {
		reply string
		kind  error
		words string
	}{
		{`{"return":{"status":"running"},"id":"libvirt-3"}`, nil, ""},
		{`{"id":"libvirt-3","error":{"class":"GenericError","desc":"no"}}`, nil, "QEMU refused query-status: no"},
		{"", vm.ErrGone, "the domain has ended"},
		{`{}`, nil, "neither a result nor an error"},
		{`]`, nil, "unexpected answer"},
	} {
		reply = c.reply
		s, err := dom.State(t.Context())
		switch {
		case c.words == "" && (err != nil || s != vm.StateRunning):
			t.Errorf("%q: %q, %v", c.reply, s, err)
		case c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)):
			t.Errorf("%q: %v", c.reply, err)
		case c.kind != nil && !errors.Is(err, c.kind):
			t.Errorf("%q: %v", c.reply, err)
		}
	}
	reply = `{"return":[1]}`
	if err := dom.ExecuteAll(t.Context(), &qmp.Command{Name: "query-status"}); err != nil {
		t.Errorf("an unwanted result: %v", err)
	}
}

// TestExplain: every failure says what to do.
func TestExplain(t *testing.T) {
	for _, err := range []error{
		errNone, &staleError{"/s"}, &unknownError{"/s"}, &daemonError{"/s", errTimeout}, &daemonError{"/s", os.ErrPermission},
		&daemonError{"/s", golibvirt.Error{Code: uint32(golibvirt.ErrAuthUnavailable)}}, &daemonError{"/s", golibvirt.ErrInterrupted},
		&daemonError{"/s", golibvirt.Error{Code: uint32(golibvirt.ErrNoDomain)}},
	} {
		e := explain("look", err)
		if e.Kind == nil || e.Why == "" || e.Do == "" || strings.Count(e.Error(), "/s") > 1 {
			t.Errorf("%v: %q, kind %v", err, e, e.Kind)
		}
	}
}

// TestNamed: the daemon that a URI names.
func TestNamed(t *testing.T) {
	for uri, want := range map[string]daemon{
		"qemu+unix:///system?socket=/run/x/libvirt-sock": {"/run/x/libvirt-sock", false},
		"qemu:///session?socket=/x":                      {"/x", true},
	} {
		if got, ok := named(uri); !ok || got != want {
			t.Errorf("%s: %+v %v", uri, got, ok)
		}
	}
	for _, uri := range []string{"", "qemu:///system", "qemu+ssh://host/system?socket=/x", "qemu+unix:///system?socket=x", "xen:///?socket=/x", "%"} {
		if got, ok := named(uri); ok {
			t.Errorf("%s: %+v", uri, got)
		}
	}
}
