// Disktree fills a file system with files of every kind, and says what the kernel shows of them, for tests that read its disk.
//
//	disktree fill DIR N           files, links, devices, attributes …, and directories of up to N names
//	disktree change DIR N         creates, renames, rewrites and deletes among what fill has made
//	disktree churn DIR            creates, renames and deletes without end, within 20 MB
//	disktree hold DIR             opens files in DIR, deletes them, prints "READY", and keeps them open
//	disktree list DIR FILE        all in DIR as lines of JSON, to a file or a device, after which follows a byte 0
//	disktree shutdown DIR         ends XFS at once, with the log written and nothing else
package main

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) < 3 {
		fail("usage: disktree fill|change|churn|hold|list|shutdown DIR [N|FILE]")
	}
	dir, more := os.Args[2], ""
	if len(os.Args) > 3 {
		more = os.Args[3]
	}
	switch os.Args[1] {
	case "fill":
		fill(dir, number(more))
	case "change":
		change(dir, number(more))
	case "churn":
		churn(dir)
	case "hold":
		hold(dir)
	case "list":
		list(dir, more)
	case "shutdown":
		shutdown(dir)
	default:
		fail("unknown command " + os.Args[1])
	}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	check(err)
	return n
}

func fail(what string) {
	fmt.Fprintln(os.Stderr, "disktree: "+what)
	os.Exit(1)
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

// goingDown is XFS_IOC_GOINGDOWN; with 1 the log is written first.
const goingDown = 0x8004587d

func shutdown(dir string) {
	f, err := os.Open(dir)
	check(err)
	check(unix.IoctlSetPointerInt(int(f.Fd()), goingDown, 1))
}
