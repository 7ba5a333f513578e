// Calls makes system calls whose arguments are known, for tests and benchmarks of what traces them.
//
//	calls time N ROUNDS     times ROUNDS times N calls of getppid; prints the nanoseconds of one: least, 10th percentile, median
//	calls count N SERIES    N calls of lseek that are numbered by position and result; prints "done N"
//	calls until FILE SERIES the same, with a pause after every 64, until FILE exists; prints how many there were
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
		open(last)
		n := number(os.Args[2])
		for i := range n {
			call(last, i)
		}
		fmt.Println("done", n)
	case "until":
		open(last)
		n := 0
		for began := time.Now(); ; n++ {
			call(last, n)
			if n%64 == 63 {
				_ = syscall.Nanosleep(&syscall.Timespec{Nsec: 500_000}, nil) // a signal may end it: no matter
			}
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

// open makes the descriptor of a series: 1000 more than its number.
func open(series int) {
	fd, err := syscall.Open(fmt.Sprintf("/tmp/calls-%d", series), syscall.O_CREAT|syscall.O_RDWR, 0o600)
	if err == nil {
		err = syscall.Dup3(fd, 1000+series, 0)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "calls: open a file: %v\n", err)
		os.Exit(1)
	}
}

// call is call number i of a series: position and result are the number.
func call(series, i int) {
	if n, _, errno := syscall.RawSyscall(syscall.SYS_LSEEK, uintptr(1000+series), uintptr(i), 0); errno != 0 || n != uintptr(i) {
		fmt.Fprintf(os.Stderr, "calls: lseek to %d: %d, %v\n", i, n, errno)
		os.Exit(1)
	}
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
