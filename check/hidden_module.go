package check

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "hidden-module",
		Title:     "Modules that a list of the kernel leaves out",
		Severity:  Critical,
		Technique: "T1547.006", // Kernel Modules and Extensions
		Source:    "modules, module_kset, mod_tree, module_bug_list",
		Proves: `A module is known to one part of the kernel and not to another that knows every module for as long as it is loaded. lsmod goes by the list, /sys/module by the
set of kernel objects, and a fault in its code by the tree of addresses. Somebody took it out of one. Or it has another name there than on the list: a module
is given both names at once when it is loaded, and never another.`,
		Blind: `A module that was taken out of all of them, or that copied its code to memory of its own: hidden-code and code-pointer find these by what they left.`,
		Next:  `Take the module's memory out with the command shown. Look at what it hooked with code-pointer, and when it was loaded with "outsight dmesg TARGET".`,
		Example: `A module takes itself off the list of modules, as nearly every rootkit does in its init function. lsmod does not show it any more; its code is found by
three checks at once:

    $ outsight check lab:demo
    SEVERITY  CONFIDENCE  CHECK          TITLE
    critical  certain     code-pointer   ioctl of devices loop-control leads to 0xffffffffc03a6fd0, whose owner is unknown
    critical  certain     hidden-code    20 KiB of kernel memory at 0xffffffffc03a4000 are executable, and belong to nothing that the kernel lists
    critical  certain     hidden-module  module loop is missing from the list of modules`,
		Quick: true,
		Kept:  true,
		Run:   hiddenModules,
	})
}

func hiddenModules(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		ways, errs := moduleWays(ctx, s)
		for _, err := range errs {
			if !yield(nil, err) {
				return
			}
		}
		for _, m := range ways.objects() {
			in, out := ways.of(m)
			name, state, err := moduleState(s, m)
			if err != nil {
				if !yield(nil, fmt.Errorf("module at %#x: %w", uint64(m), err)) {
					return
				}
				continue
			}
			switch {
			case state == moduleUnformed && slices.Contains(in, bySysfs):
				// It comes there when it is whole. lsmod leaves out what is not.
				out = append(out, "what lsmod shows (its state says that it is still being made)")
			case state != moduleLive && (slices.Contains(in, byModules) || !slices.Contains(in, bySysfs)):
				continue // it is being loaded or unloaded, and is on the list for as long as it is in sysfs
			}
			if len(out) == 0 {
				f, err := renamed(s, m, name, in, state)
				if (f != nil || err != nil) && !yield(f, err) {
					return
				}
				continue
			}
			f := missing(Object{Kind: "module", Name: name, Addr: m}, "module", in, out)
			if !yield(f, nil) {
				return
			}
		}
	}
}

// renamed is the finding about a module whose object in /sys/module, to which mod_sysfs_init gave the name of
// the module, is called otherwise than it is; nil if it is not.
func renamed(s *Subject, m virt.Addr, name string, in []string, state uint64) (*Finding, error) {
	o, err := layoutOfModules(s.Linux)
	if err != nil || state != moduleLive || !slices.Contains(in, bySysfs) || !slices.Contains(in, byModules) || !o.sysfs.Present() || !o.kobj.Present() || !o.kobjName.Present() {
		return nil, err
	}
	r := s.Linux.Reader()
	called := r.CString(r.Pointer(o.kobj.At(o.sysfs.At(m)), o.kobjName), maxName)
	if r.Err != nil || called == name {
		return nil, r.Err
	}
	return &Finding{
		Severity:   High,
		Confidence: Certain,
		Title:      fmt.Sprintf("module %s is called %s in /sys/module", name, called),
		Object:     Object{Kind: "module", Name: name, Addr: m},
		Aspect:     "name",
		Expected:   "one name, which it was loaded by",
		Seen:       fmt.Sprintf("%s on the list of modules, %s in /sys/module", name, called),
		Evidence:   []Evidence{{Text: "its struct module", Addr: m}},
		Basis:      "lists of the guest's kernel, compared with each other at one look",
		Show:       fmt.Sprintf("outsight struct {} module.mkobj %#x", uint64(m)),
	}, nil
}

// moduleLayout is where members of the structures lie that lead to modules.
type moduleLayout struct {
	list, name, state, sysfs     kobj.Field // of module
	ksetList, entry, kobj, owner kobj.Field
	kobjName                     kobj.Field // of kobject
	root, node, nodeModule       kobj.Field // of mod_tree_root and mod_tree_node
}

