package check

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "taint",
		Title:     "Modules that the kernel's taint flags or its enforcement of signatures deny",
		Severity:  High,
		Technique: "T1562.001", // Impair Defenses: Disable or Modify Tools
		Source:    "tainted_mask, module.taints and sig_ok, unloaded_tainted_modules, the variable of module.sig_enforce, saved_command_line",
		Proves: `A module is loaded, or was, that taints the kernel, and the kernel's flags do not have it: no function of the kernel ever clears a flag, so somebody
wrote them. Or a module has no valid signature, and lacks the flag that says so, which it cleared. Or modules without a valid signature are forbidden, and one is loaded; or they were forbidden by the boot parameter, and no longer are.`,
		Blind: `A module that cleared its own flags, and claims that its signature was valid (sig_ok). Modules that are not on the list are found by hidden-module. Signatures may have been made compulsory after an
unsigned module was loaded, which is legal.`,
		Next: `"outsight modules TARGET" shows where the module lies, what it uses and its taints; take it out with "outsight extract TARGET --module MODULE -o FILE". Rootkits clear the flags so that nobody
asks for the module that set them.`,
		Example: `A rootkit cleared the taint flag that its module had set:

    $ outsight check lab:demo --only taint
    SEVERITY  CONFIDENCE  CHECK  TITLE
    high      certain     taint  the kernel's taint flags lack O, which module loop set`,
		Quick: true,
		Kept:  true,
		Run:   taints,
	})
}

// taintLayout is where modules that are gone are remembered (5.18), and what says of a
// module that it is signed.
type taintLayout struct {
	signed                   kobj.Field // module.sig_ok, with CONFIG_MODULE_SIG
	goneList, goneName, gone kobj.Field // of mod_unload_taint
	argument                 kobj.Field // kernel_param.arg
}

func taints(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		o, err := kobj.LayoutOf(s.Linux.Walker, "taints", func(r *kobj.Resolver, o *taintLayout) {
			r.Prefetch("tainted_mask", "unloaded_tainted_modules", "__param_sig_enforce")
			const u = "mod_unload_taint"
			o.signed, o.argument = r.Optional("module", "sig_ok"), r.Optional("kernel_param", "arg")
			o.goneList, o.goneName, o.gone = r.Optional(u, "list"), r.Optional(u, "name"), r.Optional(u, "taints")
		})
		if err != nil {
			yield(nil, err)
			return
		}
		t := &taintRun{s: s, o: o, r: s.Linux.Reader()}
		for _, part := range []func(context.Context) error{t.loaded, t.unloaded, t.unsigned, t.signatures} {
			err := part(ctx)
			for _, f := range t.found {
				if !yield(f, nil) {
					return
				}
			}
			t.found = nil
			if err != nil && !errors.Is(err, kobj.ErrUnsupported) && !yield(nil, err) {
				return
			}
		}
	}
}

type taintRun struct {
	s     *Subject
	o     *taintLayout
	r     kobj.Reader
	found []*Finding
}

// mask is the kernel's own taint flags.
func (t *taintRun) mask() (v uint64, at virt.Addr, err error) {
	at, err = t.s.Linux.SymbolAddr("tainted_mask")
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %w", kobj.ErrUnsupported, err)
	}
	v, err = t.s.Linux.Word(at)
	return v, at, err
}

// denied judges the taints of one module by those of the kernel: add_taint_module sets both
// (kernel/module).
func (t *taintRun) denied(name string, at virt.Addr, taints, mask uint64, of virt.Addr) {
	missing := taints &^ mask
	if missing == 0 {
		return
	}
	t.found = append(t.found, &Finding{
		Confidence: Certain,
		Title:      fmt.Sprintf("the kernel's taint flags lack %s, which module %s set", linux.TaintLetters(missing), name),
		Object:     Object{Kind: "module", Name: name, Addr: at},
		Expected:   linux.TaintLetters(mask | taints),
		Seen:       fmt.Sprintf("%q", linux.TaintLetters(mask)),
		Evidence:   []Evidence{{Text: "the module", Addr: at}, {Text: "tainted_mask", Addr: of, Bytes: bytesAt(t.s, of, 8)}},
		Basis:      "the guest's list of modules, compared with its taint flags at one look",
		Show:       "outsight modules {}",
	})
}

func (t *taintRun) loaded(context.Context) error {
	modules, err := t.s.Modules()
	if err != nil {
		return err
	}
	mask, at, err := t.mask()
	if err != nil {
		return err
	}
	for _, m := range modules {
		t.denied(m.Name, m.Addr, m.Taints, mask, at)
	}
	return nil
}

