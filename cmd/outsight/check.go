package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/trace/told"
	"github.com/outsight-vmi/outsight/vm"
)

const checkLong = `Judge a guest: find what lies, what is hidden, and what was changed. Nothing is needed in
the guest, and nothing has to be prepared: what must agree in a healthy kernel is compared.

Each line is a finding: something that a guest which nobody tampered with does not show. The
columns say what was expected and what is there, with addresses and bytes; show is the
command that shows it by hand, next what to do about it. A guest that runs is looked at again before a
finding counts, so that what is just being made or ended is not one.

Standard error says with what the kernel's text was compared, and what that proves:
"outsight profile --help" shows how to give it a reference where it finds none.

Exit status: 0 nothing was found; 1 something was found; 3 something could not be checked,
and nothing was found in the rest.`

type checkFlags struct {
	guest        guestFlags
	out          outputFlags
	only, skip   []string
	list         bool
	told         []string
	ask          bool
	listen       time.Duration
	allow, since string
	every        time.Duration
}

// The formats that check has beside those of the views.
const (
	formatSARIF = "sarif"
	formatOCSF  = "ocsf"
)

func newCheckCommand() *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use:   "check [TARGET]",
		Short: "Judge a guest: find what lies, what is hidden, and what was changed",
		Long:  checkLong,
		Example: `  outsight check lab:demo
  outsight check memory.raw -o json
  outsight check vm1 --every 1s -o ocsf
  outsight check vm1 --ask
  outsight check vm1 --listen 10s
  outsight check vm1 --told ps.txt,lsmod.txt,ss.txt
  outsight check memory.raw --reference /boot/vmlinuz-6.12
  outsight check vm1 --only hidden-process,hidden-module
  outsight check --list`,
		GroupID:           groupAsk,
		ValidArgsFunction: completeTarget,
		Args:              oneTarget,
		RunE:              func(c *cobra.Command, args []string) error { return f.run(c, optionalTarget(args)) },
	}
	f.guest.add(c)
	f.out.add(c, check.View(nil).Columns())
	c.Flags().Lookup("output").Usage += ", " + formatSARIF + ", " + formatOCSF
	c.Flags().StringSliceVar(&f.only, "only", nil, "run only these `checks`, with commas between them")
	c.Flags().StringSliceVar(&f.skip, "skip", nil, "leave these `checks` out")
	c.Flags().BoolVar(&f.list, "list", false, "describe the checks instead of running them")
	c.Flags().StringSliceVar(&f.guest.references, "reference", nil, "compare the kernel with these boot `images` (vmlinuz or vmlinux): the one of the guest's build-id is taken. What the host itself boots the guest with needs no flag, and neither does what outsight profile add took")
	c.Flags().StringVar(&f.allow, "allow", "", "leave out what this `FILE` allows: a JSON array of {check, object, reason, expires}, with * and ? in object")
	c.Flags().StringVar(&f.since, "since", "", "leave out what is in this `FILE`, the output of an earlier check -o json")
	c.Flags().StringSliceVar(&f.told, "told", nil, "compare with these `files`, taken in the guest as root: the output of ps -e, lsmod, ss -tuln, dmesg; copy them with their times (scp -p)")
	c.Flags().BoolVar(&f.ask, "ask", false, "compare with what ps, lsmod, ss, dmesg and others say, which are run in the guest, through its QEMU guest agent or the lab's")
	c.Flags().DurationVar(&f.listen, "listen", 0, "listen for this `time` first to what the kernel tells the guest's own programs (ls, ps, ss, lsmod, bpftool …), and find what it keeps from them; QEMU needs outsight's plugin (docs/tracing.md)")
	c.Flags().DurationVar(&f.every, "every", 0, "check once in this `time`, and show each finding once, as it appears; what costs little is looked at in between, too")
	var ids []string
	for _, k := range check.All() {
		ids = append(ids, k.ID)
	}
	complete := cobra.FixedCompletions(ids, cobra.ShellCompDirectiveNoFileComp)
	_ = c.RegisterFlagCompletionFunc("only", complete) // the flags were defined above
	_ = c.RegisterFlagCompletionFunc("skip", complete)
	return c
}

