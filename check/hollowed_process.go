package check

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"path"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "hollowed-process",
		Title:     "Processes that run other code than the program that they were started from",
		Severity:  High,
		Technique: "T1055.012", // Process Hollowing
		Source:    "mm_struct.exe_file against the vm_area_struct between start_code and end_code, and their bytes against the page cache",
		Proves: `Where exec put the code of a program lies something else now: another file, memory of no file that holds other bytes, or nothing. Who looks at /proc/PID/exe sees the
program that was started, and not what runs. Programs that moved their own code to large pages hold the same bytes, and are not a finding.`,
		Blind: `Processes of containers of gVisor (runsc, installed, with its system calls filtered), which runs other programs in copies of its own. Code that was changed where it is mapped, with the mapping left as it was: patched-program looks for that. A process that was never started by exec for what it runs: injected-code looks for
that. What a process calls itself (its arguments, its name) may be anything, and is only mentioned.`,
		Next: `Take the code out with "outsight extract TARGET --pid PID --address ADDRESS -o FILE", and compare it with the program. A program that was packed by UPX unpacks itself in this
way; the finding says so where the file says so.`,
		Example: `A program put a copy of its code, with changes, over the code that exec had mapped:

    $ outsight check lab:demo --only hollowed-process -o json | jq -r '.title, .seen'
    process 911 (tricks) does not run the code of /tricks
    at 0x401000 memory of no file, with other bytes than /tricks`,
		Kept: true,
		Run:  hollowedProcesses,
	})
}

func hollowedProcesses(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return s.overPrograms(ctx, func(ps *programs, p *program, yield report) {
		if p.startCode == 0 || p.startCode >= p.endCode || p.exe.file == 0 || len(p.maps) == 0 || ps.ofSandbox(p) {
			return
		}
		seen, at, packed, err := s.hollow(ps, p)
		if err != nil && !yield(nil, err) {
			return
		}
		if seen == "" {
			return
		}
		f := p.finding("does not run the code of "+p.Exe, Likely)
		if packed {
			f.Severity, f.Confidence = Medium, Possible
			seen += "; the program says that it was packed by UPX"
		}
		f.Expected, f.Seen = "the code of "+p.Exe, seen
		f.Evidence = append(f.Evidence, Evidence{Text: "the code of the program was put here", Addr: p.startCode})
		if name := path.Base(p.arg0()); name != path.Base(p.Exe) && name != "." {
			f.Evidence = append(f.Evidence, Evidence{Text: "it calls itself " + name})
		}
		f.Basis = "mappings of the process, against the file that the kernel started it from"
		f.Show = fmt.Sprintf("outsight maps {} --pid %d --where 'start == \"%#x\"'", p.PID, uint64(at))
		yield(f, nil)
	})
}

// hollow is what lies where the code of p should, if it is not that code. The error says that
// it could not be compared.
func (s *Subject) hollow(ps *programs, p *program) (seen string, at virt.Addr, packed bool, unknown error) {
	r := s.Linux.Reader()
	found := false
	for _, m := range p.maps {
		if m.Flags&linux.VMExec == 0 || m.End <= p.startCode || m.Start >= p.endCode {
			continue
		}
		found = true
		switch {
		case m.Err != nil, m.File == p.exe.file, m.Path == p.Exe && m.Deleted == p.ExeDeleted:
		case m.File != 0 && m.Flags&linux.VMHugeTLB == 0:
			// Overlayfs before 6.8 opened another file below, with the same name.
			d, known := r.Pointer(m.File, ps.o.fileDentry), r.Err == nil
			if !known || d != p.exe.dentry {
				return fmt.Sprintf("at %#x the file %s", uint64(m.Start), m.Path), m.Start, false, nil
			}
		default:
			switch s.sameCode(p, m) {
			case differentCode:
				return fmt.Sprintf("at %#x memory of no file, with other bytes than %s", uint64(m.Start), p.Exe), m.Start, s.packed(p), nil
			case unknownCode:
				if !p.mapsItself() {
					return fmt.Sprintf("at %#x memory of no file, and nothing of %s is mapped any more", uint64(m.Start), p.Exe), m.Start, s.packed(p), nil
				}
				unknown = fmt.Errorf("process %d: its code at %#x is memory of no file, and no page of %s is in memory to compare it with", p.PID, uint64(m.Start), p.Exe)
			}
		}
	}
	if !found {
		return fmt.Sprintf("nothing executable from %#x to %#x", uint64(p.startCode), uint64(p.endCode)), p.startCode, s.packed(p), nil
	}
	return "", 0, false, unknown
}

// mapsItself reports whether a process still has some of its program's file mapped, as one
// has that moved nothing but its code.
func (p *program) mapsItself() bool {
	return slices.ContainsFunc(p.maps, func(m *linux.Mapping) bool { return m.File != 0 && (m.File == p.exe.file || m.Path == p.Exe) })
}

// packed reports whether UPX packed a program, which leaves its mark behind the headers.
func (s *Subject) packed(p *program) bool {
	var b [1024]byte
	return s.Linux.ReadCached(b[:], p.exe.file, 0) && bytes.Contains(b[:], []byte("UPX!"))
}

// maxSameCode bounds the pages that are compared.
const maxSameCode = 4096

// codeState is what comparing memory with a file shows.
type codeState int

const (
	unknownCode codeState = iota // nothing of either was in memory
	sameCode
	differentCode
)

// sameCode compares memory of no file with the program's file, as far as that is in the page
// cache: programs that move their code to large pages have the same there.
func (s *Subject) sameCode(p *program, m *linux.Mapping) codeState {
	space, err := s.Linux.UserSpace(p.MM)
	if err != nil {
		return unknownCode
	}
	var offsets []uint64 // by which addresses of the file's mappings differ from its offsets
	for _, other := range p.maps {
		if other.File != 0 && (other.File == p.exe.file || other.Path == p.Exe) {
			offsets = append(offsets, other.Offset-uint64(other.Start))
		}
	}
	offsets = append(offsets, -uint64(m.Start), -uint64(p.startCode&^(phys.PageSize-1)))
	var page, file [phys.PageSize]byte
	same, different := 0, 0
	for e := range space.Mappings(m.Start, m.End-1) {
		for a := max(e.VA, m.Start); a < min(e.VA+virt.Addr(e.Size), m.End) && same+different < maxSameCode; a += phys.PageSize {
			if _, err := space.ReadAt(page[:], a); err != nil {
				continue
			}
			known, equal := false, false
			for _, o := range offsets {
				if s.Linux.ReadCached(file[:], p.exe.file, uint64(a)+o) {
					known, equal = true, equal || bytes.Equal(page[:], file[:])
				}
			}
			switch {
			case equal:
				same++
			case known:
				different++
			}
		}
	}
	switch {
	case different > 0:
		return differentCode
	case same > 0:
		return sameCode
	}
	return unknownCode
}
