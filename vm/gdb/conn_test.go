package gdb

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSession(t *testing.T) {
	for name, noAck := range map[string]bool{"acknowledged": false, "unacknowledged": true} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t)
			s.noAck = noAck
			c := dialed(t, s)
			if running, _ := s.state(); running {
				t.Fatal("the machine runs, though somebody has connected")
			}
			ctx := t.Context()
			for a := range uint64(4) {
				must(t, c.Insert(ctx, Hardware, 0x1000+a))
			}
			if err := c.Insert(ctx, Hardware, 0x2000); !errors.Is(err, ErrRefused) {
				t.Errorf("a fifth breakpoint: %v", err)
			}
			must(t, c.Insert(ctx, Software, 0x2000))
			must(t, c.Remove(ctx, Software, 0x2000))
			must(t, c.Watch(ctx, Write, 0x3000, 8))
			must(t, c.Unwatch(ctx, Write, 0x3000, 8))
			must(t, c.Select(ctx, 0))
			must(t, c.Continue())
			for i := range 100 {
				<-s.resumed
				s.hit(uint64(0x1000+i), "")
				stop, err := c.Wait(ctx)
				if err != nil || stop.Signal != SignalTrap || stop.CPU != 1 {
					t.Fatalf("stop %d: %+v, %v", i, stop, err)
				}
				regs, err := c.Registers(ctx)
				must(t, err)
				if rip, ok := regs.Get("rip"); !ok || rip != uint64(0x1000+i) {
					t.Fatalf("rip is %#x, %v", rip, ok)
				}
				must(t, c.ContinueWith(ctx, "rip", uint64(0x1005+i)))
			}
			<-s.resumed
			must(t, c.Interrupt())
			stop, err := c.Wait(ctx)
			if err != nil || stop.Signal != SignalInterrupt {
				t.Fatalf("interrupted: %+v, %v", stop, err)
			}
			stop, err = c.Step(ctx, 1)
			if err != nil || stop.CPU != 1 || s.rip != 0x1005+99+1 {
				t.Errorf("step: %+v, %v, at %#x", stop, err, s.rip)
			}
			must(t, c.Detach(ctx))
			if running, set := s.state(); !running || set != 0 {
				t.Errorf("after detaching: runs %v, %d set", running, set)
			}
		})
	}
}

func TestRegisters(t *testing.T) {
	s := newStub(t)
	s.flags = 0x10246
	c := dialed(t, s)
	regs, err := c.Registers(t.Context())
	must(t, err)
	for name, want := range map[string]uint64{"rdi": 0xdeadbeef, "rip": 0x1000, "eflags": 0x10246, "gs_base": 0xffff888000000000} {
		if v, ok := regs.Get(name); !ok || v != want {
			t.Errorf("%s is %#x, %v", name, v, ok)
		}
	}
	for _, name := range []string{"rsp", "st0", "cr9", ""} { // unavailable, too wide, none
		if v, ok := regs.Get(name); ok {
			t.Errorf("%s is %#x", name, v)
		}
	}
	b := make([]byte, 3000)
	must(t, c.Memory(t.Context(), b, 0x5000))
	if strings.Trim(string(b), "Z") != "" {
		t.Errorf("memory: %q", b[:20])
	}
}

// Where a machine stops for another, and he lets it run again, it can still be asked to stop.
func TestStoppedByAnother(t *testing.T) {
	s := newStub(t)
	c := dialed(t, s)
	must(t, c.Continue())
	<-s.resumed
	s.mu.Lock()
	s.stop(SignalInterrupt)
	s.mu.Unlock()
	stop, err := c.Wait(t.Context())
	if err != nil || stop.Signal != SignalInterrupt {
		t.Fatalf("%+v, %v", stop, err)
	}
	must(t, c.Acknowledge())
	time.Sleep(20 * time.Millisecond) // the stub is to hear it while the machine stands still
	s.mu.Lock()
	s.running = true // without a stop reply that is to come
	s.mu.Unlock()
	must(t, c.Interrupt())
	if stop, err = c.Wait(t.Context()); err != nil || stop.Signal != SignalInterrupt {
		t.Fatalf("%+v, %v", stop, err)
	}
}

