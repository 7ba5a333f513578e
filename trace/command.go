package trace

import (
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
)

// maxCommand bounds a command line, in bytes.
const maxCommand = 4096

// Run fills an event of kind [KindExec] with the arguments of the program.
func (e *Event) Run(args []string) {
	e.Args = CommandLine(args)
	size := 0
	for i, a := range args {
		if size += len(a); size > maxCommand {
			break
		}
		e.Fields = append(e.Fields, fmt.Sprintf("argv%d=%s", i, a))
	}
}

// End fills an event of kind [KindExit] with how the process ended, as wait(2) has it: its exit status, or the signal that
// killed it.
func (e *Event) End(status uint32) {
	if signal := status & 0x7f; signal != 0 {
		e.Result = "killed by " + linux.SignalName(int(signal))
		return
	}
	e.Return, e.Returned = int64(status>>8&0xff), true
	e.Result = fmt.Sprintf("status %d", e.Return)
}

// CommandLine is arguments as one types them into a shell.
func CommandLine(args []string) string {
	var b strings.Builder
	for i, a := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		if b.Len()+len(a) > maxCommand {
			b.WriteString("…")
			break
		}
		const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-=+,@%^"
		if a != "" && strings.Trim(a, plain) == "" {
			b.WriteString(a)
			continue
		}
		b.WriteString("'" + strings.ReplaceAll(a, "'", `'\''`) + "'")
	}
	return strings.Clone(b.String())
}
