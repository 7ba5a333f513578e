package check

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"sort"
	"strings"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
	linuxtext "github.com/outsight-vmi/outsight/linux/text"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "data-pointer",
		Title:     "Pointers to functions in the kernel's data that lead out of the kernel",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source: `every word of .data, .data..percpu and __ro_after_init that the vmlinuz has built to lead to .text (nine to thirteen thousand: consoles, clocks, protocols,
neighbour tables, dst_ops, sysctls, static calls …), the words that are empty beside them in the same variable, every word of __ro_after_init, and softirq_vec; against the guest's lists of code and the files of its modules`,
		Proves: `A variable of the kernel's own, which was built to call a function of the kernel, calls code of unknown owners, or of a module that nobody vouches for: neither a key of this
kernel signed it, nor is it a reference of the user's, nor, where modules are not signed, a file of the host's. Or it calls another function of the kernel's than it was built to call, whose address is in no
instruction and no table of the kernel image (severity medium, confidence possible). That assumes that what exchanges the pointer takes the new function from there, and that no module has the kernel put a function
there that is exported: variables that are known to get functions in another way (function tracing, platforms, hypervisors, static calls) are left out. Or a module's function is in data that the kernel seals before any module is loaded.
The kernel exchanges such pointers for other functions of its own, and hands none out to modules but a few to KVM, which are left out. Where nothing speaks against the module but that its file is not at hand, severity is medium.`,
		Blind: `A pointer that was exchanged for a function of the kernel's own whose address is in an instruction or a table of the kernel image, as that of one in five, on 5.10 two in five, is; static calls, variables of function tracing, of processors' and
hypervisors' platforms and what the kernel seals, exchanged for functions of its own. Without CONFIG_KALLSYMS_ALL variables have no names, and pointers exchanged for functions of the kernel's own and variables beside others are not
looked for. Variables that are empty in the image: those that modules may set (pm_power_off, handlers of
hypervisors, callbacks of processor hotplug) are legal, and those in allocated memory have checks of their own (operations-table, code-pointer). What was exchanged by a module that a key of this kernel signed.
Function tracing and tracepoints: module-hook. Without an image of the kernel nothing is compared: kernel-text says where one is found.`,
		Next: `Disassemble the function with the command shown, and take the module out with "outsight extract TARGET --module MODULE -o FILE". What the variable is for says what the hook is for: neighbour tables and
dst_ops see packets, consoles see the kernel's log, clocks and soft interrupts run often.`,
		Example: `A module that is on the list has put its own function in the place of arp_constructor:

    $ outsight check lab:demo --only data-pointer
    SEVERITY  CONFIDENCE  CHECK         TITLE
    critical  likely      data-pointer  arp_tbl+0x58 was built to lead to arp_constructor and leads to fu_nop of module fu (out of tree, unsigned)
    $ outsight read lab:demo arp_tbl+0x58 8
    $ outsight disassemble lab:demo 0xffffffffc0501020

What says when a module is loaded has been led to a function of the kernel that does nothing:

    medium    possible    data-pointer  kprobe_module_nb was built to lead to kprobes_module_callback and leads to profile_hits, whose address is in no instruction and no table of the kernel image`,
		Quick: true,
		Run:   dataPointers,
	})
}

func dataPointers(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		p, trust, err := s.Pointers(ctx)
		if err != nil {
			yield(nil, unreferenced(err))
			return
		}
		owners, err := s.Owners()
		if err != nil {
			yield(nil, err)
			return
		}
		w := &dataWalk{ctx: ctx, s: s, owners: owners, trust: trust}
		inModule := func(a virt.Addr) bool { return owners.OwnerAt(a).Kind == linux.OwnerModule }
		for d, err := range p.Moved(ctx, inModule) {
			var f *Finding
			if err == nil {
				f, err = w.judge(d)
			}
			if (f != nil || err != nil) && !yield(f, err) {
				return
			}
		}
	}
}

// dataWalk is one run of the check.
type dataWalk struct {
	ctx    context.Context
	s      *Subject
	owners *linux.Owners
	trust  image.Trust
}

// judge is a finding if a pointer leads where it may not.
func (w *dataWalk) judge(d linuxtext.Pointer) (*Finding, error) {
	if traced(d.Symbol) {
		return nil, nil
	}
	switch owner := w.owners.OwnerAt(d.Got); owner.Kind {
	case linux.OwnerNone:
		// Words of unions and lists lead to data, too: what cannot be executed is not called.
		if !w.s.Linux.Space.KernelHalf(d.Got) {
			return nil, nil
		}
		code, err := w.executable(d.Got)
		if err != nil || !code {
			return nil, err
		}
		return w.found(d, Certain, "code of an unknown owner"), nil
	case linux.OwnerModule:
		st, m := w.s.standingOf(w.ctx, owner.Name)
		always := d.Sealed || d.Want == 0 && !d.Beside // nobody may
		if m == nil || !always && (st.vouched || d.Beside && st.strange == "") {
			return nil, nil
		}
		if d.Want != 0 && handedOut(d.Symbol, owner.Name) {
			return nil, nil
		}
		who := describeOwner(w.owners, d.Got)
		if o := w.owners.CodeAt(d.Got); o.Symbol != "" {
			who = o.Function() + " of module " + owner.Name
		}
		if st.strange != "" {
			who += " (" + st.strange + ")"
		}
		f := w.found(d, Likely, who)
		if !always && st.strange == "" {
			// Nothing speaks against the module but that its file is not at hand.
			f.Severity, f.Confidence = Medium, Possible
		}
		return f, nil
	}
	if d.Exchanged {
		return w.exchanged(d), nil
	}
	return nil, nil // the kernel's initialisation, BPF, trampolines
}

