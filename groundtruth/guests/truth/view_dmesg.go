package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func init() { views["dmesg"] = tellLog }

// tellLog reads /dev/kmsg, a record with each read.
func tellLog(emit func(any) error) error {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("/dev/kmsg: %w", err)
	}
	defer unix.Close(fd)
	b := make([]byte, 1<<16)
	for {
		n, err := unix.Read(fd, b)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR):
			continue // overwritten: the next read goes on behind
		case err != nil:
			return fmt.Errorf("/dev/kmsg: %w", err)
		}
		head, rest, ok := strings.Cut(string(b[:n]), ";")
		f := strings.Split(head, ",")
		if !ok || len(f) < 4 {
			return fmt.Errorf("/dev/kmsg: %q", b[:n])
		}
		line, fields, _ := strings.Cut(rest, "\n")
		priority, _ := strconv.ParseUint(f[0], 10, 32)
		row := map[string]any{"facility": priority >> 3, "level": priority & 7, "subsystem": nil, "device": nil}
		row["seq"], _ = strconv.ParseUint(f[1], 10, 64)
		for field := range strings.Lines(fields) {
			switch key, value, _ := strings.Cut(strings.TrimSpace(field), "="); key {
			case "SUBSYSTEM":
				row["subsystem"] = value
			case "DEVICE":
				row["device"] = value
			}
		}
		if !strings.Contains(line, `\x`) { // what is not printable is shown in another way
			row["text"] = line
		}
		if err := emit(row); err != nil {
			return err
		}
	}
}
