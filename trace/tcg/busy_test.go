package tcg_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/lab"
)

// threads does something for each thread of a guest's QEMU and of this process.
func threads(tb testing.TB, g *lab.Guest, do func(pid int, tid string)) {
	tb.Helper()
	for _, pid := range []int{g.PID(), os.Getpid()} {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			tb.Fatal(err)
		}
		for _, t := range tasks {
			do(pid, t.Name())
		}
	}
}

// undisturbed gives what is measured the processors first, as far as that is allowed, and returns what says how often it had to wait for
// one all the same: the share of the time in which it could have run.
func undisturbed(b *testing.B, g *lab.Guest) (waited func() float64) {
	b.Helper()
	threads(b, g, func(_ int, tid string) {
		if n, err := strconv.Atoi(tid); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, n, -20) // only root may
		}
	})
	times := func() (ran, waited uint64) {
		threads(b, g, func(pid int, tid string) {
			var r, w uint64
			if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, tid)); err == nil { // else it has just ended
				fmt.Sscan(string(stat), &r, &w)
			}
			ran, waited = ran+r, waited+w
		})
		return ran, waited
	}
	ran, late := times()
	return func() float64 {
		r, w := times()
		return 100 * float64(w-late) / float64(max(1, r-ran+w-late))
	}
}
