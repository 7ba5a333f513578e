package main

import (
	"fmt"
	"os"
	"strings"
)

func init() {
	// Of work that runs the guest reports by its worker: behind the + in its name is the queue,
	// and its stack shows what process_one_work called. Of work that waits it reports nothing
	// that can be read without disturbing it.
	views["work_items"] = func(emit func(any) error) error {
		return eachProcess(func(pid int) error {
			comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			name, queue, busy := strings.Cut(strings.TrimSuffix(string(comm), "\n"), "+")
			if err != nil || !busy || !strings.HasPrefix(name, "kworker/") {
				return nil //nolint:nilerr // it has gone
			}
			row := map[string]any{"state": "running", "worker": queue, "queue": queue, "function_owner": "kernel"}
			var number, worker int64
			switch name = strings.TrimPrefix(name, "kworker/"); {
			case scan(name, "u%d:%d", &number, &worker):
				row["pool"], row["cpu"] = number, nil
			case scan(name, "%d:%d", &number, &worker):
				row["cpu"] = number
			default:
				return nil // a rescuer
			}
			stack, err := os.ReadFile(fmt.Sprintf("/proc/%d/stack", pid))
			if err != nil {
				return nil //nolint:nilerr // it has gone
			}
			before, _, ok := strings.Cut(string(stack), "\n[<0>] process_one_work+")
			if !ok {
				return nil // done meanwhile
			}
			last := before[strings.LastIndexByte(before, ' ')+1:]
			row["function_symbol"], _, _ = strings.Cut(last, "+")
			return emit(row)
		})
	}
}

func scan(s, format string, to ...any) bool {
	n, err := fmt.Sscanf(s, format, to...)
	return err == nil && n == len(to)
}
