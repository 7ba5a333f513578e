package check

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/image"
	linuxtext "github.com/outsight-vmi/outsight/linux/text"
)

func init() {
	Register(Check{
		ID:        "module-text",
		Title:     "Text or read-only data of a module that differs from its file",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source: `the text of each module on the kernel's list, and the sections of its read-only data, against its .ko: laid out as layout_sections does, relocated by its
own relocations with the kernel's __ksymtab and those of other modules; at patch sites (.altinstructions, .return_sites, .retpoline_sites, .ibt_endbr_seal, .smp_locks,
.parainstructions, __mcount_loc, __jump_table, .static_call_sites) against what governs them, as kernel-text. Left out, because the kernel changes them when it loads a module:
.altinstructions, .orc_unwind, .orc_unwind_ip, __mcount_loc, and __ex_table if an entry leads into .init.text`,
		Proves: `A module executes other code than it was built with, or its tables of functions were changed, and none of the ways in which a kernel patches itself accounts for
it. The basis says what the file is believed for: a signature by one of the keys inside the kernel's own image is as good as that image, wherever the file was found; the
guest's own file without a signature only shows that memory is not what was loaded.`,
		Blind: `Modules without a reference, of which the assurances of the check say how many: those that were built for this guest, and those whose file is neither beside the
kernel's file on the host, nor in the initrd, nor whole in the guest's page cache. Where the kernel's modules are signed, an unsigned file of the guest's own is no reference:
one of the kernel's own modules is then not compared, and that another equals it proves nothing. Data that is writable, or is sealed after the module's own initialisation. What
was changed and changed back between two looks. Modules that hide: see hidden-module.`,
		Next: `Disassemble the function with the command shown: a jump or call that leads out of the module shows where the rest of the intruder's code is. Dump the guest
before anything else is done to it.`,
		Example: `The return of a function of the packet filter was replaced:

    $ outsight check lab:demo
    SEVERITY  CONFIDENCE  CHECK        TITLE
    critical  certain     module-text  text of module nf_tables at nf_tables_newtable+0x2f is not the module's: the kernel patches nothing here
    $ outsight disassemble lab:demo 0xffffffffc0412f3f`,
		Steady: true,
		Run:    moduleText,
	})
}

func moduleText(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		if _, err := s.Modules(); err != nil { // what cannot be read of them is a gap of this check as well
			yield(nil, err)
			return
		}
		c, err := s.parts.comparison.get(ctx)
		if err != nil {
			yield(nil, unreferenced(err))
			return
		}
		s.parts.note(c, c.Kernel)
		for _, w := range c.Without {
			if f := foundUnplaced(c, w); f != nil && !yield(f, nil) {
				return
			}
		}
		s.differences(ctx, c.Text, yield, func(d linuxtext.Difference) image.Trust { return c.Trust[d.Module] })
	}
}

// foundUnplaced is a finding if a module of the kernel's own is not as large as its file
// makes it.
func foundUnplaced(c *guest.ModuleComparison, w linuxtext.Unplaced) *Finding {
	if !errors.Is(w.Err, image.ErrLayout) || w.Module.Foreign() {
		return nil
	}
	m := w.Module
	return &Finding{
		Confidence: Likely,
		Title:      fmt.Sprintf("module %s is not the one that was built for this kernel: its areas have other sizes than its file gives them", m.Name),
		Object:     Object{Kind: "module", Name: m.Name, Addr: m.Addr},
		Expected:   "areas of the sizes that the file's sections have",
		Seen:       w.Err.Error(),
		Evidence:   []Evidence{{Text: "struct module", Addr: m.Addr}, {Text: "its text", Addr: m.Start()}},
		Basis:      "module against " + c.Trust[m].String(),
		Show:       "outsight modules {} --where 'name == \"" + m.Name + "\"'",
	}
}
