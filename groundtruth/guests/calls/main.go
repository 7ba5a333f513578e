// Command calls makes system calls whose arguments are known, for tests and benchmarks of what traces them.
//
//	calls time N ROUNDS     times ROUNDS times N calls of getppid; prints the nanoseconds of one: least, 10th percentile, median
//	calls count N SERIES    N calls of lseek on descriptors that do not exist, numbered; prints "done N"
//	calls until FILE SERIES the same until FILE exists; prints how many there were
package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
)

func main() {
	runtime.LockOSThread()
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: calls time N ROUNDS | count N SERIES | until FILE SERIES")
		os.Exit(2)
	}
	switch last := number(os.Args[3]); os.Args[1] {
	case "time":
		measure(number(os.Args[2]), last)
	case "count":
		n := number(os.Args[2])
		for i := range n {
			call(last, i)
		}
		fmt.Println("done", n)
	case "until":
		n := 0
		for began := time.Now(); ; n++ {
			call(last, n)
			if n%4096 != 0 {
				continue
			}
			if _, err := os.Stat(os.Args[2]); err == nil || time.Since(began) > 2*time.Hour {
				break
			}
		}
		fmt.Println("done", n+1)
	}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		fmt.Fprintf(os.Stderr, "calls: invalid number %q\n", s)
		os.Exit(2)
	}
	return n
}

// call is call number i of a series: the descriptor is the series, the position the number, whence five times the number's last
// bits.
func call(series, i int) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_LSEEK, uintptr(1000+series), uintptr(i), uintptr(i%5)) // EBADF: it is not open
}

func measure(n, rounds int) {
	times := make([]float64, rounds)
	for r := range times {
		began := time.Now()
		for range n {
			_, _, _ = syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0) // cannot fail
		}
		times[r] = float64(time.Since(began).Nanoseconds()) / float64(n)
	}
	slices.Sort(times)
	fmt.Printf("%.1f %.1f %.1f\n", times[0], times[rounds/10], times[rounds/2])
}