const (
	moduleLive     = 0 // MODULE_STATE_LIVE
	moduleUnformed = 3 // MODULE_STATE_UNFORMED
	maxName        = 64

	byModules = "the list of modules"
	bySysfs   = "the modules in sysfs"
)

func layoutOfModules(s *linux.System) (*moduleLayout, error) {
	return kobj.LayoutOf(s.Walker, "ways to modules", func(r *kobj.Resolver, o *moduleLayout) {
		*o = moduleLayout{
			list: r.Field("module", "list"), name: r.Field("module", "name"), state: r.Field("module", "state"), sysfs: r.Optional("module", "mkobj"),
			ksetList: r.Optional("kset", "list"), entry: r.Optional("kobject", "entry"), kobjName: r.Optional("kobject", "name"), kobj: r.Optional("module_kobject", "kobj"), owner: r.Optional("module_kobject", "mod"),
			root: r.Optional("mod_tree_root", "root.tree"), node: r.Optional("mod_tree_node", "node.node"), nodeModule: r.Optional("mod_tree_node", "mod"),
		}
	})
}

func moduleWays(ctx context.Context, s *Subject) (followed, []error) {
	o, err := layoutOfModules(s.Linux)
	if err != nil {
		return nil, []error{err}
	}
	by := func(read func(context.Context, *moduleLayout, func(virt.Addr)) error) func(context.Context, func(virt.Addr)) error {
		return func(ctx context.Context, met func(virt.Addr)) error { return read(ctx, o, met) }
	}
	return follow(ctx, []way{{byModules, by(s.modulesByList)}, {bySysfs, by(s.modulesBySysfs)}, {"the tree of module addresses", by(s.modulesByTree)}})
}

func moduleState(s *Subject, m virt.Addr) (name string, state uint64, err error) {
	o, err := layoutOfModules(s.Linux)
	if err != nil {
		return "", 0, err
	}
	r := s.Linux.Reader()
	state = r.Uint(m, o.state)
	name = r.CString(o.name.At(m), maxName)
	return name, state, r.Err
}

func (s *Subject) modulesByList(ctx context.Context, o *moduleLayout, met func(virt.Addr)) error {
	head, err := s.Linux.ListHead("modules")
	if err != nil {
		return fmt.Errorf("%w: %w", kobj.ErrUnsupported, err)
	}
	for node, err := range s.Linux.List(ctx, head, linux.MaxModules) {
		if err != nil {
			return err
		}
		met(node - o.list.At(0))
	}
	return nil
}

// modulesBySysfs goes by /sys/module, where built-in modules with parameters are too.
func (s *Subject) modulesBySysfs(ctx context.Context, o *moduleLayout, met func(virt.Addr)) error {
	at, ok := s.Linux.Address("module_kset")
	if !ok || !o.ksetList.Present() || !o.entry.Present() || !o.owner.Present() {
		return kobj.ErrUnsupported
	}
	r := s.Linux.Reader()
	set := r.Ptr(at)
	if r.Err != nil || set == 0 {
		return kobj.ErrUnsupported // without CONFIG_SYSFS
	}
	for node, err := range s.Linux.List(ctx, o.ksetList.At(set), 2*linux.MaxModules) {
		if err != nil {
			return err
		}
		if m := r.Pointer(node-o.entry.At(0)-o.kobj.At(0), o.owner); r.Err != nil {
			return r.Err
		} else if m != 0 {
			met(m)
		}
	}
	return nil
}

// modulesByTree goes by the tree in which the kernel looks up whose an address is.
func (s *Subject) modulesByTree(ctx context.Context, o *moduleLayout, met func(virt.Addr)) error {
	tree, ok := s.Linux.Address("mod_tree")
	if !ok || !o.root.Present() || !o.node.Present() || !o.nodeModule.Present() {
		return kobj.ErrUnsupported // without CONFIG_MODULES_TREE_LOOKUP
	}
	r := s.Linux.Reader()
	const perModule = 8 // kinds of memory, a node each (since 6.4, ac3b43283923)
	for node, err := range s.Linux.RBTree(ctx, o.root.At(tree), perModule*linux.MaxModules) {
		if err != nil {
			return err
		}
		if m := r.Pointer(node-o.node.At(0), o.nodeModule); r.Err != nil {
			return r.Err
		} else if m != 0 {
			met(m)
		}
	}
	return nil
}
