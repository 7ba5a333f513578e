package told_test

import (
	"fmt"
	"maps"
	"slices"

	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/trace/tcg"
	"github.com/outsight-vmi/outsight/trace/told"
)

// A program reads /proc/modules in two pieces, and then finds its end: only then is the answer complete.
func Example() {
	a := told.NewAssembler()
	position := int64(0)
	for _, piece := range []string{"loop 40960 0 - Live 0x0\nve", "th 36864 0 - Live 0x0\n", ""} {
		position += int64(len(piece))
		a.Add(&tcg.Answer{
			Call: "read", Process: &trace.Process{PID: 7, Comm: "lsmod"}, Result: int64(len(piece)), Data: []byte(piece), Status: syscall.Whole, Seen: true, Asked: 1, Args: [6]uint64{3, 0, 4096},
			File: tcg.File{Addr: 1, Inode: 2, Dentry: 3, Magic: told.MagicProc, Names: [3]string{"modules", "/", "/"}, Position: position},
		})
		for _, r := range a.Readings() {
			fmt.Println(r, slices.Sorted(maps.Keys(r.Names)))
		}
	}
	// Output: read of /proc/modules by process 7 (lsmod, lsmod) [loop veth]
}
