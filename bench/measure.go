package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// contestant is one way to list a guest's processes.
type contestant struct {
	name    string
	command []string
	chroot  string       // "": none
	input   string       // on standard input
	env     []string     // on top of our own
	want    string       // the output of a run that worked holds this
	before  func() error // makes ready for one run; may be nil
}

// result is what a contestant took.
type result struct {
	name   string
	wall   []time.Duration // sorted
	maxRSS int64           // bytes, the largest of all runs; never less than our own
	err    error           // why there is nothing to report
}

func (r result) median() time.Duration { return r.wall[len(r.wall)/2] }

func (c contestant) measure(ctx context.Context, runs int) result {
	r := result{name: c.name}
	for i := range runs + 1 {
		wall, rss, err := c.once(ctx)
		if err != nil {
			r.err = err
			return r
		}
		if i == 0 {
			continue // fills the page cache, and the cache of what has one
		}
		r.wall = append(r.wall, wall)
		r.maxRSS = max(r.maxRSS, rss)
	}
	slices.Sort(r.wall)
	return r
}

func (c contestant) once(ctx context.Context) (wall time.Duration, rss int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.command[0], c.command[1:]...)
	if c.chroot != "" {
		// Resolved inside the chroot, not here.
		cmd = &exec.Cmd{Path: c.command[0], Args: c.command, Dir: "/", SysProcAttr: &syscall.SysProcAttr{Chroot: c.chroot}}
	}
	if c.before != nil {
		if err := c.before(); err != nil {
			return 0, 0, err
		}
	}
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdin = strings.NewReader(c.input)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	start := time.Now()
	err = cmd.Run()
	wall = time.Since(start)
	if err == nil && !strings.Contains(out.String(), c.want) {
		err = errors.New("its output does not list the processes")
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, lastLine(errOut.String()+out.String()))
	}
	return wall, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10, nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// report prints the results, with ratios to the first one that was measured for
// a dump without a cache: the fairest comparison, as the others have none.
func report(w io.Writer, results []result) {
	base := slices.IndexFunc(results, func(r result) bool { return r.name == coldDump && r.err == nil })
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "whole process\tmedian\tfastest\tpeak memory\ttime, × outsight\tmemory, × outsight\t")
	for _, r := range results {
		if r.err != nil {
			continue
		}
		times, memory := "", ""
		if base >= 0 {
			times = fmt.Sprintf("%.1f", float64(r.median())/float64(results[base].median()))
			memory = fmt.Sprintf("%.1f", float64(r.maxRSS)/float64(results[base].maxRSS))
		}
		fmt.Fprintf(t, "%s\t%.1f ms\t%.1f ms\t%d MB\t%s\t%s\t\n", r.name, ms(r.median()), ms(r.wall[0]), r.maxRSS/1e6, times, memory)
	}
	t.Flush()
	for _, r := range results {
		if r.err != nil {
			fmt.Fprintf(w, "not measured: %s: %v\n", r.name, r.err)
		}
	}
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }
