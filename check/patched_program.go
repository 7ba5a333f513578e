package check

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/image"
	"github.com/outsight-vmi/outsight/linux/mm"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "patched-program",
		Title:     "Code of programs and libraries that was changed where it is mapped",
		Severity:  High,
		Technique: "T1055.009", // Process Injection: Proc Memory
		Source:    "page tables of processes where files are mapped to be executed, against the page cache of these files",
		Proves: `A process has a page of code of its own in place of the file's, and its bytes are others: somebody wrote to it, by /proc/PID/mem, ptrace, or after the process had made it
writable. Loaders and linkers write to data alone. Injectors and hooks change code in this way, so that neither the file nor the list of mappings shows it.`,
		Blind: `Breakpoints: single bytes that debuggers and uprobes put there, and calls of the kernel's uprobes. Code whose file asks for it to be writable, libraries with relocations in their code
(DT_TEXTREL), and pages that are swapped out. A file that was changed itself.`,
		Next: `Disassemble the code with the command shown, and compare it with the file's. The view ptrace shows who traces the process; what is hooked says what for.`,
		Example: `A function of a running service was overwritten through /proc/PID/mem:

    $ outsight check lab:demo --only patched-program -o json | jq -r '.title, .seen'
    process 640 (sshd) has changed code of /usr/sbin/sshd at 0x55d0c8a41230
    e9fb0d0000`,
		Kept: true,
		Run:  patchedPrograms,
	})
}

func patchedPrograms(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return s.overPrograms(ctx, func(_ *programs, p *program, yield report) {
		space, err := s.Linux.UserSpace(p.MM)
		if err != nil {
			return // it is just ending
		}
		for _, m := range p.maps {
			if m.File == 0 || m.Err != nil || m.Flags&linux.VMExec == 0 || m.Flags&(linux.VMShared|linux.VMHugeTLB) != 0 {
				continue
			}
			if m.Flags&linux.VMWrite != 0 && !s.madeWritable(p, m, space) {
				continue
			}
			if !yield(s.patched(p, m, space)) {
				return
			}
		}
	})
}

// madeWritable reports whether a mapping that can be written to is of code that its file does not ask to be.
func (s *Subject) madeWritable(p *program, m *linux.Mapping, space *virt.Space) bool {
	var b [phys.PageSize]byte
	i := imageOf(linux.ImagesAmong(p.maps), m)
	if i == nil {
		return false
	}
	_, err := s.Linux.FilledMemory(space, p.maps).ReadAt(b[:], i.Start)
	return err == nil && string(b[:len(elf.ELFMAG)]) == elf.ELFMAG && readOnlyCode(b[:], m.Offset)
}

// Bits of a page-table entry that say that its page was written to: where it cannot be
// written any more, the second stands for the first (since 6.6, with shadow stacks).
const (
	entryDirty      = 1 << 6
	entrySavedDirty = 1 << 58
)

// patched is the first change in one mapping of a file. A page that was written to is a copy
// for the process, so that only those have to be compared.
func (s *Subject) patched(p *program, m *linux.Mapping, space *virt.Space) (*Finding, error) {
	var page, file [phys.PageSize]byte
	for e := range space.Mappings(m.Start, m.End-1) {
		if e.Entry&(entryDirty|entrySavedDirty) == 0 || e.Size != phys.PageSize {
			continue
		}
		if _, err := space.ReadAt(page[:], e.VA); err != nil {
			continue
		}
		if !s.Linux.ReadCached(file[:], m.File, m.Offset+uint64(e.VA-m.Start)) {
			if own, err := mm.PageAt(s.Linux, e.PA); err == nil && own.Use == mm.PageAnonymous {
				return nil, fmt.Errorf("process %d: its code of %s at %#x was written to, and the file's is not in memory to compare it with", p.PID, m.Path, uint64(e.VA))
			}
			continue
		}
		at, n := firstPatch(file[:], page[:], func(target virt.Addr) bool {
			to := linux.MappingAt(p.maps, target)
			return to != nil && strings.HasPrefix(to.Path, "[uprobes")
		}, e.VA)
		if n == 0 || !s.keepsText(p, m) {
			continue
		}
		f := p.finding(fmt.Sprintf("has changed code of %s at %#x", m.Path, uint64(e.VA)+uint64(at)), Likely)
		f.Aspect = fmt.Sprintf("%s %#x", m.Path, m.Offset+uint64(e.VA-m.Start)+uint64(at))
		f.Expected, f.Seen = fmt.Sprintf("%x", file[at:at+n]), fmt.Sprintf("%x", page[at:at+n])
		f.Evidence = append(f.Evidence, Evidence{Text: "the code", Addr: e.VA + virt.Addr(at), Bytes: bytes.Clone(page[at : at+n])})
		f.Basis = "memory of the process against the page cache of the file"
		f.Show = fmt.Sprintf("outsight disassemble {} --pid %d %#x", p.PID, uint64(e.VA)+uint64(at))
		return f, nil
	}
	return nil, nil
}

// keepsText reports whether a mapping is of a program or library whose code nobody changes when
// it is loaded.
func (s *Subject) keepsText(p *program, m *linux.Mapping) bool {
	space, err := s.Linux.UserSpace(p.MM)
	if err != nil {
		return false
	}
	for _, i := range linux.ImagesAmong(p.maps) {
		if m.Start >= i.Start && m.Start < i.End {
			d, err := image.DynamicOf(s.Linux.FilledMemory(space, p.maps), i.Start)
			return err == nil && !d.RelocatesText
		}
	}
	return false
}

const maxPatch = 16 // bytes that a finding shows

// firstPatch is where got differs from want, and by how much, breakpoints aside: a byte that
// debuggers and uprobes put there, and a call of uprobes in place of a nop of five bytes (6.18).
// n is 0 if they are the same.
func firstPatch(want, got []byte, ofUprobes func(virt.Addr) bool, base virt.Addr) (at, n int) {
	const breakpoint, call = 0xcc, 0xe8
	nop := []byte{0x0f, 0x1f, 0x44, 0, 0}
	for i := 0; i < len(want); i++ {
		if want[i] == got[i] || got[i] == breakpoint {
			continue
		}
		if i+callSize <= len(want) && got[i] == call && bytes.Equal(want[i:i+callSize], nop) {
			if to, ok := leadsTo(got[i:i+callSize], base+virt.Addr(i)); ok && ofUprobes(to) {
				i += callSize - 1
				continue
			}
		}
		end := i + 1
		for k := end; k < min(len(want), i+maxPatch); k++ {
			if want[k] != got[k] {
				end = k + 1
			}
		}
		return i, end - i
	}
	return 0, 0
}
