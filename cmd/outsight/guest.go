package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/kernel/image/trust"
	"github.com/outsight-vmi/outsight/kernel/reference"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/vm"
)

// guestFlags are the flags of every command that looks into a guest.
type guestFlags struct {
	pause      bool
	noCache    bool
	postMortem bool
	verbose    bool
	references []string // boot images, beside what the host boots with
}

func (f *guestFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.pause, "pause", false, "stop the guest while it is read, and resume it afterwards, even if outsight is killed meanwhile (by a second process: a SIGKILL to the whole cgroup or container leaves the guest stopped)")
	c.Flags().BoolVar(&f.noCache, "no-cache", false, "analyze the kernel again, without the profiles kept on disk")
	c.Flags().BoolVar(&f.postMortem, "post-mortem", false, "read a guest that has shut down or crashed")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "report on standard error which kernel was found, and where its profile came from")
}

// openFor opens what the view looks at; done is to be called when it has looked.
func (f *guestFlags) openFor(ctx context.Context, spec table.Spec, args []string) (g *guest.Look, done func() error, err error) {
	if spec.Host {
		return nil, func() error { return nil }, nil
	}
	target := ""
	if len(args) > 0 {
		target = args[0]
	}
	return f.open(ctx, target)
}

// warn reports on standard error what is not fatal.
func warn(what any) { fmt.Fprintln(os.Stderr, "outsight: "+sentence(fmt.Sprint(what))) }

// session opens a TARGET; "" is the one guest of this host.
func (f *guestFlags) session(ctx context.Context, target string) (*guest.Guest, error) {
	return guest.Open(ctx, target, f.options())
}

func (f *guestFlags) options() guest.Options {
	return guest.Options{
		Pause: f.pause, PostMortem: f.postMortem, Cache: f.cache(), Images: f.images(),
		References: f.sources(), Profiles: reference.Default(), Warn: func(err error) { warn(err) },
	}
}

// sources are the boot images that the user names.
func (f *guestFlags) sources() image.Source {
	cached := f.cachedReferences()
	if len(cached) == 0 {
		return nil
	}
	var all image.Sources
	for _, c := range cached {
		all = append(all, c)
	}
	return all
}

// checkReferences reports a file that the user names and that no guest can be compared with, which would else be left out in silence where
// another reference is better.
func (f *guestFlags) checkReferences() error {
	for _, c := range f.cachedReferences() {
		if err := c.Check(); err != nil {
			return usagef("--reference: %w", err)
		}
	}
	return nil
}

func (f *guestFlags) cachedReferences() (all []image.Cached) {
	if len(f.references) == 0 {
		return nil
	}
	var authorities []trust.Authority
	if s, err := openStore(); err == nil {
		authorities = s.Authorities()
	}
	for _, path := range f.references {
		all = append(all, image.Cached{File: image.File{Path: path, Basis: image.UserFile, Authorities: authorities}, Dir: f.images()})
	}
	return all
}

// open opens a TARGET for one look; done ends it and closes the guest.
func (f *guestFlags) open(ctx context.Context, target string) (l *guest.Look, done func() error, err error) {
	if l, err = guest.LookAt(ctx, target, f.options()); err != nil {
		return nil, nil, err
	}
	// Contradictions are reported unasked: an honest guest shows none.
	for _, inconsistency := range l.Linux.Inconsistencies {
		warn("the kernel contradicts itself: " + inconsistency)
	}
	if f.verbose {
		warn(l.Profile())
	}
	return l, l.Close, nil
}

// cache is the folder of kernel profiles; empty for none.
func (f *guestFlags) cache() string {
	if f.noCache {
		return ""
	}
	return kernel.DefaultCache()
}

// images is the folder of unpacked boot images; empty for none.
func (f *guestFlags) images() string {
	if f.noCache {
		return ""
	}
	return image.DefaultCache()
}

// extraCommands are the verbs that are not views.
func extraCommands() []*cobra.Command {
	lab := newLabCommand()
	lab.GroupID = groupHost
	return []*cobra.Command{
		newCheckCommand(), newWatchCommand(), newTraceCommand(), newProbeCommand(), newPluginCommand(), newQueryCommand(), newTopCommand(), newCollectCommand(), newRecoverCommand(), newDumpCommand(), newExportISFCommand(), newStructCommand(),
		newReadCommand(), newProfileCommand(), newWhatisCommand(), newTranslateCommand(), newDisassembleCommand(), newSearchCommand(), newWalkCommand(), newExtractCommand(), lab,
		newVolumesCommand(), newLsCommand(), newFindCommand(), newCatCommand(), newStatCommand(), newHashCommand(), newCpCommand(), newDeletedCommand(),
	}
}

// stillState is in what state a guest stands still; empty: it runs, or that is unknown.
func stillState(ctx context.Context, g *guest.Guest) vm.State {
	st := g.Machine().Control.Stater
	if st == nil {
		return ""
	}
	state, err := st.State(ctx)
	if err != nil || state == vm.StateRunning || state == vm.StateUnknown {
		return ""
	}
	return state
}

// warnStill says so where nothing can happen in a guest.
func warnStill(ctx context.Context, g *guest.Guest) {
	if state := stillState(ctx, g); state != "" {
		warn(fmt.Errorf("%s is %s: nothing happens in it until it is resumed (virsh resume, or cont on its QMP socket)", g.Target(), state))
	}
}
