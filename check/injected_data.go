package check

import (
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
)

// codeAlone are the mappings of whole files that can be executed and have no data beside them: what a linker makes has. One that does not
// begin as ELF does is a file of data, or of another system: Wine and .NET map those of Windows, and make no system calls in them.
func (p *program) codeAlone(images []*linux.MappedImage) (alone []*linux.Mapping) {
	for _, m := range p.maps {
		if m.Flags&linux.VMExec == 0 || m.File == 0 || m.Offset != 0 {
			continue
		}
		if i := imageOf(images, m); i != nil && i.Start == m.Start && i.End == m.End && i.Path != p.Exe {
			alone = append(alone, m)
		}
	}
	return alone
}

// ofData is the finding about a file that is no program, and in which a thread made the system call that it is in.
func (j *injection) ofData(m *linux.Mapping, call int32) *Finding {
	f := j.finding(m.Start, "runs code at %#x in a file that is no program or library", Certain)
	f.Expected = "system calls that are made by programs, their libraries, or the kernel's vDSO"
	f.Seen = fmt.Sprintf("%s %s, and thread %d is in a system call that it made", m.Perms(), m.Path, call)
	if m.Deleted {
		f.Seen = fmt.Sprintf("%s %s (deleted), and thread %d is in a system call that it made", m.Perms(), m.Path, call)
	}
	f.Evidence = append(f.Evidence, Evidence{Text: "struct file of " + m.Path, Addr: m.File})
	return f
}
