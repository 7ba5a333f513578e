package tcg

import (
	"fmt"
	"strconv"

	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/syscall"
)

// x32Bit is in the numbers of calls of the x32 ABI: 64-bit code with 32-bit pointers.
const x32Bit = 0x40000000

// unknown fills an event of a call that is not known here, nor noted by the guest's kernel: its arguments are numbers.
func (j *joiner) unknown(e *trace.Event, c *call) {
	abi, n := c.nr>>32, c.nr&0xffffffff
	e.Name = fmt.Sprintf("syscall_%#x", n)
	if table := syscall.Table(syscall.ABI64); abi == abi64 && n >= x32Bit && n-x32Bit < uint64(len(table)) && table[n-x32Bit] != nil {
		e.Name = table[n-x32Bit].Name + "_x32" // most have the same number in both ABIs
	}
	j.text = j.text[:0]
	if c.seen {
		for i, a := range c.args {
			if i > 0 {
				j.text = append(j.text, ", "...)
			}
			if a != 0 {
				j.text = append(j.text, "0x"...)
			}
			j.text = strconv.AppendUint(j.text, a, 16)
		}
	}
	args := len(j.text)
	if c.returned {
		setErrno(e, c.result)
		j.text = callsByName()["close"].AppendResult(j.text, &syscall.Values{Returned: true, Result: c.result})
		e.Result = view(j.text[args:])
	}
	e.Args = view(j.text[:args])
}
