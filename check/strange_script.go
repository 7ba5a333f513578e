package check

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
)

// strangeScript is the finding about an interpreter that runs a script from where none belongs; nil if it does not.
func (s *Subject) strangeScript(ctx context.Context, ps *programs, p *program) (*Finding, error) {
	what := "its argument"
	name, err := s.scriptArgument(ps, p)
	if err != nil {
		return nil, fmt.Errorf("process %d: the script that it runs: %w", p.PID, err)
	}
	severity, sure := scriptOutOfPlace(name)
	var file *linux.File
	if severity == "" {
		if file, err = s.openScript(ctx, p); err != nil {
			return nil, fmt.Errorf("process %d: the script that it has open: %w", p.PID, err)
		}
		if file == nil {
			return nil, nil
		}
		name, what = file.Path, fmt.Sprintf("its open file %d", file.FD)
		severity, sure = scriptOutOfPlace(name)
	}
	f := p.finding(fmt.Sprintf("runs the script %s, where none belongs", name), sure)
	f.Severity, f.Aspect, f.Expected, f.Seen = severity, "script", "a script where packages or users put theirs", what+": "+name
	f.Show = fmt.Sprintf("outsight ps {} --pid %d -o json", p.PID)
	if file != nil {
		f.Evidence = append(f.Evidence, Evidence{Text: "struct file of the script", Addr: file.Addr})
		f.Show = fmt.Sprintf("outsight files {} --pid %d", p.PID)
	}
	return f, nil
}

// scriptOutOfPlace is outOfPlace for a script. A descriptor's name (/dev/fd/63, /dev/stdin) says nothing of where it lies, and programs
// that build images have their scripts in other folders of /dev. Programs that manage machines unpack scripts in hidden folders of /tmp.
func scriptOutOfPlace(name string) (Severity, Confidence) {
	switch {
	case !path.IsAbs(name), below(name, []string{"/dev", "/proc", "/sys"}) && !below(name, []string{"/dev/shm", "/dev/mqueue"}) && !hiddenName(name):
		return "", ""
	case below(name, []string{"/tmp", "/var/tmp"}) && hiddenName(name):
		return Low, Possible
	}
	return outOfPlace(name)
}

// scriptArgument is the path of the script that the arguments of an interpreter name; empty without one.
func (s *Subject) scriptArgument(ps *programs, p *program) (string, error) {
	name := scriptAmong(p.interpreter(), p.Args)
	if name == "" || path.IsAbs(name) {
		return name, nil
	}
	r := s.Linux.Reader()
	fs := r.Pointer(p.Task.Addr, ps.o.fs)
	mnt, dentry := r.Pointer(fs, ps.o.pwdMount), r.Pointer(fs, ps.o.pwd)
	if r.Err != nil || fs == 0 {
		return "", r.Err
	}
	folder, _, err := s.Linux.NewProcessReader().PathOf(mnt, dentry)
	if err != nil || !path.IsAbs(folder) {
		return "", err
	}
	return path.Join(folder, name), nil
}

// scriptOptions are options of interpreters, by the beginning of their names.
var scriptOptions = map[string]optionsOfScript{
	"python": {code: "cm", next: "WX"},
	"perl":   {code: "eE", next: "I", rest: "CDFMVdimx"},
	"ruby":   {code: "e", next: "CEIXr", rest: "FKTWix"},
	"php":    {instead: []string{"-r", "-R", "-a", "--"}, valued: []string{"-c", "-d"}},
	"lua":    {valued: []string{"-e", "-l"}},
	"node":   {instead: []string{"-e", "-p", "-pe", "--eval", "--print"}, valued: []string{"-r", "--require"}},
	"expect": {valued: []string{"-c"}},
	"pwsh":   {instead: []string{"-c", "-Command"}},
	"":       {code: "cs", next: "oO", valued: []string{"--rcfile", "--init-file"}}, // shells
}

// optionsOfScript are options of an interpreter that say where its script is among the arguments.
type optionsOfScript struct {
	instead []string // no script follows: the program is the next argument, a module, or standard input
	valued  []string // the next argument belongs to it
	// Letters of options that may be written together (-pe): code as instead, next as valued, unless the rest of the argument is its
	// value, and rest where only that can be.
	code, next, rest string
}

// letters reads options that are written together.
func (o *optionsOfScript) letters(group string) (code, next bool) {
	for i, letter := range group {
		switch {
		case strings.ContainsRune(o.code, letter):
			return true, false
		case strings.ContainsRune(o.next, letter):
			return false, i+1 == len(group)
		case strings.ContainsRune(o.rest, letter):
			return false, false
		}
	}
	return false, false
}

// scriptAmong is the argument that names the script of an interpreter: the first that is no option and belongs to none.
func scriptAmong(interpreter string, args []string) string {
	if strings.HasSuffix(strings.TrimRight(interpreter, "0123456789.-"), "awk") { // its first argument is the program
		i := slices.Index(args, "-f")
		if i < 0 || i+1 == len(args) {
			return ""
		}
		return args[i+1]
	}
	family := ""
	for name := range scriptOptions {
		if name != "" && strings.HasPrefix(interpreter, name) {
			family = name
		}
	}
	options, shell := scriptOptions[family], family == ""
	for i := 1; i < len(args); i++ {
		switch a := args[i]; {
		case i == 1 && a == interpreter: // "busybox sh script"
		case slices.Contains(options.valued, a):
			i++
		case slices.Contains(options.instead, a):
			return ""
		case a == "--", a == "-" && shell: // the options end
			return first(args[i+1:])
		case a == "-": // the program is standard input
			return ""
		case strings.HasPrefix(a, "--"):
		case strings.HasPrefix(a, "-"), shell && strings.HasPrefix(a, "+"):
			code, next := options.letters(a[1:])
			if code && a[0] == '-' {
				return ""
			}
			if next {
				i++
			}
		default:
			return a
		}
	}
	return ""
}

// first is the first of some arguments; empty without one.
func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// openScript is the script that a shell has open while it runs it, at a descriptor that is closed on exec; nil without one.
func (s *Subject) openScript(ctx context.Context, p *program) (*linux.File, error) {
	const least, most = 3, 255 // dash has it at 10, bash at the last one, 255 at most; perl at the first free one
	for f, err := range s.Linux.NewProcessReader().Files(ctx, p.Task) {
		switch {
		case errors.Is(err, context.Canceled):
			return nil, err
		case err != nil || f.FD < least || f.Deleted || f.Class != linux.InFileSystem:
			continue
		case f.FD > most:
			return nil, nil
		}
		if severity, _ := scriptOutOfPlace(f.Path); severity == "" || !s.isScript(f) {
			continue
		}
		return f, nil
	}
	return nil, nil
}

// isScript reports whether an open file is read alone, and begins as a script does.
func (s *Subject) isScript(f *linux.File) bool {
	const accessMode, regular, kind = 3, 0o100000, 0o170000
	var b [2]byte
	return f.Flags&accessMode == 0 && f.Mode&kind == regular && s.Linux.ReadCached(b[:], f.Addr, 0) && string(b[:]) == "#!"
}
