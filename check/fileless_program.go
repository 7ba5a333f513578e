package check

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "fileless-program",
		Title:     "Programs that run from a file that is not in any folder",
		Severity:  High,
		Technique: "T1620", // Reflective Code Loading
		Source:    "mm_struct.exe_file, its dentry, and the names that its folder has; of interpreters, the descriptor that the script is read from",
		Proves: `The program of a process was written to memory alone (memfd_create), so that it never lay on a disk; or its file was deleted from a folder where no package
puts programs, and nothing took its place. Both leave nothing on the disk to be found. A file that an upgrade replaced by another of its name is not a finding.`,
		Blind: `A program that was deleted from a folder of packages while the kernel has forgotten what the folder holds: that looks like an upgrade. A memfd that is byte for byte a program
which only root can have put into a folder of programs: starters of containers (runc, crun, Podman) run so. A program whose file stays where it is.`,
		Next: `Take the program out with "outsight extract TARGET --pid PID --address ADDRESS --elf -o FILE" (the views maps and elfs show the address), or all of its memory without
--address. Look at its parent, sockets and environment with the views tree, sockets and env.`,
		Example: `A program copied itself into a memfd and ran on from there, under the name of a kernel thread:

    $ outsight check lab:demo --only fileless-program
    SEVERITY  CONFIDENCE  CHECK             TITLE
    high      likely      fileless-program  process 176 (3) runs a program that was written to memory alone
    $ outsight check lab:demo --only fileless-program -o json | jq -r .seen
    memfd:payload`,
		Kept: true,
		Run:  filelessPrograms,
	})
}

const memfdPrefix = "/memfd:" // mm/memfd.c; files of tmpfs without a place have this name

func filelessPrograms(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return s.overPrograms(ctx, func(ps *programs, p *program, yield report) { yield(s.fileless(ctx, ps, p)) })
}

func (s *Subject) fileless(ctx context.Context, ps *programs, p *program) (*Finding, error) {
	switch {
	case p.ExeDeleted && strings.HasPrefix(p.Exe, memfdPrefix):
		if s.copyOf(ctx, ps, p) != "" {
			return nil, nil // as starters of containers do
		}
		f := p.finding("runs a program that was written to memory alone", Likely)
		f.Expected, f.Seen = "a program that is a file in a folder", strings.TrimPrefix(p.Exe, "/")
		return f, nil
	case p.ExeDeleted:
		return ps.deletedProgram(ctx, p)
	case p.interpreter() != "":
		return s.filelessScript(ctx, p)
	}
	return nil, nil
}

// deletedProgram judges a program whose file has no name any more.
func (ps *programs) deletedProgram(ctx context.Context, p *program) (*Finding, error) {
	place, err := ps.successor(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("process %d: what replaced %s: %w", p.PID, p.Exe, err)
	}
	if place == hasName || place == unknownName && packaged(p.Exe) || ps.ofInitramfs(p) {
		return nil, nil
	}
	f := p.finding("runs a program whose file was deleted", Possible)
	f.Severity = Medium
	if strange(p.Exe) {
		f.Severity, f.Confidence = High, Likely
	}
	f.Expected, f.Seen = "its file, or another of its name after an upgrade", p.Exe+" (deleted)"
	return f, nil
}

// ofInitramfs reports whether a program was started before the root file system was
// mounted: what the initramfs held is deleted then, and its services run on.
func (ps *programs) ofInitramfs(p *program) bool {
	first := ps.byPID[1]
	if first == nil || first.root == 0 {
		return false
	}
	r := ps.s.Reader()
	root := r.Pointer(first.root, ps.o.super)
	o, err := ps.s.InodesLayout()
	if r.Err != nil || err != nil || root == p.exe.super {
		return false
	}
	sb, err := ps.s.SuperBlock(p.exe.super, o)
	return err == nil && sb.Type == "rootfs"
}

// filelessScript judges an interpreter that was told to read its script from a descriptor:
// that is how the kernel starts a script that is a memfd (fexecve).
func (s *Subject) filelessScript(ctx context.Context, p *program) (*Finding, error) {
	for _, arg := range p.Args[min(1, len(p.Args)):] {
		number, ok := strings.CutPrefix(arg, "/dev/fd/")
		if !ok {
			number, ok = strings.CutPrefix(arg, "/proc/self/fd/")
		}
		fd, err := strconv.Atoi(number)
		if !ok || err != nil {
			continue
		}
		file, err := s.descriptor(ctx, p, fd)
		if err != nil {
			return nil, err
		}
		if file == nil || !strings.HasPrefix(file.Path, memfdPrefix) {
			continue
		}
		f := p.finding("interprets a script that was written to memory alone", Likely)
		f.Expected, f.Seen = "a script that is a file in a folder", fmt.Sprintf("%s, which is %s", arg, strings.TrimPrefix(file.Path, "/"))
		f.Evidence = append(f.Evidence, Evidence{Text: "struct file of the script", Addr: file.Addr})
		f.Show = fmt.Sprintf("outsight files {} --pid %d", p.PID)
		return f, nil
	}
	return nil, nil
}

// descriptor is an open file of a process; nil if there is none of that number.
func (s *Subject) descriptor(ctx context.Context, p *program, fd int) (*linux.File, error) {
	for f, err := range s.Linux.NewProcessReader().Files(ctx, p.Task) {
		switch {
		case err != nil:
			return nil, err
		case f.FD == fd:
			return f, nil
		case f.FD > fd:
			return nil, nil
		}
	}
	return nil, nil
}

// mapped is where a file is mapped first; 0 if it is not.
func (p *program) mapped(name string) virt.Addr {
	for _, m := range p.maps {
		if name != "" && m.Path == name {
			return m.Start
		}
	}
	return 0
}

// finding is one about the program of p.
func (p *program) finding(what string, c Confidence) *Finding {
	f := &Finding{
		Confidence: c, Title: p.String() + " " + what, Object: p.object(),
		Evidence: []Evidence{{Text: "its task_struct", Addr: p.Task.Addr}},
		Basis:    "structures of the guest's kernel", Show: fmt.Sprintf("outsight ps {} --pid %d -o json", p.PID),
	}
	f.nextAddr = p.mapped(p.Exe)
	if p.exe.file != 0 {
		f.Evidence = append(f.Evidence, Evidence{Text: "struct file of its program", Addr: p.exe.file})
	}
	return f
}
