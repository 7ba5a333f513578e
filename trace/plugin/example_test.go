package plugin_test

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/trace/plugin"
)

// Each system call of the guest that opens a file, with its number and its name.
func ExampleAssembler() {
	const number, name = plugin.Slot(0), plugin.Slot(1)
	a := &plugin.Assembler{}
	a.Probe(plugin.Probe{Where: plugin.AtSyscall, Arg: plugin.Syscall, ID: 1})
	a.Reg(number, "rax")
	open := a.Label()
	a.IfIn(number, []uint32{2, 257}, open)
	a.Drop()
	a.Set(open)
	a.Reg(name, "rsi")
	a.Put(number)
	a.String(0, name, 4096)
	a.End()

	ctx := context.Background()
	c, err := plugin.Dial(ctx, "/no/such/socket")
	if err != nil {
		fmt.Println("no plugin there")
		return
	}
	defer c.Close()
	s, err := c.Start(ctx, a, plugin.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	var r plugin.Record
	for s.Next(ctx, &r) == nil {
		items := r.Items()
		item, _ := items.Next()
		fmt.Println(r.Word(0), string(item.Data))
	}
	// Output: no plugin there
}
