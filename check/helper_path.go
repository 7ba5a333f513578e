package check

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "helper-path",
		Title:     "Programs that the kernel starts as root, at places where no package puts one",
		Severity:  High,
		Technique: "T1546", // Event Triggered Execution
		Source:    "modprobe_path, core_pattern, uevent_helper, poweroff_cmd, cgroup_root.release_agent_path, binfmt_misc",
		Proves: `The kernel was told to start a program at an event (an unknown executable, a crash, a device, an empty control group) that lies where everybody may
write, that is hidden, that is not an absolute path, or that lies where no distribution has the program for that event. Exploits overwrite modprobe_path or core_pattern to get root,
containers that break out use release_agent. Products that collect crashes have programs of their own, in /opt or /usr/local: those are named with severity low.`,
		Blind: `A program at a usual place that was itself replaced, and a path that was set back after use. An interpreter that is open already (flag F of binfmt_misc)
runs whatever its path says today.`,
		Next: `Take the program out with "outsight recover TARGET PATH -o FILE" and find who wrote the path: "outsight sysctl TARGET" shows it, "outsight ps TARGET" who runs. Set it back to what the
distribution has.`,
		Example: `An exploit wrote a path of its own where the kernel keeps that of modprobe, and runs a file of an unknown format:

    $ outsight check lab:demo --only helper-path
    SEVERITY  CONFIDENCE  CHECK        TITLE
    high      likely      helper-path  modprobe_path is "/tmp/x", where everybody may write, or nothing outlives a boot`,
		Quick: true,
		Kept:  true,
		Run:   helperPaths,
	})
}

// helper is a program that the kernel starts by itself.
type helper struct {
	name, command string
	at            virt.Addr
	show          string
}

// helperVariables are arrays of characters that hold a command, by symbol.
var helperVariables = []struct {
	symbol, name string
	size         int
}{
	{"modprobe_path", "modprobe_path", 256},
	{"core_pattern", "core_pattern", 128},
	{"uevent_helper", "uevent_helper", 256},
	{"poweroff_cmd", "poweroff_cmd", 256},
}

func helperPaths(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		helpers, errs := s.helpers(ctx)
		for _, err := range errs {
			if !yield(nil, err) {
				return
			}
		}
		for _, h := range helpers {
			why, severity, sure := strangePath(h)
			if why == "" {
				continue
			}
			f := &Finding{
				Severity: severity, Confidence: sure,
				Title:    fmt.Sprintf("%s is %q, %s", h.name, h.command, why),
				Object:   Object{Kind: "helper", Name: h.name, Addr: h.at},
				Expected: "the path of a program that a package installed",
				Seen:     h.command,
				Evidence: []Evidence{{Text: "the command", Addr: h.at, Bytes: []byte(h.command)}},
				Basis:    "the guest's kernel memory, and where distributions keep programs",
				Show:     h.show,
			}
			if program := h.program(); path.IsAbs(program) {
				f.nextPath = program
			}
			if !yield(f, nil) {
				return
			}
		}
	}
}

func (s *Subject) helpers(ctx context.Context) (hs []helper, errs []error) {
	names := make([]string, 0, len(helperVariables)+1)
	for _, v := range helperVariables {
		names = append(names, v.symbol)
	}
	if err := s.Linux.Prefetch(append(names, "cgroup_roots")...); err != nil {
		return nil, []error{err}
	}
	for _, v := range helperVariables {
		a, ok := s.Linux.Address(v.symbol)
		if !ok {
			continue // built without it
		}
		command, err := s.Linux.StringAt(a, v.size)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", v.name, err))
			continue
		}
		hs = append(hs, helper{v.name, command, a, fmt.Sprintf("outsight read {} %#x %d", uint64(a), v.size)})
	}
	agents, err := s.releaseAgents(ctx)
	hs = append(hs, agents...)
	if err != nil && !errors.Is(err, kobj.ErrUnsupported) {
		errs = append(errs, err)
	}
	for f, err := range hooks.MiscFormats(ctx, s.Linux) {
		switch {
		case errors.Is(err, kobj.ErrUnsupported):
		case err != nil:
			errs = append(errs, err)
		case f.Enabled && f.Program == "": // a BPF program is on the list of those
			hs = append(hs, helper{"the interpreter " + f.Name + " of binfmt_misc", f.Interpreter, f.Addr, "outsight binfmts {}"})
		}
	}
	return hs, errs
}

