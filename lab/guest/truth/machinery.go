package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountKernelFiles mounts tracefs, debugfs and securityfs where they are not.
func mountKernelFiles() error {
	for _, m := range [][2]string{{"tracefs", "/sys/kernel/tracing"}, {"debugfs", "/sys/kernel/debug"}, {"securityfs", "/sys/kernel/security"}} {
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m[0], err)
		}
	}
	return nil
}

// lines calls f with every line of a file.
func lines(path string, f func(line string) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	s := bufio.NewScanner(file)
	for s.Scan() {
		if err := f(s.Text()); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return s.Err()
}

// kernelFunctions are the addresses of the kernel's own functions, by name; those that
// have several are not there.
func kernelFunctions() (map[string]string, error) {
	all := map[string]string{}
	err := lines("/proc/kallsyms", func(line string) error {
		f := strings.Fields(line)
		if len(f) != 3 || f[1] != "T" && f[1] != "t" && f[1] != "W" { // modules have a fourth
			return nil
		}
		a, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil || a == 0 {
			return fmt.Errorf("address %q: %w", f[0], err)
		}
		if _, twice := all[f[2]]; twice {
			all[f[2]] = ""
		} else {
			all[f[2]] = fmt.Sprintf("%#x", a)
		}
		return nil
	})
	return all, err
}