func (f *checkFlags) run(c *cobra.Command, target string) (err error) {
	checks, err := check.Select(f.only, f.skip)
	if err != nil {
		return usagef("%w", err)
	}
	if f.list {
		return listChecks(c.OutOrStdout(), checks)
	}
	run := &checkRun{flags: f, checks: checks, stderr: c.ErrOrStderr(), known: check.Baseline{}, assured: map[string]string{}}
	if f.every > 0 { // else nobody looks again, and nothing need be kept for that
		run.options = append(run.options, check.Remember(&check.History{}))
		debug.SetGCPercent(50) // a run that is long must not grow to what one that is short may take
	}
	run.options = append(run.options, roundsOf(f.every)...)
	switch {
	case len(checks) == 0:
		return usagef("no check is left to run")
	case f.ask && len(f.told) > 0:
		return usagef("--ask and --told: choose one of them")
	case f.ask && f.guest.pause:
		return usagef("--ask and --pause: a guest that stands still runs no programs")
	case c.Flags().Changed("listen") && f.listen < 100*time.Millisecond:
		return usagef("--listen %v: at least 100ms", f.listen)
	case f.listen > 0 && f.guest.pause:
		return usagef("--listen and --pause: in a guest that stands still no program is told anything")
	case c.Flags().Changed("every") && f.every < 100*time.Millisecond:
		return usagef("--every %v: at least 100ms", f.every)
	case f.every > 0 && f.out.format == formatSARIF:
		return usagef("-o sarif is one document: it cannot be written with --every; use -o json or -o ocsf")
	}
	if err := f.guest.checkReferences(); err != nil {
		return err
	}
	if err := run.readFiles(); err != nil {
		return err
	}
	write, err := f.writer(c, run)
	if err != nil {
		return err
	}
	if run.guest, err = f.guest.session(c.Context(), target); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run.guest.Close()) }()
	if f.listen > 0 {
		if err := told.Available(run.guest); err != nil {
			return err
		}
		if state := stillState(c.Context(), run.guest); state != "" {
			return &vm.Error{Kind: vm.ErrNotStarted, What: "listen to the programs of " + target, Why: "it is " + string(state), Do: "resume it first (virsh resume, or cont on its QMP socket)"}
		}
		run.options = append(run.options, check.Listen(f.listen))
	}
	if f.ask {
		agent, err := agentOf(run.guest.Machine(), target)
		if err != nil {
			return err
		}
		run.options = append(run.options, check.WithAgent(agent))
	}
	if err := write(run.findings(c.Context())); err != nil {
		return err
	}
	return run.conclude()
}

// writer is what writes findings in the format that was asked for.
func (f *checkFlags) writer(c *cobra.Command, run *checkRun) (func(iter.Seq[*check.Finding]) error, error) {
	w := c.OutOrStdout()
	switch f.out.format {
	case formatSARIF:
		return func(found iter.Seq[*check.Finding]) error {
			all := slices.Collect(found)
			if run.last == nil {
				return run.failed
			}
			return run.report().SARIF(w, all)
		}, nil
	case formatOCSF:
		return func(found iter.Seq[*check.Finding]) error {
			for one := range found {
				if err := run.report().OCSF(w, []*check.Finding{one}); err != nil {
					return fmt.Errorf("write the output: %w", err)
				}
			}
			if run.failed != nil || run.last == nil {
				return nil // reported by who runs this
			}
			return run.report().OCSFScan(w, run.shown)
		}, nil
	}
	columns := check.View(nil).Columns()
	if _, err := table.ParseFormat(f.out.format); err != nil {
		return nil, usagef("%w, %s, %s", err, formatSARIF, formatOCSF)
	}
	o, err := f.out.parse(w, columns)
	if err != nil {
		return nil, err
	}
	o.live = f.every > 0
	return func(found iter.Seq[*check.Finding]) error {
		var report table.Report
		next, stop := iter.Pull(found)
		defer stop()
		first, ok := next()
		if !ok && o.format == table.Table {
			return nil // a header over nothing would look like a finding
		}
		return o.write(w, columns, table.Rows(c.Context(), check.View(func(yield func(*check.Finding) bool) {
			for ; ok && yield(first); first, ok = next() {
			}
		}), nil, table.Request{}, &report))
	}, nil
}

