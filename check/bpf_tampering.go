package check

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "bpf-tampering",
		Title:     "BPF programs that change what programs see or what system calls do",
		Severity:  High,
		Technique: "T1014", // Rootkit
		Source:    "prog_idr, the instructions of each program (bpf_prog.insnsi), and which functions of the kernel they call; the holders of programs; bpf_prog.bpf_func of all programs in vmalloc areas, classic filters too",
		Proves: `A BPF program calls bpf_probe_write_user, which overwrites the memory of whatever process it runs in, or bpf_override_return, which has a function of the kernel return
without being run. Or what runs when a program is called (bpf_func) is a function of a module's or of the kernel's, in place of the program: so a filter of packets or of system calls lets through what it was
set to stop. Rootkits made of BPF hide files and processes, inject libraries and forge files in this way: the kernel itself warns of the first in its log.`,
		Blind: `What only watches, or drops and answers packets (XDP, tc): these are in the views bpf and bpf_links. A program that was taken out of the table: hidden-bpf finds that. A program that runs the
code of another program.`,
		Next: `Look at the program with the command shown, at where it is attached (bpf_links) and at the process that loaded it. Tools that instrument Go programs write to user memory as
well, and some security products override returns: find out whether one is installed.`,
		Example: `A program attached to getdents64 overwrites what it returned:

    $ outsight check lab:demo --only bpf-tampering
    SEVERITY  CONFIDENCE  CHECK          TITLE
    high      likely      bpf-tampering  BPF program 31 (hide, tracepoint) overwrites memory of processes`,
		Quick: true,
		Kept:  true,
		Run:   bpfTampering,
	})
}

// tampering are functions for BPF programs that change what is not theirs.
var tampering = []struct {
	helper, what string
	severity     Severity
	sure         Confidence
}{
	{"bpf_probe_write_user", "overwrites memory of processes", High, Likely},
	{"bpf_override_return", "has functions of the kernel return without being run", Medium, Possible},
}

func bpfTampering(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		names := []string{"__bpf_call_base"}
		for _, h := range tampering {
			names = append(names, h.helper)
		}
		if err := s.Linux.Prefetch(names...); err != nil {
			yield(nil, err)
			return
		}
		base, ok := s.Linux.Address("__bpf_call_base")
		if !ok {
			return // built without BPF
		}
		fs, err := exchangedPrograms(ctx, s)
		for _, f := range fs {
			if !yield(f, nil) {
				return
			}
		}
		if err != nil && !yield(nil, err) {
			return
		}
		var holders *bpf.Holders
		for p, err := range bpf.Programs(ctx, s.Linux) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			code, err := bpf.Instructions(s.Linux, p)
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			called := helpersIn(code, base)
			for _, h := range tampering {
				at, ok := s.Linux.Address(h.helper)
				if !ok || !slices.Contains(called, at) {
					continue
				}
				if holders == nil {
					if holders, err = bpf.FindHolders(ctx, s.Linux); err != nil {
						holders = &bpf.Holders{}
					}
				}
				f := tamperingFound(s, p, holders, at)
				f.Severity, f.Confidence, f.Aspect = h.severity, h.sure, h.helper
				f.Title += h.what
				f.Seen = "calls " + h.helper
				if !yield(f, nil) {
					return
				}
			}
		}
	}
}

func tamperingFound(s *Subject, p *bpf.Program, holders *bpf.Holders, helper virt.Addr) *Finding {
	f := &Finding{
		Title:    fmt.Sprintf("BPF program %d (%s, %s) ", p.ID, p.Name, p.Type),
		Object:   Object{Kind: "BPF program", Name: fmt.Sprint(p.ID), Addr: p.Addr},
		Expected: "programs that watch, filter and account",
		Evidence: []Evidence{{Text: "its struct bpf_prog", Addr: p.Addr}, {Text: "the function that it calls", Addr: helper, Bytes: codeAt(s, uint64(helper))}},
		Basis:    "the program's instructions, as the kernel's verifier left them",
		Show:     fmt.Sprintf("outsight bpf {} --where 'id == %d' -o json", p.ID),
	}
	if p.Target != "" {
		f.Evidence = append(f.Evidence, Evidence{Text: "it is attached to " + p.Target})
	}
	for _, h := range holders.Files[p.Addr] {
		f.Evidence = append(f.Evidence, Evidence{Text: fmt.Sprintf("process %d holds it", h.PID)})
	}
	if pins := holders.Pins[p.Addr]; len(pins) > 0 {
		f.Evidence = append(f.Evidence, Evidence{Text: "it is pinned as " + strings.Join(pins, ", ")})
	}
	return f
}

// helpersIn are the functions of the kernel that instructions call. The verifier replaced
// their numbers by their distances from __bpf_call_base.
func helpersIn(code []byte, base virt.Addr) (called []virt.Addr) {
	const size, call, wide = 8, 0x85, 0x18 // BPF_JMP|BPF_CALL, BPF_LD|BPF_IMM|BPF_DW
	for i := 0; i+size <= len(code); i += size {
		switch {
		case code[i] == wide:
			i += size // its second half is not an instruction
		case code[i] == call && code[i+1]>>4 == 0: // 1 is a function of the program, 2 a kfunc
			called = append(called, base+virt.Addr(int64(int32(binary.LittleEndian.Uint32(code[i+4:])))))
		}
	}
	return called
}