// exchanged is a finding of a pointer that leads to another function of the kernel's.
func (w *dataWalk) exchanged(d linuxtext.Pointer) *Finding {
	got := w.owners.CodeAt(d.Got).Function()
	f := w.found(d, Possible, got)
	f.Severity, f.Aspect = Medium, "exchanged"
	f.Title += ", whose address is in no instruction and no table of the kernel image"
	f.Expected = fmt.Sprintf("%s (%#x), or a function whose address is in an instruction or a table of the kernel image", w.owners.CodeAt(d.Want).Function(), uint64(d.Want))
	f.Basis = "the guest's data against " + w.trust.String() + ", assuming that the kernel exchanges pointers only for functions that its instructions and tables have"
	return f
}

// handedOut reports whether the kernel hands a variable out to a module, which puts functions of its own there while it is loaded: KVM sets
// who is woken by posted interrupts (kvm_set_posted_intr_wakeup_handler), and what perf asks about guests (perf_register_guest_info_callbacks, 5.17).
func handedOut(symbol, module string) bool {
	if module != "kvm" && module != "kvm_intel" && module != "kvm_amd" {
		return false
	}
	return symbol == "kvm_posted_intr_wakeup_handler" || strings.HasPrefix(symbol, "__SCK____perf_guest_")
}

// traced reports whether a variable is one that function tracing or a tracepoint has call what it was asked to: who
// may ask for that is judged by module-hook, with what it asks for.
func traced(symbol string) bool {
	return strings.HasPrefix(symbol, "ftrace_") || strings.HasPrefix(symbol, "__SCK__tp_func_")
}

// executable reports whether the kernel can execute what is at a.
func (w *dataWalk) executable(a virt.Addr) (bool, error) {
	all, err := w.s.Executable()
	if err != nil {
		return false, err
	}
	i := sort.Search(len(all), func(i int) bool { return all[i].end > a })
	return i < len(all) && all[i].holds(a), nil
}

func (w *dataWalk) found(d linuxtext.Pointer, c Confidence, leads string) *Finding {
	f := &Finding{
		Confidence: c,
		Object:     Object{Kind: "function pointer", Name: variable(d), Addr: d.Addr},
		Aspect:     "leads out",
		Seen:       fmt.Sprintf("%#x (%s)", uint64(d.Got), leads),
		Evidence: []Evidence{
			{Text: "the pointer", Addr: d.Addr, Bytes: binary.LittleEndian.AppendUint64(nil, uint64(d.Got))},
			{Text: "what it leads to", Addr: d.Got, Bytes: codeAt(w.s, uint64(d.Got))},
		},
		Basis: "the guest's data against " + w.trust.String() + ", and whose code lies where by its lists of modules and BPF programs",
		Show:  fmt.Sprintf("outsight disassemble {} %#x", uint64(d.Got)),
	}
	if to := w.owners.CodeAt(d.Got); to.Kind == linux.OwnerModule {
		f.nextModule = to.Name
	}
	switch built := w.owners.CodeAt(d.Want).Function(); {
	case d.Want != 0:
		f.Title = fmt.Sprintf("%s was built to lead to %s and leads to %s", variable(d), built, leads)
		f.Expected = fmt.Sprintf("%s (%#x), or another function of the kernel", built, uint64(d.Want))
	case d.Sealed:
		f.Title = fmt.Sprintf("%s leads to %s, and is in data that the kernel seals before it loads modules", variable(d), leads)
		f.Expected = "functions of the kernel alone"
	case d.Beside:
		f.Title = fmt.Sprintf("%s was built empty, beside functions of the kernel's own, and leads to %s", variable(d), leads)
		f.Expected = "nothing, or a function of the kernel"
	default:
		f.Title = fmt.Sprintf("%s leads to %s, and holds functions of the kernel alone", variable(d), leads)
		f.Expected = "functions of the kernel alone"
	}
	return f
}

// variable names a pointer.
func variable(d linuxtext.Pointer) string {
	switch {
	case d.CPU >= 0:
		return fmt.Sprintf("the variable at %s of processor %d", d.Addr, d.CPU)
	case d.Symbol == "":
		return "the variable at " + d.Addr.String()
	case d.Offset == 0:
		return d.Symbol
	}
	return fmt.Sprintf("%s+%#x", d.Symbol, d.Offset)
}
