package check

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	linuxtext "github.com/outsight-vmi/outsight/linux/text"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/virt/x86"
)

func init() {
	Register(Check{
		ID:        "kernel-text",
		Title:     "Kernel text that differs from the image that the kernel was booted from",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source: `all of _stext.._etext against the vmlinuz, moved by its relocations; at patch sites (.altinstructions, .return_sites, .retpoline_sites, .ibt_endbr_seal,
.smp_locks, .parainstructions, __mcount_loc, __jump_table, static calls, runtime constants) against what governs them: processor features, pv_ops, ftrace's records,
static keys, static call keys, kprobes`,
		Proves: `The kernel executes other code than it was built with, and none of the ways in which a kernel patches itself accounts for it: an inline hook, a patched check
of permissions, a mitigation that was switched off. What "certain" rests on is the image: the basis says whether a distribution's signature vouches for it, or the
host's file alone.`,
		Blind: `What was changed and changed back between two looks. What contradicts a static key or call while a task that is at work holds the mutex for it, and has the key on its stack, or holds text_mutex: that is a gap, which names the place, and with --every a finding once one task has held the mutex for two minutes. Hooks that use the kernel's own ways, such as ftrace and kprobes: those are in the views of that name, and
their handlers are judged by code-pointer. Text of modules: module-text compares that. Without an image nothing is compared, and check says so: it is found if the host itself boots the
kernel, if it was added ("outsight profile add"), or if all of the guest's vmlinuz is in its page cache.`,
		Next: `Disassemble the function with the command shown: a jump or call that leads out of the kernel shows where the rest of the intruder's code is. Take that memory
out with "outsight read TARGET ADDRESS 4096 -o FILE", and dump the guest before anything else is done to it.`,
		Example: `The first instruction of a function was replaced by a jump:

    $ outsight check lab:demo
    SEVERITY  CONFIDENCE  CHECK        TITLE
    critical  certain     kernel-text  kernel text at vfs_read+0x4 is not the kernel's: neither a call for tracing nor a nop
    $ outsight disassemble lab:demo vfs_read`,
		Steady: true,
		Quick:  true,
		Run:    kernelText,
	})
}

func kernelText(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return s.imageDifferences(ctx, s.Text)
}

// imageDifferences yields what of the kernel is not as its image says.
func (s *Subject) imageDifferences(ctx context.Context, prepare func(context.Context) (*linuxtext.Text, image.Trust, error)) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		t, trust, err := prepare(ctx)
		if err != nil {
			yield(nil, unreferenced(err))
			return
		}
		s.differences(ctx, t, yield, func(linuxtext.Difference) image.Trust { return trust })
	}
}

// differences yields what is not as its file says.
func (s *Subject) differences(ctx context.Context, t *linuxtext.Text, yield func(*Finding, error) bool, trust func(linuxtext.Difference) image.Trust) {
	planted := s.isPlanted(ctx)
	for d, err := range t.Differences(ctx) {
		var f *Finding
		if err == nil && d.Module == nil && planted(d.Addr, len(d.Got)) {
			continue // planted-probe judges it
		}
		if err == nil {
			f = s.foundText(d, trust(d))
		}
		if !yield(f, err) {
			return
		}
	}
}

// nothingToCompare says that there is no reference, and none was asked for.
type nothingToCompare struct{ error }

// Is makes it one of the errors of what need not be checked.
func (nothingToCompare) Is(target error) bool { return target == kobj.ErrUnsupported }

func (e nothingToCompare) Unwrap() error { return e.error }

// noReference reports whether an error says that there is nothing to compare with.
func noReference(err error) bool {
	return errors.Is(err, image.ErrNone) || errors.Is(err, linuxtext.ErrUnknownSites)
}

// unreferenced is err, and [nothingToCompare] if it says that there is no reference.
func unreferenced(err error) error {
	if noReference(err) {
		return nothingToCompare{err}
	}
	return err
}

