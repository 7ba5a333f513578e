package check

import (
	"context"
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
		Blind: `What was changed and changed back between two looks. Hooks that use the kernel's own ways, such as ftrace and kprobes: those are in the views of that name, and
their handlers are judged by code-pointer. Text of modules. Without an image nothing is compared, and check says so: it is found if the host itself boots the
kernel, if it was added ("outsight profile add"), or if all of the guest's vmlinuz is in its page cache.`,
		Next: `Disassemble the function with the command shown: a jump or call that leads out of the kernel shows where the rest of the intruder's code is. Take that memory
out with "outsight read -o FILE", and dump the guest before anything else is done to it.`,
		Example: `The first instruction of a function was replaced by a jump:

    $ outsight check lab:demo
    SEVERITY  CONFIDENCE  CHECK        TITLE
    critical  certain     kernel-text  kernel text at vfs_read+0x4 is not the kernel's: neither a call for tracing nor a nop
    $ outsight disassemble lab:demo vfs_read`,
		Run: kernelText,
	})
}

func kernelText(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		t, trust, err := s.Text(ctx)
		if errors.Is(err, image.ErrNone) || errors.Is(err, linuxtext.ErrUnknownSites) {
			err = nothingToCompare{err}
		}
		if err != nil {
			yield(nil, err)
			return
		}
		for d, err := range t.Differences(ctx) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !yield(s.foundText(d, trust), nil) {
				return
			}
		}
	}
}

// nothingToCompare says that there is no reference, and none was asked for.
type nothingToCompare struct{ error }

// Is makes it one of the errors of what need not be checked.
func (nothingToCompare) Is(target error) bool { return target == kobj.ErrUnsupported }

func (e nothingToCompare) Unwrap() error { return e.error }

func (s *Subject) foundText(d linuxtext.Difference, trust image.Trust) *Finding {
	where := fmt.Sprintf("%s+%#x", d.Symbol, d.Offset)
	if d.Symbol == "" {
		where = d.Addr.String()
	}
	f := &Finding{
		Confidence: Certain,
		Title:      fmt.Sprintf("kernel text at %s is not the kernel's: %s", where, d.Reason),
		Object:     Object{Kind: "kernel text", Name: where, Addr: d.Addr},
		Expected:   describeCode(d.WantCode, d.Code),
		Seen:       describeCode(d.GotCode, d.Code),
		Evidence:   []Evidence{{Text: "as built", Addr: d.Addr, Bytes: d.Want}, {Text: "as it is", Addr: d.Addr, Bytes: d.Got}},
		Basis:      "kernel text against " + trust.String(),
		Show:       fmt.Sprintf("outsight disassemble {} %#x", uint64(d.Code)),
	}
	if d.Kind != 0 {
		f.Evidence = append(f.Evidence, Evidence{Text: "the kernel has a patch site here: " + d.Kind.String()})
	}
	if d.State {
		// The bytes are the kernel's own, and what governs them is data, which somebody may
		// have changed as well.
		f.Confidence = Likely
		f.Title = fmt.Sprintf("kernel text at %s is not that of the kernel's present state: %s", where, d.Reason)
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
