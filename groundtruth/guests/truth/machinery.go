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

// eachSymbol calls f with every symbol of /proc/kallsyms: its address, its type as a letter,
// its name, and the module it is of, empty for the kernel's own.
func eachSymbol(f func(address uint64, kind, name, module string) error) error {
	return lines("/proc/kallsyms", func(line string) error {
		// ADDRESS TYPE NAME, and of a module's a tab and [MODULE].
		w := strings.Fields(line)
		if len(w) < 3 {
			return fmt.Errorf("line %q", line)
		}
		a, err := strconv.ParseUint(w[0], 16, 64)
		if err != nil {
			return fmt.Errorf("line %q: %w", line, err)
		}
		module := ""
		if len(w) > 3 {
			module = strings.Trim(w[3], "[]")
		}
		return f(a, w[1], w[2], module)
	})
}

// kernelFunctions are the addresses of the kernel's own functions, by name; those that
// have several are not there.
func kernelFunctions() (map[string]string, error) {
	all := map[string]string{}
	err := eachSymbol(func(a uint64, kind, name, module string) error {
		if module != "" || kind != "T" && kind != "t" && kind != "W" {
			return nil
		}
		if a == 0 {
			return fmt.Errorf("address of %s is hidden", name)
		}
		if _, twice := all[name]; twice {
			all[name] = ""
		} else {
			all[name] = fmt.Sprintf("%#x", a)
		}
		return nil
	})
	return all, err
}
