package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/where"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/breakpoint"
	"github.com/outsight-vmi/outsight/trace/polling"
	"github.com/outsight-vmi/outsight/trace/tcg"
	"github.com/outsight-vmi/outsight/vm"
)

const watchLong = `Show what happens in a guest, as it happens, until it is interrupted or the guest ends: processes
that start, run another program or end, connections and who waits for them, changes of
credentials, modules, mounts, network interfaces and BPF programs that come and go, logs that are
deleted or emptied, memory without a file that can be executed, calls for rights that were refused, reboots; and, with --findings, what check finds.

The first line on standard error names the source of the events, the best that the target offers:
the plugin in a QEMU that translates the guest (outsight lab up --trace, outsight plugin install) sees each
of them as it happens; what it does not see, and all of it elsewhere, is polled. Polling compares two looks at the
guest's memory: it works with every monitor and costs the guest nothing, but what came and went in
between is counted, not seen (events of kind lost). --source breakpoint sees each event of up to four
kinds (more under TCG), by QEMU's gdb stub, and stops the guest for a moment at each. --plant sees each process and module
with any monitor, by probes that it plants in the guest: the only way that writes into it.

A note marks what matters most: a shell, interpreter or downloader below a process that accepts
connections, execution of memory that no file holds, a process that became root without the right to.

Exit status: 3 when the guest has ended; 130 when interrupted.`

type watchFlags struct {
	guest    guestFlags
	out      outputFlags
	every    time.Duration
	kinds    []string
	where    string
	findings time.Duration
	from     string // the source
	plant    bool
}

// watchKinds are the kinds of events of the feed.
var watchKinds = []trace.Kind{
	trace.KindFork, trace.KindExec, trace.KindExit, trace.KindCreds, trace.KindConnect, trace.KindAccept, trace.KindListen, trace.KindClose,
	trace.KindModule, trace.KindUnload, trace.KindMount, trace.KindUnmount, trace.KindUnlink, trace.KindDevice, trace.KindBPF,
	trace.KindFinding, trace.KindNewCode, trace.KindRefused, trace.KindLost, trace.KindBoot,
}

