package tcg

import (
	"fmt"

	"github.com/outsight-vmi/outsight/trace"
)

// unknown fills an event of a call that is not known here, nor noted by the guest's kernel.
func (j *joiner) unknown(e *trace.Event, c *call) {
	abi, n := c.nr>>32, c.nr&0xffffffff
	e.Name = fmt.Sprintf("syscall_%#x", n)
	if abi == abi32 {
		e.Name += "_ia32"
	}
	if c.seen {
		e.Args = fmt.Sprintf("%#x, %#x, %#x, %#x, %#x, %#x", c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
	}
	if c.returned {
		e.Result = fmt.Sprintf("%#x", uint64(c.result))
	}
}
