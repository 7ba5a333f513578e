package plugin

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

func TestGuestExp(t *testing.T) {
	g := labtest.Up(t, lab.Options{Name: "exp", Kernel: "6.12", Files: map[string]string{"/bin/loop": "/tmp/ev/loop"}, QEMUArgs: []string{"-plugin", "/tmp/outsight-plugin.so,socket=plugin"}})
	ctx := context.Background()
	fmt.Println("off", labtest.Output(t, g, "loop 100000"))
	c, err := Dial(ctx, g.Dir+"/plugin")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%+v\n", c.Hello)
	fmt.Println("connected", labtest.Output(t, g, "loop 100000"))
	for _, mode := range []int{2} {
		a := &Assembler{}
		a.Probe(Probe{Where: AtSyscall, Arg: Syscall, ID: 7})
		switch mode {
		case 0:
			a.Drop()
		case 1:
			a.Reg(0, "rax")
			l := a.Label()
			a.If(0, "==", 110, l)
			a.Drop()
			a.Set(l)
			a.Drop()
		case 2:
			for i, r := range []string{"rax", "rdi", "rsi", "rdx", "r10", "r8", "r9", "cr3", "k_gs_base"} {
				a.Reg(Slot(i), r)
			}
			a.Ctx(9, CtxPC)
			for i := range 10 {
				a.Put(Slot(i))
			}
			a.End()
		}
		s, err := c.Start(ctx, a, Options{})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		cc, cancel := context.WithCancel(ctx)
		done := make(chan error)
		go func() {
			var r Record
			for {
				if err := s.Next(cc, &r); err != nil {
					done <- err
					return
				}
				if n++; n < 4 {
					fmt.Printf("%v vcpu %d seq %d pc %#x nr %d args %#x cr3 %#x gs %#x\n", s.Time(&r), r.VCPU, r.Sequence, r.Word(9), r.Word(0), r.Word(1), r.Word(7), r.Word(8))
				}
			}
		}()
		fmt.Println("mode", mode, labtest.Output(t, g, "loop 100000; loop 100000"))
		time.Sleep(200 * time.Millisecond)
		cancel()
		fmt.Println("state", s.r.header.sequence, s.r.next, s.r.ring[0].head, s.r.ring[0].tail, s.r.header.waiting)
		fmt.Println(<-done, n, s.Lost(), time.Now())
	}
	c.Close()
	fmt.Println("closed", labtest.Output(t, g, "loop 100000"))
}