func newWatchCommand() *cobra.Command {
	var f watchFlags
	c := &cobra.Command{
		Use:   "watch [TARGET]",
		Short: "Show what happens in a guest, as it happens",
		Long:  watchLong,
		Example: `  outsight watch lab:demo
  outsight watch vm1 --kinds exec,creds,module -o json
  outsight watch vm1 --where 'uid == 0 && event == "exec"'
  outsight watch vm1 --where 'note != null'
  outsight watch vm1 --findings=10s
  outsight watch vm1 --source breakpoint --kinds exec,module
  outsight watch vm1 --plant`,
		GroupID:           groupAsk,
		Args:              oneTarget,
		ValidArgsFunction: completeTarget,
		RunE:              func(c *cobra.Command, args []string) error { return f.run(c, optionalTarget(args)) },
	}
	var names []string
	for _, k := range watchKinds {
		names = append(names, string(k))
	}
	f.out.add(c, trace.Documented())
	_ = c.Flags().MarkHidden("sort") // events come as they happen
	c.Flags().DurationVar(&f.every, "every", polling.DefaultEvery, fmt.Sprintf("look at the processes once in this `time`, at least %v", polling.MinEvery))
	c.Flags().StringVar(&f.from, "source", sourceBest, "best: the plugin if QEMU has it, else polling; or plugin, polling, or breakpoint: QEMU's gdb stub, which stops the guest for a moment at each event and misses none of few kinds (docs/events.md)")
	_ = c.RegisterFlagCompletionFunc("source", cobra.FixedCompletions(watchSources, cobra.ShellCompDirectiveNoFileComp))
	c.Flags().BoolVar(&f.plant, "plant", false, "with any monitor, KVM too: plant probes in the guest that report each process and module, and remove them at the end; the rest is polled: see outsight probe and docs/planted.md")
	c.Flags().StringSliceVar(&f.kinds, "kinds", nil, "only these `kinds` of events, with commas between them: "+strings.Join(names, ", "))
	c.Flags().StringVar(&f.where, "where", "", "only events for which this `expression` over the columns is true, in CEL: 'uid == 0 && event == \"exec\"'")
	c.Flags().DurationVar(&f.findings, "findings", 0, "judge the guest as check does, once in this `time`, and show what is found; 30s if no time is given")
	c.Flags().Lookup("findings").NoOptDefVal = "30s"
	c.Flags().BoolVar(&f.guest.noCache, "no-cache", false, "analyze the kernel again, without the profiles kept on disk")
	_ = c.RegisterFlagCompletionFunc("kinds", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (f *watchFlags) run(c *cobra.Command, target string) (err error) {
	ctx := c.Context()
	var kinds []trace.Kind
	for _, name := range f.kinds {
		if !slices.Contains(watchKinds, trace.Kind(name)) {
			return usagef("--kinds: no kind %q of events; the kinds are %s", name, kindNames(watchKinds))
		}
		kinds = append(kinds, trace.Kind(name))
	}
	switch {
	case !slices.Contains(watchSources, f.from):
		return usagef("--source: no source %q; there are %s", f.from, strings.Join(watchSources, ", "))
	case f.from == string(trace.FromBreakpoint) && (f.findings != 0 || c.Flags().Changed("every")):
		return usagef("--source breakpoint: --every and --findings go with polling")
	case f.plant && f.from != sourceBest:
		return usagef("--plant is a source of its own: leave --source out")
	case f.every < polling.MinEvery:
		return usagef("--every %v: at least %v", f.every, polling.MinEvery)
	case f.findings != 0 && f.findings < 100*time.Millisecond:
		return usagef("--findings %v: at least 100ms", f.findings)
	case f.out.sort != "":
		return usagef("--sort: events come as they happen")
	}
	var filter *where.Filter
	if f.where != "" {
		if filter, err = where.Compile(trace.Documented(), f.where); err != nil {
			return usagef("--where: %w", err)
		}
	}
	o, err := f.out.parse(c.OutOrStdout(), trace.Documented())
	if err != nil {
		return err
	}
	g, err := f.guest.session(ctx, target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	if !g.Machine().Live() {
		return &vm.Error{Kind: vm.ErrUnsupported, What: "watch " + g.Target(), Why: "it is a dump, in which nothing happens", Do: "name a running machine"}
	}
	debug.SetGCPercent(100) // unlike other runs, this one is long
	sensors := trace.NewSensors()
	if err := prime(ctx, g, sensors); err != nil {
		return err
	}
	warnStill(ctx, g)
	source := f.source
	if f.plant {
		source = func(ctx context.Context, g *guest.Guest, kinds []trace.Kind) (trace.Stream, string, error) {
			return f.byPlanted(ctx, c, g, kinds)
		}
	}
	stream, named, err := source(ctx, g, kinds)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	fmt.Fprintf(c.ErrOrStderr(), "outsight: watching %s %s\n", sentence(g.Target()), named)
	show, err := f.shower(c.OutOrStdout(), o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, show.Close()) }()
	w := &watcher{guest: g, stream: stream, sensors: sensors, kinds: kinds, filter: eventFilter{where: filter}, show: show}
	return w.run(ctx, f.lines(o))
}

// sourceBest is the source that a target offers.
const sourceBest = "best"

var watchSources = []string{sourceBest, string(trace.FromPlugin), string(trace.FromPolling), string(trace.FromBreakpoint)}

// source is the best source of events that the target offers, and what it is called.
func (f *watchFlags) source(ctx context.Context, g *guest.Guest, kinds []trace.Kind) (trace.Stream, string, error) {
	switch available := tcg.Available(g.Machine()); {
	case f.from == string(trace.FromBreakpoint):
		s, err := breakpoint.Start(ctx, g, breakpoint.Options{Kinds: kinds})
		if err != nil {
			return nil, "", err
		}
		if kinds == nil {
			kinds = breakpoint.Default()
		}
		return trace.Merge(s), fmt.Sprintf("by breakpoints: %s; the guest stops for a moment at each", kindNames(kinds)), nil
	case f.from == string(trace.FromPolling):
	case available == nil:
		s, named, err := f.byPlugin(ctx, g, kinds)
		if err == nil || ctx.Err() != nil || f.from != sourceBest {
			return s, named, err
		}
		warn(fmt.Errorf("not by the plugin: %w", err))
	case f.from == string(trace.FromPlugin):
		return nil, "", available
	}
	s, err := f.polled(ctx, g, forSensors(kinds), false)
	if err != nil {
		return nil, "", err
	}
	return trace.Merge(s), f.byPolling(kinds), nil
}

// byPolling is what polling is called, with what it cannot see of the kinds that are wanted (nil: all).
func (f *watchFlags) byPolling(kinds []trace.Kind) string {
	how := fmt.Sprintf("by polling: processes every %v, sockets 250ms, the rest 1s or more; of what is shorter, processes and TCP connections are counted", f.every)
	blind := slices.DeleteFunc(polling.Blind(), func(k trace.Kind) bool { return kinds != nil && !slices.Contains(kinds, k) })
	if len(blind) > 0 {
		how += "; polling cannot see " + kindNames(blind)
	}
	return how
}

// byPlugin has the plugin say what it sees, and polls the rest.
func (f *watchFlags) byPlugin(ctx context.Context, g *guest.Guest, kinds []trace.Kind) (trace.Stream, string, error) {
	l, err := g.Look(ctx)
	if err != nil {
		return nil, "", err
	}
	seen := tcg.KindsOf(l)
	l.Close()
	wanted := forSensors(kinds)
	if wanted == nil {
		wanted = watchKinds
	}
	seen = slices.DeleteFunc(seen, func(k trace.Kind) bool { return !slices.Contains(wanted, k) })
	if len(seen) == 0 {
		return nil, "", fmt.Errorf("the plugin sees nothing of %s", kindNames(kinds))
	}
	rest := slices.DeleteFunc(slices.Clone(wanted), func(k trace.Kind) bool { return slices.Contains(seen, k) })
	named := rest
	beside := !slices.Contains(rest, trace.KindCreds)
	if beside && slices.Contains(wanted, trace.KindCreds) {
		rest = append(rest, trace.KindCreds) // those that were changed in place
	}
	polled, err := f.polled(ctx, g, rest, beside)
	if err != nil {
		return nil, "", err
	}
	s, err := tcg.Start(ctx, g, tcg.Options{Calls: []string{}, Kinds: seen})
	if err != nil {
		return nil, "", errors.Join(err, polled.Close())
	}
	how := "by the plugin in QEMU, each as it happens: " + kindNames(seen)
	named = slices.DeleteFunc(named, func(k trace.Kind) bool {
		switch k {
		case trace.KindDevice, trace.KindBPF, trace.KindClose:
			return false
		case trace.KindFinding:
			return f.findings == 0
		}
		return !slices.Contains(tcg.Kinds(), k)
	})
	var unseen []trace.Kind
	named = slices.DeleteFunc(named, func(k trace.Kind) bool {
		if !slices.Contains(polling.Blind(), k) {
			return false
		}
		unseen = append(unseen, k)
		return true
	})
	if len(named) > 0 {
		how += "; by polling: " + kindNames(named)
	}
	if len(unseen) > 0 {
		how += "; not seen with this kernel: " + kindNames(unseen)
	}
	return trace.Merge(s, polled), how, nil
}

// polled begins to poll.
func (f *watchFlags) polled(ctx context.Context, g *guest.Guest, kinds []trace.Kind, beside bool) (*polling.Stream, error) {
	o := polling.Options{Every: f.every, Kinds: kinds, Beside: beside, Warn: func(err error) { warn(err) }}
	if f.findings > 0 {
		o.Findings, o.FindingsEvery = findingsOf(g, roundsOf(f.findings)...), f.findings
	}
	return polling.Start(ctx, g, o)
}

func kindNames(kinds []trace.Kind) string {
	var names []string
	for _, k := range kinds {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// forSensors are the kinds that a source has to give for those that are wanted: the sensors learn from
// some that are not shown.
func forSensors(kinds []trace.Kind) []trace.Kind {
	if kinds == nil {
		return nil
	}
	all := slices.Clone(kinds)
	if slices.Contains(kinds, trace.KindExec) {
		all = append(all, trace.KindFork, trace.KindExit, trace.KindListen, trace.KindAccept)
	}
	return all
}

// prime tells the sensors of the guest as it is. What they could not be told makes no difference but
// to notes.
func prime(ctx context.Context, g *guest.Guest, s *trace.Sensors) error {
	l, err := g.Look(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := s.Prime(ctx, l); err != nil && ctx.Err() == nil {
		warn(fmt.Errorf("sensors: %w", err))
	}
	return ctx.Err()
}

// findingsOf judges g with all checks. What cannot be checked this time is as it was before.
func findingsOf(g *guest.Guest, options ...check.Option) polling.Judge {
	options = append(options, check.Remember(&check.History{}))
	before := map[*check.Check][]polling.Finding{}
	return func(ctx context.Context) ([]polling.Finding, error) {
		result, err := check.Run(ctx, g, check.All(), options...)
		if err != nil {
			return nil, err
		}
		now := map[*check.Check][]polling.Finding{}
		for _, f := range result.Findings {
			now[f.Check] = append(now[f.Check], polling.Finding{Key: f.Key(), Check: f.Check.ID, Title: f.Title, Object: f.Object.String(), PID: f.Object.PID})
		}
		var all []polling.Finding
		for _, k := range check.All() {
			if now[k] == nil && result.Gap(k) {
				now[k] = before[k]
			}
			all = append(all, now[k]...)
		}
		before = now
		return all, nil
	}
}

// lines reports whether events are shown as lines for people.
func (f *watchFlags) lines(o output) bool { return o.format == table.Table && f.out.columns == "" }

// shower writes events, each at once.
func (f *watchFlags) shower(w io.Writer, o output) (show shower, err error) {
	if f.lines(o) {
		show, err = newEventLines(w, !f.out.noHeader)
	} else {
		show, err = newEventRows(w, o, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("write the output: %w", err)
	}
	return show, nil
}

// watcher passes events from the source to the output.
type watcher struct {
	guest   *guest.Guest
	stream  trace.Stream
	sensors *trace.Sensors
	kinds   []trace.Kind
	filter  eventFilter
	show    shower
}

// run passes them, for people with one line for a program that is started: not one for the process, and one for what it runs.
func (w *watcher) run(ctx context.Context, fold bool) error {
	next := func(e *trace.Event) error {
		if err := w.stream.Next(ctx, e); err != nil {
			return err
		}
		w.sensors.Mark(e)
		return nil
	}
	if fold {
		f := &trace.Folded{Stream: w.stream, Seen: w.sensors.Mark}
		next = func(e *trace.Event) error { return f.Next(ctx, e) }
	}
	var e trace.Event
	for {
		if err := next(&e); err != nil {
			return w.ended(ctx, err)
		}
		if e.Kind == trace.KindBoot {
			// The old ones are gone, and what runs now began before the source could see it.
			if err := prime(ctx, w.guest, w.sensors); err != nil && ctx.Err() != nil {
				return err
			}
		}
		if err := w.pass(&e); err != nil {
			return err
		}
	}
}

// pass shows an event if it is wanted.
func (w *watcher) pass(e *trace.Event) error {
	if w.kinds != nil && !slices.Contains(w.kinds, e.Kind) && e.Kind != trace.KindBoot && e.Kind != trace.KindLost {
		return nil
	}
	row, ok, err := w.filter.pass(e)
	if err != nil || !ok {
		return err
	}
	if err := w.show.Event(e, row); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

// ended is how the feed ends.
func (w *watcher) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if n := w.stream.Lost(); n > 0 {
		warn(fmt.Sprintf("%d events were lost: there was no room for them", n))
	}
	return fmt.Errorf("watch: %w", err)
}
