// Bench compares outsight with drgn and crash: each opens the same guest's memory
// and lists its processes, as a whole process from its start to its end, all in
// one run on one machine. It prints medians, peak memory and ratios, and judges
// nothing. What cannot be measured is listed with the reason.
//
// drgn and crash come from Debian's unstable suite, in a folder of their own that
// scripts/bench-tools makes; they need the kernel's debug package, hundreds of
// megabytes, which is fetched too. outsight needs neither.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/outsight-vmi/outsight/lab"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	outsight string
	kernel   string
	memory   uint64 // bytes
	sleepers int
	runs     int
	alone    bool
}

func run() error {
	var o options
	flag.StringVar(&o.outsight, "outsight", "bin/outsight", "the `binary` to measure")
	flag.StringVar(&o.kernel, "kernel", lab.DefaultKernel, "`kernel` of the guest")
	memory := flag.Uint64("memory", 512, "its RAM, in `MiB`")
	flag.IntVar(&o.sleepers, "processes", 500, "how many processes to start in it")
	flag.IntVar(&o.runs, "runs", 11, "how many `times` to run each tool")
	flag.BoolVar(&o.alone, "alone", false, "measure outsight only")
	copies := flag.Bool("copies", false, "measure only outsight dump, against cp")
	flag.Parse()
	o.memory = *memory << 20

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	if *copies {
		return benchCopies(ctx, o)
	}
	work, err := os.MkdirTemp("", "outsight-bench-")
	if err != nil {
		return fmt.Errorf("make a folder for the dumps: %w", err)
	}
	defer os.RemoveAll(work)

	var tools toolbox
	if !o.alone {
		tools = findTools(ctx)
		if tools.root != "" {
			// Inside the tools' folder, so that they see the dumps without a mount.
			work = filepath.Join(tools.root, "bench")
			if err := os.MkdirAll(work, 0o755); err != nil {
				return fmt.Errorf("make a folder for the dumps: %w", err)
			}
		}
	}
	g, err := bootGuest(ctx, o)
	if err != nil {
		return err
	}
	defer func() { _ = g.Down() }()

	results, err := measureLive(ctx, o, g)
	if err != nil {
		return err
	}
	d, err := takeDumps(ctx, g, work)
	if err != nil {
		return err
	}
	defer d.remove()
	if err := g.Down(); err != nil { // a guest that runs disturbs the measurement
		return fmt.Errorf("stop the guest: %w", err)
	}
	results = append(results, measureDumps(ctx, o, tools, g.Kernel, d)...)
	fmt.Fprintf(os.Stdout, "\nguest: Linux %s, %d MiB, about %d processes; %s\n\n", g.Kernel.Release, o.memory>>20, o.sleepers, host())
	report(os.Stdout, results)
	fmt.Fprintln(os.Stdout)
	if err := benchCopies(ctx, o); err != nil {
		fmt.Fprintf(os.Stdout, "not measured: outsight dump to a tmpfs: %v\n", err)
	}
	return ctx.Err()
}

func benchCopies(ctx context.Context, o options) error {
	copies, err := measureCopies(ctx, o)
	if err != nil {
		return err
	}
	reportCopies(os.Stdout, copies)
	return nil
}

func bootGuest(ctx context.Context, o options) (*lab.Guest, error) {
	g, err := lab.Up(ctx, lab.Options{Name: fmt.Sprintf("bench-%d", os.Getpid()), Kernel: o.kernel, Memory: o.memory, Progress: os.Stderr})
	if err != nil {
		return nil, err
	}
	start := fmt.Sprintf("i=0; while [ $i -lt %d ]; do sleep 100000 </dev/null >/dev/null 2>&1 & i=$((i+1)); done", o.sleepers)
	if _, err := g.Output(ctx, start); err != nil {
		_ = g.Down()
		return nil, fmt.Errorf("start processes in the guest: %w", err)
	}
	return g, nil
}

// host says what the numbers were measured on.
func host() string {
	b, _ := os.ReadFile("/proc/cpuinfo") // a line for people: without it, the count is enough
	model := "unknown processor"
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	n, _ := exec.Command("nproc").Output()
	return fmt.Sprintf("host: %s CPUs, %s", strings.TrimSpace(string(n)), model)
}
