package main

import (
	"os"
	"strings"
)

func init() {
	// /sys/kernel/debug/kprobes/list: address, k or r, where, flags.
	views["kprobes"] = func(emit func(any) error) error {
		if err := mountKernelFiles(); err != nil {
			return err
		}
		return lines("/sys/kernel/debug/kprobes/list", func(line string) error {
			f := strings.Fields(line)
			if len(f) < 3 {
				return nil
			}
			is := func(flag string) bool { return strings.Contains(line, "["+flag+"]") }
			return emit(map[string]any{
				"probed": "0x" + strings.TrimLeft(f[0], "0"), "return": f[1] == "r",
				"disabled": is("DISABLED"), "optimized": is("OPTIMIZED"), "ftrace": is("FTRACE"), "gone": is("GONE"),
			})
		})
	}
	// /sys/kernel/tracing/enabled_functions: name, number of users in parentheses.
	views["ftrace_functions"] = func(emit func(any) error) error {
		if err := mountKernelFiles(); err != nil {
			return err
		}
		return lines("/sys/kernel/tracing/enabled_functions", func(line string) error {
			name, rest, ok := strings.Cut(line, " (")
			users, _, ok2 := strings.Cut(rest, ")")
			if !ok || !ok2 {
				return nil
			}
			return emit(map[string]any{"name": strings.Fields(name)[0], "users": number(users)})
		})
	}
	// /sys/kernel/tracing/set_event: the events that are on. Those of system calls
	// share two tracepoints.
	views["tracepoints"] = func(emit func(any) error) error {
		if err := mountKernelFiles(); err != nil {
			return err
		}
		// Those made at run time are probes, not tracepoints.
		made, err := os.ReadFile("/sys/kernel/tracing/dynamic_events")
		if err != nil {
			return err
		}
		return lines("/sys/kernel/tracing/set_event", func(line string) error {
			group, name, _ := strings.Cut(line, ":")
			if group == "syscalls" || strings.Contains(string(made), ":"+group+"/"+name+" ") {
				return nil
			}
			return emit(map[string]any{"name": name, "enabled": true, "function_owner": "kernel"})
		})
	}
	views["lsm"] = func(emit func(any) error) error {
		if err := mountKernelFiles(); err != nil {
			return err
		}
		return lines("/sys/kernel/security/lsm", func(line string) error {
			for rank, name := range strings.Split(line, ",") {
				if err := emit(map[string]any{"lsm": name, "rank": rank, "active": true, "function_owner": "kernel"}); err != nil {
					return err
				}
			}
			return nil
		})
	}
}
