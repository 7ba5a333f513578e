package gdb_test

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/vm/gdb"
)

// What stops a machine at an address, once. The machine's monitor has opened the stub at a socket
// before: "gdbserver unix:/run/web.gdb,server=on,wait=off".
func Example() {
	once := func(ctx context.Context, addr uint64) error {
		c, err := gdb.Dial(ctx, "/run/web.gdb") // the machine stands still now
		if err != nil {
			return err
		}
		defer c.Close()
		defer c.Detach(ctx) // removes all, and lets it run
		if err := c.Insert(ctx, gdb.Hardware, addr); err != nil {
			return err
		}
		if err := c.Continue(); err != nil {
			return err
		}
		if _, err := c.Wait(ctx); err != nil {
			return err
		}
		regs, err := c.Registers(ctx)
		if err != nil {
			return err
		}
		rdi, _ := regs.Get("rdi")
		fmt.Printf("called with %#x\n", rdi)
		return nil
	}
	fmt.Println(once(context.Background(), 0xffffffff81000000))
	// Output: gdb stub: dial unix /run/web.gdb: connect: no such file or directory
}
