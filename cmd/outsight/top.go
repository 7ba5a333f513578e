package main

import (
	"errors"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/outsight-vmi/outsight/table/top"
)

const topLong = `Watch the processes of a guest on a screen that is redrawn each interval.

%CPU is how much of one processor a process used since the screen before. The keys are
in the last line: they sort, filter, draw the tree, and show a process's files, sockets
and maps. Arguments and users are read again every few seconds, everything else each time.

--batch prints the screens as plain text instead, -n of them. When the guest ends or is
rebooted, top says so and ends with status 3.`

// minInterval bounds how often a guest is read.
const minInterval = 100 * time.Millisecond

func newTopCommand() *cobra.Command {
	var access guestFlags
	var o top.Options
	var batch, once bool
	var frames int
	var interval time.Duration
	var sort string
	c := &cobra.Command{
		Use:   "top [TARGET]",
		Short: "Watch the processes of a guest",
		Long:  topLong,
		Example: `  outsight top lab:demo
  outsight top lab:demo --sort memory --filter nginx
  outsight top lab:demo -b -n 3 --interval 500ms`,
		GroupID:           groupAsk,
		Args:              oneTarget,
		ValidArgsFunction: completeTarget,
	}
	c.Flags().BoolVarP(&batch, "batch", "b", false, "print plain text")
	c.Flags().IntVarP(&frames, "iterations", "n", 0, "with --batch, how many `times`; 0: without end")
	c.Flags().BoolVar(&once, "once", false, "print once: --batch -n 1")
	c.Flags().DurationVar(&interval, "interval", 2*time.Second, "from one look to the next, at least 100ms")
	c.Flags().StringVar(&sort, "sort", "cpu", "`order` at the beginning: "+strings.Join(top.Orders, ", "))
	c.Flags().BoolVar(&o.Tree, "tree", false, "draw the tree")
	c.Flags().StringVar(&o.Filter, "filter", "", "only processes with this `text` in their name or arguments, or this number")
	c.Flags().BoolVar(&access.noCache, "no-cache", false, "analyze the kernel again, without the profiles kept on disk")
	_ = c.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(top.Orders, cobra.ShellCompDirectiveNoFileComp)) // it was defined above
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if once {
			if c.Flags().Changed("iterations") && frames != 1 {
				return usagef("--once prints once; leave -n out")
			}
			batch, frames = true, 1
		}
		switch o.Order, err = top.ParseOrder(sort); {
		case err != nil:
			return usagef("--sort: %w", err)
		case interval < minInterval:
			return usagef("--interval: %v is less than %v", interval, minInterval)
		case frames < 0:
			return usagef("-n: %d is less than 0", frames)
		case c.Flags().Changed("iterations") && !batch:
			return usagef("-n goes with --batch")
		}
		out, isFile := c.OutOrStdout().(*os.File)
		if !batch && (!isFile || !term.IsTerminal(int(out.Fd())) || !term.IsTerminal(int(os.Stdin.Fd()))) {
			return usagef("top needs a terminal; --batch prints plain text")
		}
		target := strings.Join(args, "")
		g, err := access.session(c.Context(), target)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.Close()) }()
		s := top.NewGuest(g)
		defer s.Close()
		debug.SetGCPercent(100) // unlike other runs, this one is long
		if batch {
			return top.Batch(c.Context(), s, c.OutOrStdout(), o, interval, frames, terminalWidth(c.OutOrStdout()))
		}
		return top.Run(c.Context(), s, os.Stdin, out, o, interval)
	}
	return c
}
