package check

import (
	"path"
	"strings"
)

// ofSandbox reports whether a process is one that gVisor runs the programs of a container in: the
// sandbox (runsc) has started it from its own program, taken everything out of it, and put there what
// the container runs, whose system calls it answers itself. What distinguishes it from a hollowed
// process is that runsc is installed, runs unchanged above it, and that its system calls are filtered.
func (ps *programs) ofSandbox(p *program) bool {
	if !p.filtered || !strings.HasPrefix(path.Base(p.Exe), "runsc") || !ps.installed(p.exe.file, p.Exe) {
		return false
	}
	for above, n := ps.byPID[p.PPID], 0; above != nil && n < maxFolders; above, n = ps.byPID[above.PPID], n+1 {
		if above.exe.dentry != p.exe.dentry {
			return false
		}
		if above.filtered && above.runsItself() {
			return true
		}
	}
	return false
}

// runsItself reports whether what exec mapped is where a process was started to run.
func (p *program) runsItself() bool {
	for _, m := range p.maps {
		if m.File == p.exe.file && m.Start <= p.startCode && p.startCode < m.End {
			return true
		}
	}
	return false
}
