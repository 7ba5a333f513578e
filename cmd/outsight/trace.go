package main

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

const traceLong = `Trace the system calls of a guest, of all its processes at once, from outside.

Lines read as strace's do. Each call is shown when it has returned; one that does not return (exit) when it begins.
Nothing is in the guest: QEMU translates it (TCG) and has outsight's plugin, see "outsight plugin". When the trace
ends, however it ends, the guest runs at full speed again.

Events that found no room are counted, and reported at the end: a slower output loses some, the guest never waits.`

// traceView documents and encodes events as rows of views are.
var traceView = table.New(table.Spec{Name: "trace", Doc: traceLong, Columns: trace.Documented(), Live: true})

// traceFlags are the flags of "outsight trace".
type traceFlags struct {
	calls               []string
	probes, writes      []string
	hold                string
	holdCalls           []string
	holdFor             time.Duration
	holdStop            bool
	holdDumps           string
	pids                []int64
	comms, exes, inside []string
	limit               int
	summary, strace     bool
	sessions            sessionFlags
	cr3, switches       bool
	plant               bool
	tracepoints         []string
}

func newTraceCommand() *cobra.Command {
	var access guestFlags
	var out outputFlags
	var f traceFlags
	filter := newFilterFlags(table.SpecOf(traceView))
	c := &cobra.Command{
		Use:   "trace [TARGET]",
		Short: "Trace the system calls of a guest",
		Long:  traceLong,
		Example: `  outsight trace lab:demo
  outsight trace lab:demo --syscalls openat,execve,connect --comm sshd
  outsight trace lab:demo --where 'errno == "EACCES"' -o json
  outsight trace lab:demo --summary
  outsight trace lab:demo --probe 'vfs_unlink dentry->d_name.name:string' --probe 'vfs_unlink%return $retval'
  outsight trace lab:demo --write modprobe_path:256
  outsight trace lab:demo --hold-exec ./decide
  outsight trace lab:demo --sessions recordings
  outsight trace vm1 --plant
  outsight trace vm1 --plant --tracepoint 'signal_generate sig task->pid task->comm'
  outsight trace lab:demo --cr3 --summary`,
		GroupID:           groupAsk,
		Args:              oneTarget,
		ValidArgsFunction: completeTarget,
	}
	out.add(c, trace.Documented())
	filter.add(c)
	setLongHelp(c, traceView)
	c.Flags().StringSliceVar(&f.calls, "syscalls", nil, "only these system calls: `names` with commas between them, io_uring for its operations, or all")
	c.Flags().StringArrayVar(&f.probes, "probe", nil, "show each call of a function of the kernel, or of a program or library, instead: `'[PATH:]FUNCTION[+OFFSET|%return] ARG...'`; may be repeated")
	c.Flags().StringArrayVar(&f.writes, "write", nil, "show each store into a place instead: `ADDRESS|SYMBOL[:BYTES]`; may be repeated")
	c.Flags().StringVar(&f.hold, "hold-exec", "", "let the guest wait in front of each call of --hold-calls until this `command` has ended, which gets the event as JSON; unless its status is 0, the machine is paused; see also --hold-dumps")
	c.Flags().StringVar(&f.holdDumps, "hold-dumps", "", "if the status of --hold-exec is 10, dump the paused machine to a file in this `folder`, and let it go on")
	c.Flags().StringSliceVar(&f.holdCalls, "hold-calls", []string{"execve", "execveat"}, "system calls that --hold-exec decides about: `names` with commas between them")
	c.Flags().DurationVar(&f.holdFor, "hold-limit", time.Second, "how long the guest waits at most; then the call is done, or see --hold-stop")
	c.Flags().BoolVar(&f.holdStop, "hold-stop", false, "stop QEMU (SIGSTOP) where nobody decided in time")
	f.sessions.add(c)
	c.Flags().StringSliceVar(&f.comms, "comm", nil, "only processes with one of these `names`")
	c.Flags().StringSliceVar(&f.exes, "exe", nil, "only processes that run one of these `files`")
	c.Flags().StringSliceVar(&f.inside, "container", nil, "only processes in containers whose short ID begins with one of these `IDs`")
	c.Flags().BoolVar(&f.cr3, "cr3", false, "show address spaces instead, as they are created and end, by what processors load into CR3: needs to know nothing of the guest's system")
	c.Flags().BoolVar(&f.switches, "switches", false, "with --cr3: show each time that a processor goes on with another address space, too")
	c.Flags().BoolVar(&f.plant, "plant", false, "with any monitor, KVM too: plant probes in the guest, read and remove them; shows processes, modules and a few system calls, or those of --syscalls: see outsight probe and docs/planted.md")
	c.Flags().StringArrayVar(&f.tracepoints, "tracepoint", nil, "with --plant: show each passage of this tracepoint of the kernel's, too: `'NAME ARG[->MEMBER]...'`; may be repeated")
	c.Flags().IntVar(&f.limit, "string-limit", 32, "show so many `bytes` of strings and buffers, as strace -s")
	c.Flags().BoolVar(&f.summary, "summary", false, "count calls, errors and time instead, and print a table at the end, as strace -c; with --cr3 as top")
	c.Flags().BoolVar(&access.noCache, "no-cache", false, "analyze the kernel again, without the profiles kept on disk")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		// A trace reads as strace's output where the user asked for nothing else.
		f.strace = !c.Flags().Changed("output") && !c.Flags().Changed("columns")
		o, err := out.parse(c.OutOrStdout(), trace.Documented())
		if err != nil {
			return err
		}
		where, err := filter.expression()
		if err != nil {
			return err
		}
		f.pids = filter.pids
		if f.cr3 {
			return f.runCR3(c, &access, strings.Join(args, ""), o, where)
		}
		if f.switches {
			return usagef("--switches goes with --cr3")
		}
		for _, name := range []string{"hold-calls", "hold-limit", "hold-stop", "hold-dumps"} {
			if f.hold == "" && c.Flags().Changed(name) {
				return usagef("--%s goes with --hold-exec", name)
			}
		}
		options, err := f.options(o)
		if err != nil {
			return err
		}
		if len(f.tracepoints) > 0 && !f.plant {
			return usagef("--tracepoint goes with --plant; --probe shows calls of functions by the plugin")
		}
		if f.plant {
			return f.runPlanted(c, &access, optionalTarget(args), o, where, options)
		}
		if err := f.sessions.check(&f); err != nil {
			return err
		}
		g, err := access.session(c.Context(), strings.Join(args, ""))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.Close()) }()
		if err := f.sessions.begin(strings.Join(args, "")); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.sessions.Close()) }()
		options.Hold.Snapshot = f.snapshots(g)
		warnStill(c.Context(), g)
		s, err := tcg.Start(c.Context(), g, options)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		return f.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), s, o, where)
	}
	return c
}

