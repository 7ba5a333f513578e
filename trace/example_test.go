package trace_test

import (
	"fmt"

	"github.com/outsight-vmi/outsight/trace"
)

func ExampleEvent() {
	e := trace.Event{
		Source: trace.FromPlugin, Kind: trace.KindSyscall, TID: 412,
		Process: &trace.Process{PID: 412, PPID: 1, Comm: "sshd"},
		Name:    "close", Args: "3", Result: "0", Returned: true,
	}
	for _, c := range trace.Columns {
		switch c.Name {
		case "event", "pid", "comm", "name", "result":
			fmt.Println(c.Name, c.Get(&e))
		}
	}
	// Output:
	// event syscall
	// pid 412
	// comm sshd
	// name close
	// result 0
}
