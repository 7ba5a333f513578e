package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func init() { views["stacks"] = tellStacks }

// tellStacks reports where threads stand by /proc/PID/task/TID/stack, whose lines are
// "[<0>] function+0x1c/0x2f0 [module]". Of a running thread it has nothing to say.
func tellStacks(emit func(any) error) error {
	if _, err := os.Stat("/proc/self/stack"); errors.Is(err, fs.ErrNotExist) {
		return tellWaits(emit) // without CONFIG_STACKTRACE
	}
	return eachThread(func(dir string, pid, tid int) error {
		b, err := os.ReadFile(dir + "/stack")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
			return nil // it has ended
		}
		if err != nil {
			return err
		}
		var stack []string
		wchan := any(nil)
		for line := range strings.Lines(string(b)) {
			_, call, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "] ")
			where, module, inModule := strings.Cut(call, " [")
			function, _, _ := strings.Cut(where, "/")
			if len(stack) == 0 {
				name, _, _ := strings.Cut(function, "+")
				wchan = name
			}
			if inModule {
				function += " [" + module
			}
			stack = append(stack, function)
		}
		comm, err := os.ReadFile(dir + "/comm")
		if err != nil {
			return nil //nolint:nilerr // it has ended
		}
		row := map[string]any{"pid": pid, "tid": tid, "comm": strings.TrimSuffix(string(comm), "\n"), "wchan": wchan, "stack": nil}
		if stack != nil {
			row["stack"] = stack
		}
		return emit(row)
	})
}

// tellWaits reports the innermost function alone, by /proc/PID/task/TID/wchan, and that no stack
// is cut: the threads of a healthy kernel all lead to where they were born or entered it.
func tellWaits(emit func(any) error) error {
	return eachThread(func(dir string, pid, tid int) error {
		wchan, err1 := os.ReadFile(dir + "/wchan")
		comm, err2 := os.ReadFile(dir + "/comm")
		if err1 != nil || err2 != nil {
			return nil //nolint:nilerr // it has ended
		}
		row := map[string]any{"pid": pid, "tid": tid, "comm": strings.TrimSuffix(string(comm), "\n"), "wchan": nil, "cut": nil}
		if string(wchan) != "0" {
			row["wchan"] = string(wchan)
		}
		return emit(row)
	})
}