// checkRun is one run of the verb: of the checks, once or again and again.
type checkRun struct {
	flags  *checkFlags
	checks []*check.Check
	stderr io.Writer
	guest  *guest.Guest

	options []check.Option
	allowed []check.Allowed
	known   check.Baseline // what is not shown: known before, or shown already
	last    *check.Result
	before  map[string]*check.Finding // what the last round found
	began   time.Time                 // when the last round of all checks did
	booting bool                      // the guest, which was said
	shown   int
	passed  int               // findings that are allowed, at the last round
	since   check.Baseline    // what --since names and was there at every round since
	knew    int               // findings that are in it, at the last round
	gaps    map[string]bool   // lines that were printed
	assured map[string]string // what was printed of what a run proves
	failed  error
}

func (r *checkRun) readFiles() (err error) {
	if name := r.flags.allow; name != "" {
		file, err := os.Open(name)
		if err != nil {
			return usagef("--allow: %w", err)
		}
		defer file.Close()
		if r.allowed, err = check.ReadAllowed(file); err != nil {
			return usagef("--allow %s: %w", name, err)
		}
		for i, a := range r.allowed {
			if a.Expired(time.Now()) {
				fmt.Fprintf(r.stderr, "outsight: %s: entry %d (%s, %s) expired on %s and no longer counts\n", name, i+1, a.Check, sentence(a.Object), a.Expires)
			}
		}
	}
	if len(r.flags.told) > 0 {
		told := &check.Told{}
		for _, name := range r.flags.told {
			if err := readTold(told, name); err != nil {
				return usagef("--told %s: %w", name, err)
			}
		}
		words := make([]string, 0, len(told.Words))
		for _, w := range told.Words {
			words = append(words, w.String())
		}
		fmt.Fprintf(r.stderr, "outsight: compared with %s\n", sentence(strings.Join(words, ", ")))
		r.options = append(r.options, check.WithTold(told))
	}
	if name := r.flags.since; name != "" {
		file, err := os.Open(name)
		if err != nil {
			return usagef("--since: %w", err)
		}
		defer file.Close()
		if r.known, err = check.ReadBaseline(file); err != nil {
			return usagef("--since %s: %w", name, err)
		}
		r.since = maps.Clone(r.known)
	}
	return nil
}

// readTold adds what a file says that was taken in the guest. It was taken when it was last
// written: copy it with its time (cp -p, scp -p).
func readTold(told *check.Told, name string) error {
	file, err := os.Open(name)
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err // the flag and the path are said by the caller
	}
	if err != nil {
		return err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return err
	}
	return told.Read(filepath.Base(name), file, st.ModTime())
}

// printGaps says what could not be checked, once for as long as it stays so.
func (r *checkRun) printGaps() {
	now := map[string]bool{}
	for _, gap := range r.last.Gaps {
		line := "outsight: not checked: " + sentence(gap.String())
		if now[line] = true; !r.gaps[line] {
			fmt.Fprintln(r.stderr, line)
		}
	}
	r.gaps = now
}

// printAssurances says what the run proves, each once for as long as it stays so.
func (r *checkRun) printAssurances() {
	for _, a := range r.last.Assurances() {
		if r.assured[a.Subject] != a.Text {
			fmt.Fprintln(r.stderr, "outsight: "+sentence(a.Text))
		}
		r.assured[a.Subject] = a.Text
	}
}

// report is what the formats for other programs say of the guest.
func (r *checkRun) report() *check.Report {
	m := r.guest.Machine()
	return &check.Report{Target: r.guest.Target(), Guest: m.Name, Release: r.last.Release, Version: version(), At: time.Now(), Checks: r.checks, Assurances: r.last.Assurances()}
}

// findings runs the checks and yields what is found: each finding once.
func (r *checkRun) findings(ctx context.Context) iter.Seq[*check.Finding] {
	return func(yield func(*check.Finding) bool) {
		for r.round(ctx, r.checks, yield) && r.flags.every > 0 {
			if !r.wait(ctx, yield) {
				return
			}
		}
	}
}