func (s *Subject) foundText(d linuxtext.Difference, trust image.Trust) *Finding {
	of, whose := "kernel", "the kernel's"
	if d.Module != nil {
		of, whose = "module "+d.Module.Name, "the module's"
	}
	what, kind := of+" text", of+" text"
	if d.Module != nil {
		kind = "module text"
	}
	if d.VDSO != "" {
		what, kind = "the kernel's image of the "+d.VDSO+" vDSO", "vDSO"
	}
	if d.Section != "" {
		what, kind = "read-only data of "+of, "read-only data"
		if d.Module == nil {
			what = "kernel read-only data"
		}
	}
	where := fmt.Sprintf("%s+%#x", d.Symbol, d.Offset)
	if d.Symbol == "" {
		where = d.Addr.String()
	}
	f := &Finding{
		Confidence: Certain,
		Title:      fmt.Sprintf("%s at %s is not %s: %s", what, where, whose, d.Reason),
		Object:     Object{Kind: kind, Name: where, Addr: d.Addr},
		Evidence:   []Evidence{{Text: "as built", Addr: d.Addr, Bytes: d.Want}, {Text: "as it is", Addr: d.Addr, Bytes: d.Got}},
		Basis:      what + " against " + trust.String(),
		Busy:       d.Patching,
	}
	s.explainedBy(f, d.Work, d.InHand)
	if d.VDSO != "" {
		f.Severity = Critical // every process runs it
	}
	if d.Module != nil {
		f.Object.Name = d.Module.Name + ":" + where
	}
	if d.Section != "" {
		f.Expected, f.Seen = s.describeData(d.Want), s.describeData(d.Got)
		f.Show = fmt.Sprintf("outsight read {} %#x %d", uint64(d.Addr), len(d.Got))
		f.Evidence = append(f.Evidence, Evidence{Text: "it is in " + d.Section})
		if isPointer(d.Got) {
			f.nextAddr = virt.Addr(binary.LittleEndian.Uint64(d.Got))
		}
		if !isPointer(d.Want) && !isPointer(d.Got) {
			// On some processors kernels wrote into their own constants before they sealed them.
			f.Confidence = Likely
		}
		return f
	}
	f.Expected, f.Seen = describeCode(d.WantCode, d.Code), describeCode(d.GotCode, d.Code)
	f.Show = fmt.Sprintf("outsight disassemble {} %#x", uint64(d.Code))
	if d.Kind != 0 {
		f.Evidence = append(f.Evidence, Evidence{Text: "the kernel has a patch site here: " + d.Kind.String()})
	}
	if d.Patching {
		f.Confidence = Likely // it says so, or somebody has it say so
	}
	if d.State {
		// The bytes are the kernel's own, and what governs them is data, which somebody may
		// have changed as well.
		f.Confidence = Likely
		f.Title = fmt.Sprintf("%s at %s is not that of the kernel's present state: %s", what, where, d.Reason)
	}
	if to, ok := leadsTo(d.GotCode, d.Code); ok {
		owner := "unknown code"
		if owners, err := s.Owners(); err == nil {
			owner = describeOwner(owners, to)
		}
		f.Evidence = append(f.Evidence, Evidence{Text: "it leads to " + owner, Addr: to, Bytes: codeAt(s, uint64(to))})
	}
	return f
}

// describeData is bytes of data, with what it leads to if it is a pointer into the kernel.
func (s *Subject) describeData(b []byte) string {
	text := hex.EncodeToString(b)
	if !isPointer(b) {
		return text
	}
	a := virt.Addr(binary.LittleEndian.Uint64(b))
	text += fmt.Sprintf(" (a pointer to %#x", uint64(a))
	if owners, err := s.Owners(); err == nil {
		if o := owners.CodeAt(a); o.Kind != linux.OwnerNone {
			text += ", " + describeOwner(owners, a)
		}
	}
	return text + ")"
}

// isPointer reports whether b is a word that leads into the kernel's half of addresses.
func isPointer(b []byte) bool {
	if len(b) != 8 {
		return false
	}
	a := binary.LittleEndian.Uint64(b)
	return a >= 0xff00_0000_0000_0000 && a < 0xffff_ffff_ffff_0000 // with five levels of page tables; small negative numbers are none
}

func describeOwner(owners *linux.Owners, a virt.Addr) string {
	o := owners.CodeAt(a)
	if o.Kind == linux.OwnerNone {
		return "code of an unknown owner"
	}
	if o.Symbol == "" {
		return "code of " + o.String()
	}
	return o.Function() + " of " + o.String()
}

// describeCode is bytes of code with the instruction that they begin with.
func describeCode(b []byte, at virt.Addr) string {
	text := hex.EncodeToString(b)
	if name := x86.Name(b); name != "" {
		return text + " (" + name + " …)"
	}
	inst, err := x86.Decode(b)
	if err != nil || inst.Len > len(b) {
		return text
	}
	return text + " (" + strings.ToLower(x86asm.GNUSyntax(inst, uint64(at), nil)) + ")"
}

// leadsTo is where the direct jump or call leads that b begins with.
func leadsTo(b []byte, at virt.Addr) (virt.Addr, bool) {
	inst, err := x86.Decode(b)
	if err != nil || inst.Len > len(b) {
		return 0, false
	}
	rel, ok := inst.Args[0].(x86asm.Rel)
	if !ok {
		return 0, false
	}
	return at + virt.Addr(inst.Len) + virt.Addr(int64(rel)), true
}
