package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func init() {
	// Of the users of ftrace the guest names two kinds: the function tracer of each
	// instance of tracefs, and the kprobes that lie on what ftrace traces. Those of BPF
	// and live patches are told by enabled_functions by what they do only.
	views["ftrace"] = func(emit func(any) error) error {
		if err := mountKernelFiles(); err != nil {
			return err
		}
		const top = "/sys/kernel/tracing"
		instances, err := filepath.Glob(top + "/instances/*")
		if err != nil {
			return err
		}
		for _, dir := range append(instances, top) {
			if err := functionTracer(dir, emit); err != nil {
				return err
			}
		}
		return probesOfFtrace(emit)
	}
}

func functionTracer(dir string, emit func(any) error) error {
	tracer, err := os.ReadFile(dir + "/current_tracer")
	if err != nil || strings.TrimSpace(string(tracer)) != "function" {
		return err
	}
	row := map[string]any{"function_symbol": "function_trace_call", "function_owner": "kernel", "filter": nil}
	var filter []string
	err = lines(dir+"/set_ftrace_filter", func(line string) error {
		if !strings.HasPrefix(line, "#") { // all functions
			filter = append(filter, strings.Fields(line)[0])
		}
		return nil
	})
	if len(filter) > 0 {
		row["filter"] = filter
	}
	if err != nil {
		return err
	}
	return emit(row)
}

// probesOfFtrace are the kprobes that are on and of which /sys/kernel/debug/kprobes/list
// says [FTRACE]: all together one user.
func probesOfFtrace(emit func(any) error) error {
	var probed []string // address and name, in order of the address
	err := lines("/sys/kernel/debug/kprobes/list", func(line string) error {
		f := strings.Fields(line)
		if len(f) < 3 || !strings.Contains(line, "[FTRACE]") || strings.Contains(line, "[DISABLED]") {
			return nil
		}
		name, _, _ := strings.Cut(f[2], "+")
		probed = append(probed, fmt.Sprintf("%s %s", f[0], name))
		return nil
	})
	if err != nil || len(probed) == 0 {
		return err
	}
	slices.Sort(probed)
	probed = slices.Compact(probed)
	for i, p := range probed {
		_, probed[i], _ = strings.Cut(p, " ")
	}
	return emit(map[string]any{"function_symbol": "kprobe_ftrace_handler", "function_owner": "kernel", "filter": probed})
}