// round runs checks once, all of them or those that a glance found something by, and yields what is new.
// It is false if there is no more to do.
func (r *checkRun) round(ctx context.Context, checks []*check.Check, yield func(*check.Finding) bool) bool {
	all := len(checks) == len(r.checks)
	if all {
		r.began = time.Now()
	}
	bar, options := newProgress(r.stderr), r.options
	if r.flags.every == 0 {
		options = append(slices.Clip(options), check.Progress(bar.say))
	}
	result, err := check.Run(ctx, r.guest, checks, options...)
	bar.clear()
	if r.flags.every > 0 && errors.Is(err, vm.ErrNotStarted) {
		// The guest reboots: it is judged again when its kernel runs.
		if !r.booting {
			fmt.Fprintln(r.stderr, "outsight: "+sentence(err.Error()))
		}
		r.booting = true
		return true
	}
	if r.failed = err; err != nil {
		return false
	}
	r.booting = false
	found, passed := check.Without(result.Findings, r.allowed, time.Now())
	now := map[string]*check.Finding{}
	for _, f := range found {
		now[f.Key()] = f
	}
	if all {
		r.last, r.passed, r.knew = result, passed, len(found)-len(r.since.New(found))
		if r.flags.every > 0 {
			r.printGaps()
			r.printAssurances()
		}
	}
	for key, f := range r.before {
		switch {
		case now[key] != nil:
		case !slices.Contains(checks, f.Check):
			now[key] = f // not looked for
		case !result.Gap(f.Check):
			delete(r.known, key) // shown again if it comes back
			delete(r.since, key)
			fmt.Fprintf(r.stderr, "outsight: no longer found: %s\n", sentence(f.Title))
		}
	}
	r.before = now
	if len(r.known) > maxKnown { // what could not be looked at again when it was no longer found
		maps.DeleteFunc(r.known, func(key string, _ bool) bool { return now[key] == nil && !r.since[key] })
	}
	for _, f := range r.known.New(found) {
		f.Target = shellWord(r.guest.Target())
		f.Show = strings.ReplaceAll(f.Show, "{}", f.Target)
		r.shown++
		r.known[f.Key()] = true
		if !yield(f) {
			return false
		}
	}
	return true
}

// maxKnown bounds what is remembered as shown of a guest that shows something else at each round.
const maxKnown = 100_000

// conclude says what was done, and what could not be.
func (r *checkRun) conclude() error {
	if r.failed != nil {
		return r.failed
	}
	r.printGaps()
	if r.flags.guest.verbose || r.last.Ran == 0 { // no check is no answer
		for _, gap := range r.last.Unsupported {
			fmt.Fprintln(r.stderr, "outsight: nothing to compare with: "+sentence(gap.String()))
		}
	}
	r.printAssurances()
	ran := counted(r.last.Ran, "check")
	beside, nothing := "", "nothing found"
	if r.passed > 0 {
		beside = fmt.Sprintf("; %s allowed", counted(r.passed, "finding"))
	}
	if r.knew > 0 {
		is := "is"
		if r.knew > 1 {
			is = "are"
		}
		beside += fmt.Sprintf("; %s %s in the baseline", counted(r.knew, "finding"), is)
		nothing = "nothing new found"
	}
	switch {
	case r.shown > 0:
		fmt.Fprintf(r.stderr, "outsight: %s by %s%s\n", counted(r.shown, "finding"), ran, beside)
		return errFound
	case len(r.last.Gaps) > 0:
		fmt.Fprintf(r.stderr, "outsight: %s by %s%s, but not everything could be checked\n", nothing, ran, beside)
		return errIncomplete{}
	}
	fmt.Fprintf(r.stderr, "outsight: %s by %s%s\n", nothing, ran, beside)
	return nil
}

// shellWord is a word as a shell reads it, without quotes where it needs none.
func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-") == "" {
		return s
	}
	return shellQuote([]string{s})
}

// counted is a number with its noun.
func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func listChecks(w io.Writer, checks []*check.Check) error {
	for i, k := range checks {
		if i > 0 {
			fmt.Fprintln(w)
		}
		_, err := fmt.Fprintf(w, "%s (%s, %s)\n  %s.\n\n  compares  %s\n  proves    %s\n  blind to  %s\n  next      %s\n",
			k.ID, k.Severity, k.Technique, k.Title, k.Source, folded(k.Proves), folded(k.Blind), folded(k.Next))
		if err != nil {
			return err
		}
	}
	return nil
}

// folded joins the lines of a text and breaks it where a terminal would.
func folded(s string) string {
	const width = 78
	var b strings.Builder
	n := 12
	for word := range strings.FieldsSeq(s) {
		if n > 12 && n+len(word) > width {
			b.WriteString("\n            ")
			n = 12
		} else if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(word)
		n += len(word) + 1
	}
	return b.String()
}