// releaseAgents are the programs that version 1 of control groups starts when a group is
// left by its last process.
func (s *Subject) releaseAgents(ctx context.Context) (hs []helper, err error) {
	o, err := kobj.LayoutOf(s.Linux.Walker, "release agents", func(r *kobj.Resolver, o *struct{ list, path kobj.Field }) {
		o.list, o.path = r.Field("cgroup_root", "root_list"), r.Field("cgroup_root", "release_agent_path")
	})
	if err != nil {
		return nil, err
	}
	head, ok := s.Linux.Address("cgroup_roots")
	if !ok {
		return nil, kobj.ErrUnsupported
	}
	const maxRoots, maxPath = 64, 4096
	for node, err := range s.Linux.List(ctx, head, maxRoots) {
		if err != nil {
			return hs, fmt.Errorf("release agents: %w", err)
		}
		a := o.path.At(node - o.list.At(0))
		command, err := s.Linux.StringAt(a, maxPath)
		if err != nil {
			return hs, fmt.Errorf("release agents: %w", err)
		}
		hs = append(hs, helper{"the release agent of a control group", command, a, fmt.Sprintf("outsight read {} %#x 256", uint64(a))})
	}
	return hs, nil
}

// program is what a helper runs; empty if it runs nothing.
func (h helper) program() string {
	command := h.command
	if h.name == "core_pattern" {
		var pipe bool
		if command, pipe = strings.CutPrefix(command, "|"); !pipe {
			return "" // the name of a file; "@" names a socket (6.16)
		}
	}
	program, _, _ := strings.Cut(strings.TrimSpace(command), " ")
	return program
}

// strangePath is why the program of a helper is at a strange place; empty if it is not.
func strangePath(h helper) (why string, severity Severity, sure Confidence) {
	program := h.program()
	if program == "" {
		return "", "", "" // there is none, or it is switched off
	}
	switch {
	case !path.IsAbs(program):
		return "which is not an absolute path", High, Likely
	case below(program, places.temporary):
		return "where everybody may write, or nothing outlives a boot", High, Likely
	case below(program, places.personal):
		return "where only a user has programs", High, Likely
	case hiddenName(program):
		return "which is hidden", High, Likely
	case strings.HasPrefix(program, memfdPrefix) || strings.HasSuffix(strings.TrimSpace(h.command), "(deleted)"):
		return "which is in no file system", High, Likely
	case strings.ContainsFunc(program, func(r rune) bool { return r < ' ' || r > '~' }):
		return "which is not the name of a program", High, Likely
	case !packaged(program) && !below(program, places.system) && usualHelpers[h.name] == nil:
		return "which is where packages put no programs", Low, Possible
	}
	if usual := usualHelpers[h.name]; usual != nil && !usual.has(program) {
		return usual.unlike, usual.severity, usual.sure
	}
	return "", "", ""
}

// usualHelper is where distributions have the program of a helper.
type usualHelper struct {
	// names are what it is called; nil: anything.
	names, folders []string
	unlike         string // what is said of another
	severity       Severity
	sure           Confidence
}

// systemFolders are where distributions have programs for themselves.
var systemFolders = []string{"/sbin", "/bin", "/usr/sbin", "/usr/bin"}

// switchedOff are programs that do nothing, to which who wants no helper sets its path.
var switchedOff = []string{"true", "false"}

var usualHelpers = map[string]*usualHelper{
	// CONFIG_MODPROBE_PATH; NixOS and Guix have it in a folder that only they have.
	"modprobe_path": {
		append([]string{"modprobe"}, switchedOff...), append([]string{"/nix/store", "/gnu/store", "/run/current-system", "/system", "/vendor"}, systemFolders...),
		"which is not where any distribution has modprobe", High, Likely,
	},
	// Without udev: CONFIG_UEVENT_HELPER_PATH, mdev of busybox.
	"uevent_helper": {
		nil, append([]string{"/lib", "/usr/lib", "/etc", "/init", "/busybox"}, systemFolders...),
		"which is where no distribution has a program for events of devices", Medium, Likely,
	},
	"poweroff_cmd": {
		append([]string{"poweroff", "shutdown", "halt", "systemctl"}, switchedOff...), append([]string{"/nix/store", "/gnu/store", "/run/current-system", "/usr/lib", "/lib", "/system"}, systemFolders...),
		"which is not where any distribution has the program that switches off", Medium, Likely,
	},
	// systemd-coredump, apport, abrt, kdump, corekeeper. Products have collectors of their own.
	"core_pattern": {
		nil, append([]string{"/lib", "/usr/lib", "/usr/libexec", "/usr/share", "/nix/store", "/gnu/store", "/snap", "/system"}, systemFolders...),
		"which is where no distribution has a program for crashes", Low, Possible,
	},
}

// has reports whether a program is one of these.
func (u *usualHelper) has(program string) bool {
	return below(program, u.folders) && (u.names == nil || slices.Contains(u.names, path.Base(program)))
}
