package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/lab"
)

// copyMemory is the RAM of the guest that is copied, in bytes, and copyFilled is how
// much of it is filled with what does not compress, in MiB.
const (
	copyMemory = 2 << 30
	copyFilled = 1536
)

// copied is how fast one format is written to a tmpfs, with and without a checksum, against
// "cp" of the file that is the guest's RAM.
type copied struct {
	filled   int // MiB of the guest's memory, beside what it uses itself
	format   string
	checksum string
	cp, dump []time.Duration // sorted
	ratios   []float64       // cp's time by dump's, pair by pair, sorted
}

// measureCopies takes the two in turns, since the speed of a tmpfs changes with what
// else the host does.
func measureCopies(ctx context.Context, o options) ([]copied, error) {
	binary, err := filepath.Abs(o.outsight)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", o.outsight, err)
	}
	g, err := lab.Up(ctx, lab.Options{Name: fmt.Sprintf("bench-copy-%d", os.Getpid()), Kernel: o.kernel, Memory: copyMemory, Progress: os.Stderr})
	if err != nil {
		return nil, err
	}
	defer func() { _ = g.Down() }()
	ram, err := memfd(g.PID())
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("/dev/shm", "outsight-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a folder in a tmpfs: %w", err)
	}
	defer os.RemoveAll(dir)
	m := copying{o, binary, "qemu:" + g.QMP(), ram, filepath.Join(dir, "copy")}
	all, err := m.measure(ctx, copied{format: "raw", checksum: "none"}, copied{format: "raw", checksum: "blake3"})
	if err != nil {
		return nil, err
	}
	fill := fmt.Sprintf("mkdir -p /filled && mount -t tmpfs -o size=%[1]dm filled /filled && dd if=/dev/urandom of=/filled/first bs=1M count=64 && "+
		"i=64; while [ $i -lt %[1]d ]; do cp /filled/first /filled/$i || exit; i=$((i+64)); done", copyFilled)
	if _, err := g.Output(ctx, fill); err != nil {
		return nil, fmt.Errorf("fill the guest's memory: %w", err)
	}
	full, err := m.measure(ctx, copied{filled: copyFilled, format: "raw", checksum: "none"}, copied{filled: copyFilled, format: "raw", checksum: "blake3"},
		copied{filled: copyFilled, format: "elf", checksum: "none"}, copied{filled: copyFilled, format: "lime", checksum: "none"})
	return append(all, full...), err
}

// copying is one guest that is copied.
type copying struct {
	o                        options
	binary, target, ram, out string
}

func (m copying) measure(ctx context.Context, all ...copied) ([]copied, error) {
	for n := range all {
		c := &all[n]
		for i := range m.o.runs + 1 {
			cp, err := timeCopy(ctx, m.out, "cp", m.ram, m.out)
			if err != nil {
				return nil, err
			}
			dump, err := timeCopy(ctx, m.out, m.binary, "dump", "--format", c.format, "--checksum", c.checksum, m.target, "-o", m.out)
			if err != nil {
				return nil, err
			}
			if i == 0 {
				continue
			}
			c.cp, c.dump, c.ratios = append(c.cp, cp), append(c.dump, dump), append(c.ratios, float64(cp)/float64(dump))
		}
		slices.Sort(c.cp)
		slices.Sort(c.dump)
		slices.Sort(c.ratios)
	}
	return all, nil
}

// memfd is the file that is the RAM of a QEMU.
func memfd(pid int) (string, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("find the guest's RAM: %w", err)
	}
	for _, fd := range fds {
		path := filepath.Join(dir, fd.Name())
		if to, err := os.Readlink(path); err == nil && strings.HasPrefix(to, "/memfd:memory-backend-memfd") {
			return path, nil
		}
	}
	return "", errors.New("find the guest's RAM: its QEMU has no memfd open")
}

func timeCopy(ctx context.Context, out, name string, args ...string) (time.Duration, error) {
	defer os.Remove(out)
	cmd := exec.CommandContext(ctx, name, args...)
	start := time.Now()
	said, err := cmd.CombinedOutput()
	took := time.Since(start)
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", filepath.Base(name), err, lastLine(string(said)))
	}
	return took, nil
}

func reportCopies(w io.Writer, all []copied) {
	for _, c := range all {
		n := len(c.ratios) / 2
		fmt.Fprintf(w, "outsight dump --format %-4s --checksum %-6s of %d MiB, %d filled, to a tmpfs: %.0f ms; cp of its RAM: %.0f ms; %.0f %% of cp's speed (median of pairs; %.0f to %.0f)\n",
			c.format, c.checksum, copyMemory>>20, c.filled, ms(c.dump[n]), ms(c.cp[n]), 100*c.ratios[n], 100*c.ratios[0], 100*c.ratios[len(c.ratios)-1])
	}
}
