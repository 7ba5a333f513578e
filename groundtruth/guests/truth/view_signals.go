package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func init() {
	views["signals"] = tellSignals
	views["signal_handlers"] = tellHandlers
	views["ptrace"] = tellPtrace
}

// status calls f with the fields of /proc/PID/task/TID/status of every thread.
func status(f func(pid, tid int, fields map[string]string) error) error {
	return eachThread(func(dir string, pid, tid int) error {
		fields := map[string]string{}
		err := lines(dir+"/status", func(line string) error {
			key, value, _ := strings.Cut(line, ":")
			fields[key] = strings.TrimSpace(value)
			return nil
		})
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			return nil // it has ended
		}
		if err != nil {
			return err
		}
		return f(pid, tid, fields)
	})
}

// signalNames are the signals of a set as /proc writes it; nil without any.
func signalNames(hex string) ([]string, error) {
	set, err := strconv.ParseUint(hex, 16, 64)
	var names []string
	for n := 1; n <= 64; n++ {
		if set>>(n-1)&1 == 0 {
			continue
		}
		name := unix.SignalName(unix.Signal(n))
		switch {
		case n == 34:
			name = "SIGRTMIN"
		case n > 34:
			name = fmt.Sprintf("SIGRTMIN+%d", n-34)
		case name == "":
			name = fmt.Sprintf("SIG%d", n)
		}
		names = append(names, name)
	}
	return names, err
}

func tellSignals(emit func(any) error) error {
	return status(func(pid, tid int, fields map[string]string) error {
		row := map[string]any{"pid": pid, "tid": tid}
		for column, field := range map[string]string{"pending": "SigPnd", "shared_pending": "ShdPnd", "blocked": "SigBlk", "ignored": "SigIgn", "caught": "SigCgt"} {
			names, err := signalNames(fields[field])
			if err != nil {
				return fmt.Errorf("%s of %d: %w", field, tid, err)
			}
			row[column] = any(nil)
			if names != nil {
				row[column] = names
			}
		}
		return emit(row)
	})
}

func tellHandlers(emit func(any) error) error {
	return status(func(pid, tid int, fields map[string]string) error {
		if pid != tid {
			return nil
		}
		for action, field := range map[string]string{"ignored": "SigIgn", "caught": "SigCgt"} {
			names, err := signalNames(fields[field])
			if err != nil {
				return err
			}
			for _, name := range names {
				if err := emit(map[string]any{"pid": pid, "name": name, "action": action}); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func tellPtrace(emit func(any) error) error {
	return status(func(pid, tid int, fields map[string]string) error {
		tracer, err := strconv.Atoi(fields["TracerPid"])
		if err != nil || tracer == 0 {
			return err
		}
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", tracer))
		if err != nil {
			return err
		}
		return emit(map[string]any{"pid": pid, "tid": tid, "tracer": tracer, "tracer_comm": strings.TrimSuffix(string(name), "\n")})
	})
}
