package check

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "module-hook",
		Title:     "Modules that intercept functions of the kernel",
		Severity:  Medium,
		Technique: "T1014", // Rootkit
		Source:    "the views kprobes, ftrace, lsm, idt and syscalls, breakpoints in the view perf, fprobe, uprobe_consumer; for modules that are unsigned or out of tree also tracepoints, netfilter, binfmts, the keyboard's notifiers and interrupts, and input_handler",
		Proves: `A module that is on the list has the kernel call it when a function of the kernel's own is entered or left (kprobes, kretprobes, fprobes, function tracing, breakpoints of the processor) or a program comes
to some instruction (uprobes), or in place of a system call, a security hook or an interrupt. Of the modules that come with Linux only some that are made for tests
do (lkdtm, samples), and live patches replace functions. Rootkits do, and so do security products and tracers such as SystemTap. A module that was built out of tree, or is unsigned where others are signed, is also named
if it takes packets (netfilter), events (tracepoints), keys, or programs before they are started (binfmts).`,
		Blind: `What a module does with the events that it takes: LTTng, Falco and sysdig take them too, so that is "possible" and of medium severity. Probes that are set by perf, ftrace or BPF, which no module has: they are in the views of that name. A module that changes code or tables itself: kernel-text, text-branch and
operations-table find that. A module that is not on the list: code-pointer and hidden-module find that.`,
		Next: `Find out which product the module belongs to ("outsight modules TARGET", "outsight dmesg TARGET"). What is intercepted says what for: functions that list directories, processes or
connections hide them; kill and prctl are doors for whoever knows the number.`,
		Example: `A module that stays on the list probes the function that fills directory entries:

    $ outsight check lab:demo --only module-hook
    SEVERITY  CONFIDENCE  CHECK        TITLE
    high      likely      module-hook  module trick (out of tree, unsigned) intercepts kprobes filldir64`,
		Run: moduleHooks,
	})
}

// interceptors are views of what has the kernel call a function instead of, or before, one
// of its own. Those with a condition are legal for modules that came with the kernel.
var interceptors = []interceptor{
	{view: "kprobes"},
	{view: "ftrace"},
	{view: "lsm"},
	{view: "idt"},
	{view: "syscalls"},
	{view: "perf", of: func(d string) bool { return slices.Contains(strings.Fields(d), "breakpoint") }},
	{view: "tracepoints", foreign: true},
	{view: "netfilter", foreign: true},
	{view: "binfmts", foreign: true, as: "programs before they are started (binfmts)"},
	{view: "notifiers", foreign: true, of: func(d string) bool { return strings.Contains(d, "keyboard") || strings.Contains(d, "vt_notifier") }},
}

type interceptor struct {
	view    string
	foreign bool                        // only of modules that did not come with the kernel
	of      func(described string) bool // which rows; nil: all
	as      string                      // what to call it; empty: as the row is described
}

// interception is what one module intercepts.
type interception struct {
	module *linux.Module
	what   []string
	at     virt.Addr // the first function
	// steers says that it takes more than events: it is called before or in place of something.
	steers bool
}

const maxIntercepted = 8 // that a finding names

func moduleHooks(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		modules, err := s.Modules()
		if err != nil {
			yield(nil, err)
			return
		}
		byOwner := map[string]*linux.Module{}
		for _, m := range modules {
			byOwner["["+m.Name+"]"] = m
		}
		if len(byOwner) == 0 {
			return
		}
		// Where no module is signed, that one is not says nothing of it.
		signing := slices.ContainsFunc(modules, func(m *linux.Module) bool { return m.Taints&linux.TaintUnsigned == 0 })
		found := map[string]*interception{}
		for _, i := range interceptors {
			v, ok := table.Lookup(i.view)
			if !ok || ctx.Err() != nil {
				continue
			}
			// What cannot be read of these views code-pointer reports.
			for owner, hook := range hooksIn(ctx, s, v) {
				m := byOwner[owner]
				if m == nil || i.foreign && foreignTaint(m, signing) == "" || i.of != nil && !i.of(hook.name) {
					continue
				}
				if i.as != "" {
					hook.name = i.as
				}
				f := found[owner]
				if f == nil {
					f = &interception{module: m, at: hook.at}
					found[owner] = f
				}
				f.steers = f.steers || i.view != "tracepoints"
				if !slices.Contains(f.what, hook.name) {
					f.what = append(f.what, hook.name)
				}
			}
		}
		err = hookedByModules(ctx, s, byOwner, signing, func(owner string, m *linux.Module, h hooking) {
			f := found[owner]
			if f == nil {
				f = &interception{module: m, at: h.at}
				found[owner] = f
			}
			f.steers = true
			if !slices.Contains(f.what, h.name) {
				f.what = append(f.what, h.name)
			}
		})
		for _, owner := range slices.Sorted(maps.Keys(found)) {
			if !yield(found[owner].finding(s, signing), nil) {
				return
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

type hookName struct {
	name string
	at   virt.Addr
}

// hooksIn yields, by the owner of each function of a module that a view shows, what it hooks.
func hooksIn(ctx context.Context, s *Subject, v table.View) iter.Seq2[string, hookName] {
	return func(yield func(string, hookName) bool) {
		for _, f := range s.shown(ctx, v, codeColumns(v)).all {
			if f.column == "probed" || f.column == "behind" || f.owner == noOwner {
				continue // what is hooked, not who hooks it
			}
			if !yield(f.owner, hookName{f.hooked, f.at}) {
				return
			}
		}
	}
}

// foreignTaint says why a module did not come with the kernel; empty if it did, as far as it
// says itself. signing says that other modules are signed.
func foreignTaint(m *linux.Module, signing bool) string {
	var why []string
	if m.Taints&linux.TaintOutOfTree != 0 {
		why = append(why, "out of tree")
	}
	if m.Taints&linux.TaintUnsigned != 0 && signing {
		why = append(why, "unsigned")
	}
	return strings.Join(why, ", ")
}

func (i *interception) finding(s *Subject, signing bool) *Finding {
	f := &Finding{
		Confidence: Possible,
		Object:     Object{Kind: "module", Name: i.module.Name, Addr: i.module.Addr},
		Aspect:     "interception",
		Expected:   "modules that neither probe nor replace functions of the kernel",
		Seen:       strings.Join(i.what[:min(len(i.what), maxIntercepted)], "; "),
		Evidence:   []Evidence{{Text: "its struct module", Addr: i.module.Addr}, {Text: "a function that is called", Addr: i.at, Bytes: codeAt(s, uint64(i.at))}},
		Basis:      "what the guest's kernel calls, and its list of modules",
		Show:       fmt.Sprintf("outsight modules {} --where 'name == %q'", i.module.Name),
	}
	who := "module " + i.module.Name
	if why := foreignTaint(i.module, signing); why != "" {
		who += " (" + why + ")"
		// Tracers that are built for the kernel they run on (LTTng, Falco, sysdig) take events alone.
		if i.steers {
			f.Severity, f.Confidence = High, Likely
		}
	}
	if more := len(i.what) - maxIntercepted; more > 0 {
		f.Seen += fmt.Sprintf("; and %d more", more)
	}
	f.Title = who + " intercepts " + i.what[0]
	if more := len(i.what) - 1; more > 0 {
		f.Title += fmt.Sprintf(" and %d more", more)
	}
	return f
}