// unloaded judges modules that are gone, which the kernel remembers if they tainted it.
func (t *taintRun) unloaded(ctx context.Context) error {
	head, ok := t.s.Linux.Address("unloaded_tainted_modules")
	if !ok || !t.o.goneList.Present() || !t.o.gone.Present() {
		return nil
	}
	mask, at, err := t.mask()
	if err != nil {
		return err
	}
	for node, err := range t.s.Linux.List(ctx, head, linux.MaxModules) {
		if err != nil {
			return fmt.Errorf("modules that tainted the kernel: %w", err)
		}
		a := node - t.o.goneList.At(0)
		taints, name := t.r.Uint(a, t.o.gone), t.r.CString(t.o.goneName.At(a), maxName)
		if t.r.Err != nil {
			return fmt.Errorf("modules that tainted the kernel: %w", t.r.Err)
		}
		t.denied(name+" (unloaded)", a, taints, mask, at)
	}
	return nil
}

// unsigned judges the flags of a module by whether the kernel took its signature: load_module notes that, and sets the flag
// of one that has none, in one go.
func (t *taintRun) unsigned(context.Context) error {
	if !t.o.signed.Present() {
		return nil // built without CONFIG_MODULE_SIG
	}
	modules, err := t.s.Modules()
	if err != nil {
		return err
	}
	for _, m := range modules {
		if m.State != linux.ModuleLive || m.Taints&linux.TaintUnsigned != 0 {
			continue
		}
		signed := t.r.Uint(m.Addr, t.o.signed) != 0
		if t.r.Err != nil {
			return fmt.Errorf("signature of module %s: %w", m.Name, t.r.Err)
		}
		if signed {
			continue
		}
		t.found = append(t.found, &Finding{
			Confidence: Certain,
			Title:      fmt.Sprintf("module %s has no valid signature, and its taint flags lack %s", m.Name, linux.TaintLetters(linux.TaintUnsigned)),
			Object:     Object{Kind: "module", Name: m.Name, Addr: m.Addr},
			Aspect:     "unsigned",
			Expected:   linux.TaintLetters(m.Taints | linux.TaintUnsigned),
			Seen:       fmt.Sprintf("%q", linux.TaintLetters(m.Taints)),
			Evidence:   []Evidence{{Text: "its struct module", Addr: m.Addr}, {Text: "module.sig_ok", Addr: t.o.signed.At(m.Addr), Bytes: []byte{0}}},
			Basis:      "two members of the guest's struct module that the kernel sets together",
			Show:       fmt.Sprintf("outsight modules {} --where 'name == %q'", m.Name),
		})
	}
	return nil
}

// signatures judges modules by whether they must be signed.
func (t *taintRun) signatures(context.Context) error {
	parameter, ok := t.s.Linux.Address("__param_sig_enforce")
	if !ok || !t.o.argument.Present() || !t.o.signed.Present() {
		return nil // built without CONFIG_MODULE_SIG
	}
	variable := t.r.Pointer(parameter, t.o.argument)
	on := t.r.Uint(variable, kobj.FieldAt(0, 1)) != 0
	if t.r.Err != nil {
		return fmt.Errorf("enforcement of signatures: %w", t.r.Err)
	}
	if !on {
		if v := t.s.parameter("module.sig_enforce"); v == "1" || v == "y" || v == "Y" {
			t.found = append(t.found, stateFound("module.sig_enforce", "signatures of modules were made compulsory when the guest booted, and are not", "1", "0", variable, []byte{0}))
		}
		return nil
	}
	modules, err := t.s.Modules()
	if err != nil {
		return err
	}
	for _, m := range modules {
		signed := t.r.Uint(m.Addr, t.o.signed) != 0
		if t.r.Err != nil {
			return fmt.Errorf("signature of module %s: %w", m.Name, t.r.Err)
		}
		if signed || m.State != linux.ModuleLive {
			continue
		}
		t.found = append(t.found, &Finding{
			Confidence: Likely,
			Title:      fmt.Sprintf("module %s is loaded without a valid signature, and signatures are compulsory", m.Name),
			Object:     Object{Kind: "module", Name: m.Name, Addr: m.Addr},
			Expected:   "a signature by a key that the kernel trusts (module.sig_ok)",
			Seen:       "none",
			Evidence:   []Evidence{{Text: "its struct module", Addr: m.Addr}, {Text: "module.sig_enforce", Addr: variable, Bytes: []byte{1}}},
			Basis:      "the guest's list of modules, compared with its enforcement of signatures at one look",
			Show:       "outsight modules {}",
		})
	}
	return nil
}