// options are those of the source.
func (f *traceFlags) options(o output) (t tcg.Options, err error) {
	if f.limit < 1 || f.limit > 1<<16 {
		return t, usagef("--string-limit: %d is not between 1 and %d", f.limit, 1<<16)
	}
	t.Limit = f.limit
	t.IOURing = slices.Contains(f.calls, "io_uring") || slices.Contains(f.calls, "all")
	if f.calls != nil && !slices.Contains(f.calls, "all") {
		t.Calls = slices.DeleteFunc(append([]string{}, f.calls...), func(n string) bool { return n == "io_uring" })
	}
	if t.Probes, t.Writes = f.probes, f.writes; (len(f.probes)+len(f.writes) > 0 || f.sessions.folder != "") && f.calls == nil {
		t.Calls = []string{}
	}
	t.IOURing = t.IOURing || t.Calls == nil
	t.Terminals = f.sessions.folder != ""
	if f.hold != "" {
		if err := f.checkHold(); err != nil {
			return t, err
		}
		t.Hold = tcg.Hold{Calls: f.holdCalls, Decide: f.decide, Limit: f.holdFor, Stop: f.holdStop}
	}
	for _, p := range f.pids {
		t.PIDs = append(t.PIDs, int32(p))
	}
	for _, i := range o.options.Columns {
		t.Fields = t.Fields || trace.Documented()[i].Name == "fields" && !f.strace && !f.summary
	}
	return t, nil
}

// wants says whether an event is of a process that was asked for.
func (f *traceFlags) wants(e *trace.Event) bool {
	p := e.Process
	if p == nil {
		return len(f.comms)+len(f.exes)+len(f.inside)+len(f.pids) == 0
	}
	if f.cr3 && len(f.pids) > 0 && !slices.Contains(f.pids, int64(p.PID)) {
		return false // else the plugin sees to it
	}
	return anyOf(f.comms, p.Comm, equal) && anyOf(f.exes, p.Exe, equal) && anyOf(f.inside, p.Container, strings.HasPrefix)
}

func anyOf(list []string, s string, is func(s, one string) bool) bool {
	for _, one := range list {
		if is(s, one) {
			return true
		}
	}
	return len(list) == 0
}

func equal(a, b string) bool { return a == b }
