package check

import (
	"context"
	"debug/elf"
	"fmt"
	"iter"
	"path"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "strange-program",
		Title:     "Programs, libraries and scripts that run from where none belongs",
		Severity:  High,
		Technique: "T1564.001", // Hide Artifacts: Hidden Files and Directories
		Source:    "mm_struct.exe_file and the vm_area_struct of files that begin as ELF does, by their paths; of interpreters, their arguments and open files",
		Proves: `A process runs a program, or has a library mapped, that lies in a folder for devices and shared memory (/dev/shm), in /proc or /sys, in a hidden folder of
/usr, /etc or /boot, in a hidden folder where everybody may write or directly below /var, or in /run, which is memory; or an interpreter runs a script from /dev/shm or such a folder. No
package puts one there; what is there is in memory alone, or out of sight of who lists the folder.`,
		Blind: `Other files in /tmp and /var/tmp: builds and installers run them. Programs and scripts in the folders of users, and scripts in /run. A script whose interpreter has read and closed
it, and that the process's arguments do not name. A file that was deleted: fileless-program and injected-code look for that.`,
		Next: `Take the file out with "outsight recover TARGET PATH" or "outsight extract TARGET --pid PID --address ADDRESS --elf -o FILE", and look at the process that started it in the view
tree.`,
		Example: `A program was started from shared memory:

    $ outsight check lab:demo --only strange-program
    SEVERITY  CONFIDENCE  CHECK            TITLE
    high      likely      strange-program  process 412 (x) runs /dev/shm/x, where no program belongs`,
		Kept: true,
		Run:  strangePrograms,
	})
}

func strangePrograms(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return s.overPrograms(ctx, func(ps *programs, p *program, yield report) {
		if severity, sure := ps.outOfPlace(p.exe.file, p.Exe); severity != "" && !p.ExeDeleted && !ps.mountedImage(p.exe.file) {
			f := p.finding("runs "+p.Exe+", where no program belongs", sure)
			f.Severity, f.Aspect, f.Expected, f.Seen = severity, "program", "a program where packages or users put theirs", p.Exe
			f.Show = fmt.Sprintf("outsight tree {} --where 'pid == %d'", p.PID)
			if !yield(f, nil) {
				return
			}
		}
		for _, f := range s.strangeLibraries(ps, p) {
			if !yield(f, nil) {
				return
			}
		}
		if p.interpreter() != "" {
			yield(s.strangeScript(ctx, ps, p))
		}
	})
}

// outOfPlace is how bad it is that a program or library runs from a path; empty if it is not.
func (ps *programs) outOfPlace(file virt.Addr, name string) (Severity, Confidence) {
	severity, sure := outOfPlace(name)
	if severity != "" || !below(name, places.runtime) || below(name, places.ofRuntime) {
		return severity, sure
	}
	// Systems that run from memory have theirs below /run as well, on file systems of their own.
	if i, err := ps.inodeAt(file); err != nil || i.Super.Type != "tmpfs" {
		return "", ""
	}
	return Medium, Possible
}

// outOfPlace is how bad it is that a program or library runs from a path, whatever it is on.
func outOfPlace(name string) (Severity, Confidence) {
	switch {
	case strings.HasPrefix(name, memfdPrefix):
	case below(name, []string{"/dev", "/proc", "/sys"}), hiddenInSystem(name):
		return High, Likely
	case below(name, places.temporary) && hiddenName(name), hiddenInState(name):
		return Medium, Possible
	}
	return "", ""
}

// hiddenInSystem reports whether a file is hidden where packages of a distribution alone put files, and hide none: but for debug
// information, packages of npm and Python, which have hidden folders (.pnpm, .libs), and the hooks of a Git repository in /etc.
func hiddenInSystem(name string) bool {
	if !hiddenName(name) || !below(name, places.distribution) || below(name, []string{"/usr/local", "/usr/lib/debug"}) {
		return false
	}
	for _, usual := range []string{"/node_modules/.", "-packages/", "/.git/hooks/"} {
		if before, after, ok := strings.Cut(name, usual); ok && !hiddenName(before) && (usual != "-packages/" || strings.Contains(after, "/.libs/") || strings.Contains(after, "/.dylibs/")) {
			return false
		}
	}
	return true
}

// hiddenInState reports whether a file is in a hidden folder of the system's own state. What is further below belongs to
// services: some have their home there, and hidden folders in it.
func hiddenInState(name string) bool {
	rest, ok := strings.CutPrefix(path.Clean(name), "/var/")
	if !ok {
		return false
	}
	for _, folder := range []string{"lib/", "log/", "cache/", "spool/"} {
		rest = strings.TrimPrefix(rest, folder)
	}
	return strings.HasPrefix(rest, ".")
}

// inodeAt is the file that is open at file, a struct file.
func (ps *programs) inodeAt(file virt.Addr) (*linux.INode, error) {
	r := ps.s.Reader()
	d := r.Pointer(file, ps.o.fileDentry)
	if r.Err != nil {
		return nil, r.Err
	}
	return ps.inodeOf(d)
}

// mountedImage reports whether a file is of a file system that a program serves, as AppImage serves
// what is in it below /tmp/.mount_: others see the mount, and it has a server. A folder of that name is
// anybody's to make.
func (ps *programs) mountedImage(file virt.Addr) bool {
	if file == 0 {
		return false
	}
	i, err := ps.inodeAt(file)
	return err == nil && strings.HasPrefix(i.Super.Type, "fuse")
}

// strangeLibraries are findings about libraries that a process has from such a place.
func (s *Subject) strangeLibraries(ps *programs, p *program) (fs []*Finding) {
	for _, i := range linux.ImagesAmong(p.maps) {
		m := linux.MappingAt(p.maps, i.Start)
		if m == nil || i.Deleted || i.Path == p.Exe {
			continue
		}
		severity, sure := ps.outOfPlace(m.File, i.Path)
		if severity == "" || ps.mountedImage(m.File) {
			continue
		}
		space, err := s.Linux.UserSpace(p.MM)
		if err != nil {
			continue
		}
		b := make([]byte, len(elf.ELFMAG))
		if _, err := s.Linux.FilledMemory(space, p.maps).ReadAt(b, i.Start); err != nil || string(b) != elf.ELFMAG {
			continue // what is not in memory is not judged: data is mapped from there as well
		}
		f := p.finding("has the library "+i.Path+", where none belongs", sure)
		f.nextAddr = i.Start
		f.Severity, f.Aspect, f.Expected, f.Seen = severity, "library "+i.Path, "libraries where packages or users put theirs", i.Path
		f.Evidence = append(f.Evidence, Evidence{Text: "the library is mapped", Addr: i.Start})
		f.Show = fmt.Sprintf("outsight libs {} --pid %d", p.PID)
		fs = append(fs, f)
	}
	return fs
}
