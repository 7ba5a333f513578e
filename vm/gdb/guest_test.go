package gdb

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// machine is a QEMU without a guest, its monitor, and the path of its stub.
func machine(t *testing.T) (*qmp.Client, string) {
	t.Helper()
	labtest.NeedQEMU(t)
	dir := t.TempDir()
	q := exec.Command("qemu-system-x86_64", "-S", "-M", "q35", "-m", "16", "-nodefaults", "-display", "none", "-qmp", "unix:"+dir+"/qmp,server=on,wait=off")
	must(t, q.Start())
	t.Cleanup(func() {
		_ = q.Process.Kill()
		_ = q.Wait()
	})
	var c *qmp.Client
	var err error
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err = qmp.Dial(t.Context(), dir+"/qmp"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { c.Close() })
	path := filepath.Join(dir, "gdb")
	_, err = c.HMP(t.Context(), "gdbserver unix:"+path+",server=on,wait=off")
	must(t, err)
	return c, path
}

func status(t *testing.T, c *qmp.Client) string {
	t.Helper()
	var s struct{ Status string }
	must(t, c.Execute(t.Context(), "query-status", nil, &s))
	return s.Status
}

// TestGuestStub does with QEMU's own stub what the other tests do with one that is made for them.
func TestGuestStub(t *testing.T) {
	monitor, path := machine(t)
	c, err := Dial(t.Context(), path)
	must(t, err)
	defer c.Close()
	ctx := t.Context()
	regs, err := c.Registers(ctx)
	must(t, err)
	// Where a processor begins.
	if rip, ok := regs.Get("rip"); !ok || rip != 0xfff0 {
		t.Errorf("rip is %#x, %v", rip, ok)
	}
	for _, name := range []string{"rdi", "eflags", "gs_base", "k_gs_base", "cr3"} {
		if _, ok := regs.Get(name); !ok {
			t.Errorf("there is no register %s", name)
		}
	}
	// The last instructions of the firmware's 4 GiB: a far jump.
	b := make([]byte, 1)
	must(t, c.Memory(ctx, b, 0xfffffff0))
	if b[0] != 0xea {
		t.Errorf("the first instruction is %#x", b[0])
	}
	stop, err := c.Step(ctx, 0)
	if err != nil || stop.Signal != SignalTrap || stop.CPU != 0 {
		t.Fatalf("%+v, %v", stop, err)
	}
	regs, err = c.Registers(ctx)
	must(t, err)
	at, _ := regs.Get("rip")
	if at == 0xfff0 {
		t.Error("a step went nowhere")
	}
	must(t, c.ContinueWith(ctx, "rip", at))
	time.Sleep(10 * time.Millisecond)
	must(t, c.Interrupt())
	if stop, err = c.Wait(ctx); err != nil || stop.Signal != SignalInterrupt {
		t.Fatalf("%+v, %v", stop, err)
	}
	must(t, c.Continue())
	// Another stops it, and lets it run again.
	must(t, monitor.Execute(ctx, "stop", nil, nil))
	if stop, err = c.Wait(ctx); err != nil || stop.Signal != SignalInterrupt {
		t.Fatalf("%+v, %v", stop, err)
	}
	must(t, c.Acknowledge())
	time.Sleep(50 * time.Millisecond)
	must(t, monitor.Execute(ctx, "cont", nil, nil))
	must(t, c.Interrupt())
	if stop, err = c.Wait(ctx); err != nil || stop.Signal != SignalInterrupt {
		t.Fatalf("%+v, %v", stop, err)
	}
	must(t, c.Detach(ctx))
	if s := status(t, monitor); s != "running" {
		t.Errorf("after detaching the machine is %s", s)
	}
}

// TestGuestStubFreed has a client vanish while a watchpoint has stopped the machine.
func TestGuestStubFreed(t *testing.T) {
	monitor, path := machine(t)
	c, err := Dial(t.Context(), path)
	must(t, err)
	// The firmware uses the beginning of memory for its interrupt table.
	must(t, c.Watch(t.Context(), Write, 0x10*4, 4))
	must(t, c.Continue())
	stop, err := c.Wait(t.Context())
	if err != nil || stop.Access != Write || stop.Addr != 0x40 {
		t.Fatalf("%+v, %v", stop, err)
	}
	c.Close()
	if s := status(t, monitor); s != "debug" {
		t.Errorf("the machine is %s", s)
	}
	must(t, Free(t.Context(), path))
	if s := status(t, monitor); s != "running" {
		t.Errorf("freed, the machine is %s", s)
	}
}