// A machine that was resumed quietly stops without a word, and is read all the same, also while it runs.
func TestQuiet(t *testing.T) {
	s := newStub(t)
	c := dialed(t, s)
	ctx := t.Context()
	must(t, c.ContinueQuietly(ctx, "", 0))
	for i := range uint64(50) {
		<-s.resumed
		s.hit(0x1000+i, "")
		regs, err := c.Registers(ctx)
		must(t, err)
		if rip, _ := regs.Get("rip"); rip != 0x1000+i {
			t.Fatalf("rip is %#x", rip)
		}
		must(t, c.ContinueQuietly(ctx, "rip", 0x2000+i))
		if running, _ := s.state(); !running {
			t.Fatal("it does not run")
		}
	}
	<-s.resumed
	for range 2 { // while it runs, and while it stands still
		regs, err := c.Halt(ctx)
		must(t, err)
		if rip, _ := regs.Get("rip"); rip != 0x2000+49 {
			t.Errorf("rip is %#x", rip)
		}
		if running, _ := s.state(); running {
			t.Error("it runs")
		}
	}
	must(t, c.Detach(ctx))
	if err := newConnOf(t, s).ContinueQuietly(ctx, "xyz", 0); !errors.Is(err, ErrUnsupported) {
		t.Errorf("%v", err)
	}
}

// newConnOf connects when the one before has been closed.
func newConnOf(t *testing.T, s *stub) *Conn {
	t.Helper()
	s.mu.Lock()
	s.conn.Close()
	s.mu.Unlock()
	return dialed(t, s)
}

// A wait that was given up loses nothing.
func TestWaitGivenUp(t *testing.T) {
	s := newStub(t)
	c := dialed(t, s)
	must(t, c.Continue())
	<-s.resumed
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("nothing stops: %v", err)
	}
	s.hit(0x1000, "watch:ffffffff81000000;")
	stop, err := c.Wait(t.Context())
	if err != nil || stop.Access != Write || stop.Addr != 0xffffffff81000000 {
		t.Errorf("%+v, %v", stop, err)
	}
}

// A client that vanishes leaves what it had set, and Free takes it away; the stop reply that was meant
// for the client that vanished does not matter.
func TestFree(t *testing.T) {
	s := newStub(t)
	c := dialed(t, s)
	must(t, c.Insert(t.Context(), Hardware, 0x1000))
	must(t, c.Continue())
	<-s.resumed
	s.hit(0x1000, "")
	c.Close()
	if running, set := s.state(); running || set != 1 {
		t.Fatalf("runs %v, %d set", running, set)
	}
	s.mu.Lock()
	s.spurious = "T02thread:01;"
	s.mu.Unlock()
	must(t, Free(t.Context(), s.path))
	if running, set := s.state(); !running || set != 0 {
		t.Errorf("runs %v, %d set", running, set)
	}
}

func TestClosed(t *testing.T) {
	s := newStub(t)
	c := dialed(t, s)
	must(t, c.Continue())
	<-s.resumed
	s.mu.Lock()
	s.conn.Close()
	s.mu.Unlock()
	if _, err := c.Wait(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	if _, err := Dial(t.Context(), s.path+"x"); err == nil {
		t.Error("a stub where none is")
	}
}

func TestUnsupported(t *testing.T) {
	s := newStub(t)
	c := dialed(t, s)
	if _, err := c.ask(t.Context(), "qNothing"); !errors.Is(err, ErrUnsupported) {
		t.Errorf("%v", err)
	}
	if err := c.ContinueWith(t.Context(), "xyz", 0); !errors.Is(err, ErrUnsupported) {
		t.Errorf("%v", err)
	}
	if err := c.Remove(t.Context(), Hardware, 7); !errors.Is(err, ErrRefused) {
		t.Errorf("%v", err)
	}
}
