package check

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "injected-code",
		Title:     "Code in the memory of processes that came from no file",
		Severity:  High,
		Technique: "T1055", // Process Injection
		Source:    "vm_area_struct of executable memory without a file, of files in memory alone or of files of data, what the page tables have there, pt_regs of threads, ELF headers of what is mapped",
		Proves: `A process can execute memory that no file is behind, or only one in memory (memfd, shared memory), and that holds something: a program or library that was loaded without a file, shellcode, an executable
heap or stack that neither the program nor a library asks for; or a thread is in a system call that such memory made, or a mapped file that is no program or library. Compilers at run time (JIT) do the first too: programs that are known to have
one, and that only root can have put where packages put programs, are judged by the rest alone; those that users put somewhere are named once, with severity low.`,
		Blind: `In an installed program that asked for all that can be read to be executable (personality READ_IMPLIES_EXEC), code that makes no system call while it is looked at. In installed programs with a compiler at run time (V8, Java, LuaJIT, .NET, PHP, Mesa and others, known by the names of their libraries), code that looks like none of the above and
makes its system calls through libraries. The processes of gVisor's containers. With PCRE2 or libffi, which many programs have, memory that is divided into pieces as theirs is. Memory that is both writable and executable in programs that ask
for an executable stack. Code that replaces code of a file where it is mapped: patched-program looks for that.`,
		Next: `Take the memory out with "outsight extract TARGET --pid PID --address ADDRESS -o FILE" and disassemble it with the command shown. Who traced the process or may have written to
it: the views ptrace and files (of /proc/PID/mem).`,
		Example: `Shellcode waits in a system call:

    $ outsight check lab:demo --only injected-code -o json | jq -r '.title, .seen'
    process 705 (tricks) can execute memory at 0x7f3a5c000000 that came from no file
    rwxp, and thread 707 is in a system call that it made`,
		Kept: true,
		Run:  injectedCode,
	})
}

// compilers are libraries and programs that make code at run time: by how the names of libraries begin, and by the names of programs
// without what versions and flavours add.
var compilers = []string{
	"libjvm", "libj9jit", "libv8", "libnode", "libmozjs", "libxul", "libjavascriptcoregtk", "libQt5Qml", "libQt6Qml", "libQt5Script", "libQt5WebEngine", "libQt6WebEngine", "libcef",
	"libcoreclr", "libclrjit", "libmono", "libLLVM", "libgallium", "libswrast", "libgccjit", "libtcc", "libasmjit", "libluajit", "libruby", "libphp", "opcache", "libpython3.13", "libpython3.14",
	"libguile", "liborc-0", "libwasm", "libgraal", "libjulia", "libunicorn", "libpypy", "libnvidia", "libGLX_nvidia", "libcuda", "libfrida", "libdynamorio", "llvmjit", "libracket", "liberl",
	"ntdll.so", "libbox64",
	"node", "nodejs", "java", "dotnet", "mono", "luajit", "nvim", "ruby", "php", "deno", "bun", "chrome", "chromium", "electron", "firefox", "thunderbird", "opera", "msedge", "code", "slack",
	"qemu-", "beam.smp", "julia", "pypy", "sbcl", "racket", "guile", "gforth", "envoy", "valgrind", "memcheck-", "cachegrind-", "callgrind-", "helgrind-", "massif-", "drd-", "rr", "box64",
	"wine", "wine64", "clickhouse", "runsc", "WebKitWebProcess", "WebKitNetworkProcess", "WebKitGPUProcess", "brave", "headless_shell", "python3.13", "python3.14",
}

// allocators are libraries that make a little code at run time, in memory that they hand out
// in a known way.
var allocators = []string{"libpcre", "libffi", "libsljit", "libgobject"}

// isOneOf reports whether a file is named as one of these. What follows the name of a program must be a version or a flavour: rrdcached is
// no rr, and bunzip2 no bun.
func isOneOf(name string, of []string) bool {
	return slices.ContainsFunc(of, func(p string) bool {
		rest, ok := strings.CutPrefix(name, p)
		return ok && (rest == "" || strings.HasPrefix(p, "lib") || strings.HasSuffix(p, "-") || strings.ContainsRune("-.0123456789", rune(rest[0])))
	})
}

func injectedCode(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return s.overPrograms(ctx, func(ps *programs, p *program, yield report) {
		fs, err := s.injected(ctx, ps, p)
		for _, f := range fs {
			if !yield(f, nil) {
				return
			}
		}
		if err != nil {
			yield(nil, fmt.Errorf("process %d: %w", p.PID, err))
		}
	})
}

// injected are the findings about one process.
func (s *Subject) injected(ctx context.Context, ps *programs, p *program) (fs []*Finding, err error) {
	anonymous, images := p.executable()
	if ps.ofSandbox(p) {
		return nil, nil
	}
	files := p.codeAlone(images)
	if len(anonymous) == 0 && len(p.inMemory(images)) == 0 && len(files) == 0 && !slices.ContainsFunc(images, func(i *linux.MappedImage) bool { return i.Deleted }) {
		return nil, nil
	}
	space, err := s.Linux.UserSpace(p.MM)
	if err != nil {
		return nil, err
	}
	j := &injection{p: p, space: space, memory: s.Linux.FilledMemory(space, p.maps), images: images}
	j.known(ps)
	fs = j.libraries()
	for _, m := range p.inMemory(images) {
		if i := imageOf(images, m); i == nil || !j.isELF(i.Start) {
			anonymous = append(anonymous, m)
		}
	}
	files = slices.DeleteFunc(files, func(m *linux.Mapping) bool { return slices.Contains(anonymous, m) || j.isELF(m.Start) })
	if len(anonymous) == 0 && len(files) == 0 {
		return fs, nil
	}
	calls, err := s.callsFrom(ctx, ps, p, slices.Concat(anonymous, files), j)
	if err != nil {
		return fs, err
	}
	for _, m := range files {
		if tid := calls[m]; tid != 0 {
			fs = append(fs, j.ofData(m, tid))
		}
	}
	explained := false
	for _, m := range anonymous {
		if m.File == 0 && m.Start < p.endCode && m.End > p.startCode && s.sameCode(p, m) != differentCode {
			continue // the program's own, moved to large pages
		}
		f := j.judge(m, calls[m])
		if f == nil || f.Severity == Low && explained {
			continue // what users put there is named once
		}
		explained = explained || f.Severity == Low
		fs = append(fs, f)
	}
	return fs, nil
}

// executable are the mappings of a process that can be executed and have no file, and its
// images. What the kernel maps for itself ([vdso], [uprobes]) is not among them.
func (p *program) executable() (anonymous []*linux.Mapping, images []*linux.MappedImage) {
	for _, m := range p.maps {
		// Where the kernel's variables have no names, neither have these mappings.
		own := m.Start == p.vdso && p.vdso != 0 || m.Start == p.uprobes && p.uprobes != 0 || strings.HasPrefix(m.Path, "[") && m.Path != "[heap]" && m.Path != "[stack]" && !strings.HasPrefix(m.Path, "[anon:")
		if m.Flags&linux.VMExec != 0 && m.File == 0 && !own {
			anonymous = append(anonymous, m)
		}
	}
	return anonymous, linux.ImagesAmong(p.maps)
}

// inMemory are the mappings of a process that can be executed and are of files that were never in a folder, or are in one of memory that is
// shared: those of memfd_create, mmap with MAP_SHARED alone, shmget and shm_open.
func (p *program) inMemory(images []*linux.MappedImage) (shared []*linux.Mapping) {
	for _, m := range p.maps {
		if m.Flags&linux.VMExec == 0 || m.File == 0 {
			continue
		}
		if i := imageOf(images, m); i != nil && i.Path == p.Exe {
			continue
		}
		if m.Deleted && (m.Path == "/dev/zero" || strings.HasPrefix(m.Path, memfdPrefix) || strings.HasPrefix(m.Path, "/SYSV")) || below(m.Path, []string{"/dev/shm"}) {
			shared = append(shared, m)
		}
	}
	return shared
}

// imageOf is the program or library that a mapping is of; nil if it is of none.
func imageOf(images []*linux.MappedImage, m *linux.Mapping) *linux.MappedImage {
	for _, i := range images {
		if m.Start >= i.Start && m.Start < i.End {
			return i
		}
	}
	return nil
}

// injection is what is known of a process while its memory is judged.
type injection struct {
	p      *program
	space  *virt.Space
	memory *linux.FilledMemory
	images []*linux.MappedImage
	// compiles is how far it is believed to make code at run time, and compiler what says so.
	compiles belief
	compiler string
	// allocates says that it has a little, in memory of a known form; installed that packages put
	// the program where it is.
	allocates, installed bool
}

// known finds out what the process is known to do. A program can map any library: an installed one
// says of it no more than the program's own place does.
func (j *injection) known(ps *programs) {
	j.installed = ps.installed(j.p.exe.file, j.p.Exe)
	most := usersFile
	switch {
	case j.installed:
		most = packagesFile
	case temporary(j.p.Exe):
		most = unknownFile
	}
	note := func(file virt.Addr, name string) {
		if b := min(most, ps.named(file, name, compilers)); b > j.compiles {
			j.compiles, j.compiler = b, name
		}
		j.allocates = j.allocates || most != unknownFile && ps.named(file, name, allocators) != unknownFile
	}
	note(j.p.exe.file, j.p.Exe)
	for _, i := range j.images {
		if m := linux.MappingAt(j.p.maps, i.Start); m != nil {
			note(m.File, i.Path)
		}
	}
}

func (j *injection) finding(m virt.Addr, what string, c Confidence) *Finding {
	f := j.p.finding(fmt.Sprintf(what, uint64(m)), c)
	f.Aspect, f.nextAddr = m.String(), m
	b := make([]byte, codeShown)
	if _, err := j.memory.ReadAt(b, m); err == nil {
		f.Evidence = append(f.Evidence, Evidence{Text: "its first bytes", Addr: m, Bytes: b})
	}
	f.Expected = "executable memory is a mapped file, unless the program compiles at run time"
	f.Basis = "mappings and page tables of the process"
	f.Show = fmt.Sprintf("outsight disassemble {} --pid %d %#x", j.p.PID, uint64(m))
	return f
}

// libraries are the findings about libraries that never were files.
func (j *injection) libraries() (fs []*Finding) {
	for _, i := range j.images {
		if !i.Deleted || i.Path == j.p.Exe || !j.isELF(i.Start) {
			continue
		}
		switch {
		case strings.HasPrefix(i.Path, memfdPrefix):
			f := j.finding(i.Start, "has a library at %#x that was written to memory alone", Likely)
			f.Seen = strings.TrimPrefix(i.Path, "/")
			fs = append(fs, f)
		case below(i.Path, places.temporary) && j.compiles == unknownFile:
			// The virtual machine of Java unpacks libraries and deletes them.
			f := j.finding(i.Start, "has a library at %#x that was deleted from a folder for temporary files", Possible)
			f.Severity, f.Seen = Medium, i.Path+" (deleted)"
			fs = append(fs, f)
		}
	}
	return fs
}

func (j *injection) isELF(a virt.Addr) bool {
	b := make([]byte, len(elf.ELFMAG))
	_, err := j.memory.ReadAt(b, a)
	return err == nil && string(b) == elf.ELFMAG
}

// judge is the finding about one mapping without a file; nil if it is none. call is the
// thread that is in a system call made there; 0 for none.
func (j *injection) judge(m *linux.Mapping, call int32) *Finding {
	code, holds := j.holdsCode(m)
	writable := m.Flags&linux.VMWrite != 0
	f := j.finding(code, "can execute memory at %#x that came from no file", Likely)
	f.Seen = m.Perms()
	if m.File != 0 {
		f.Seen += " " + m.Path
	}
	switch {
	case call != 0:
		f.Confidence = Certain
		f.Seen += fmt.Sprintf(", and thread %d is in a system call that it made", call)
	case !holds, j.p.impliesExec && j.installed: // all that it can read it can execute, its heap included
		return nil
	case j.isELF(m.Start):
		f.Title = fmt.Sprintf("%s has a program or library at %#x that was loaded without a file", j.p, uint64(m.Start))
		f.Seen += ", and begins with the header of an ELF file"
	case j.compiles == packagesFile, j.installed && writable && j.asksForStack():
		return nil
	case j.compiles == usersFile:
		f.Title = fmt.Sprintf("%s runs code that it made at run time, as %s may, which users put there", j.p, j.compiler)
		f.Severity, f.Confidence, f.Aspect = Low, Possible, "compiler"
	case j.p.impliesExec, writable && j.asksForStack():
		f.Title = fmt.Sprintf("%s asks for memory that can be written and executed, and users put it there", j.p)
		f.Severity, f.Confidence, f.Aspect = Low, Possible, "asks"
	case m.Path == "[stack]" || m.Path == "[heap]":
		f.Title = fmt.Sprintf("%s has an executable %s", j.p, strings.Trim(m.Path, "[]"))
		f.Seen += " " + m.Path
	case j.allocates && j.handedOut(m):
		return nil
	default:
		f.Seen += fmt.Sprintf(", and no library is mapped that compiles at run time; %d KiB", (m.End-m.Start)>>10)
	}
	return f
}

const (
	maxCodePages = 4096 // that are looked at in one mapping
	fewBytes     = 24   // in a page: less than that is not code, unless it makes a system call
	leastBytes   = 8
)

// holdsCode reports whether memory holds more than a few bytes, and where these begin.
func (j *injection) holdsCode(m *linux.Mapping) (at virt.Addr, ok bool) {
	var page [phys.PageSize]byte
	pages := 0
	if m.File != 0 { // what others wrote to it is not in these page tables
		for a := m.Start; a < m.End; a += phys.PageSize {
			if pages++; pages > maxCodePages {
				return m.Start, true // as below
			}
			if _, err := j.memory.ReadAt(page[:], a); err == nil && looksLikeCode(page[:]) {
				return a, true
			}
		}
		return m.Start, false
	}
	for e := range j.space.Mappings(m.Start, m.End-1) {
		for a := max(e.VA, m.Start); a < min(e.VA+virt.Addr(e.Size), m.End); a += phys.PageSize {
			if pages++; pages > maxCodePages {
				return m.Start, true // nobody has so much executable memory, and nothing in it
			}
			if _, err := j.space.ReadAt(page[:], a); err == nil && looksLikeCode(page[:]) {
				return a, true
			}
		}
	}
	return m.Start, false
}

// looksLikeCode reports whether a page holds more than a few bytes, or a few of which two are a system call: the shortest code that starts
// a shell has 21 bytes.
func looksLikeCode(page []byte) bool {
	n := len(page) - bytes.Count(page, []byte{0})
	return n >= fewBytes || n >= leastBytes && (bytes.Contains(page, []byte{0x0f, 0x05}) || bytes.Contains(page, []byte{0xcd, 0x80}))
}

// handedOut reports whether memory is divided into pieces as that is which sljit (PCRE2, PHP) or
// libffi hand out: each piece says how large it is, and the one behind it the same.
func (j *injection) handedOut(m *linux.Mapping) bool {
	word := func(at uint64) uint64 {
		var b [8]byte
		if _, err := j.memory.ReadAt(b[:], m.Start+virt.Addr(at)); err != nil {
			return 0
		}
		return binary.LittleEndian.Uint64(b[:])
	}
	size := uint64(m.End - m.Start)
	// Where nothing may be both writable and executable, sljit has each chunk twice, and in front where the executable one is
	// (sljitProtExecAllocator.c).
	return sljitPieces(size, word) || dlmallocPieces(size, word) || j.writableTwin(m) && word(0) == uint64(m.Start)
}

// writableTwin reports whether the process can write to the same part of the same open file by another mapping.
func (j *injection) writableTwin(m *linux.Mapping) bool {
	return m.File != 0 && slices.ContainsFunc(j.p.maps, func(o *linux.Mapping) bool {
		return o.File == m.File && o.Offset == m.Offset && o.Flags&linux.VMWrite != 0 && o.End-o.Start == m.End-m.Start
	})
}

// asksForStack reports whether the program, or a library, asks for an executable stack: by a
// PT_GNU_STACK that says so, or by having none.
func (j *injection) asksForStack() bool {
	for _, i := range j.images {
		var b [phys.PageSize]byte
		if _, err := j.memory.ReadAt(b[:], i.Start); err != nil || string(b[:len(elf.ELFMAG)]) != elf.ELFMAG {
			continue
		}
		if stackFlags(b[:])&elf.PF_X != 0 {
			return true
		}
	}
	return false
}

// callsFrom are threads that are in a system call which code without a file made, by the
// mapping that it is in. A compiler at run time makes none: it calls functions of libraries.
func (s *Subject) callsFrom(ctx context.Context, ps *programs, p *program, anonymous []*linux.Mapping, j *injection) (map[*linux.Mapping]int32, error) {
	calls := map[*linux.Mapping]int32{}
	o, r := ps.o, s.Linux.Reader()
	for t, err := range p.Task.Threads(ctx) {
		if err != nil {
			return calls, err
		}
		_, tid, err := t.IDs()
		if err != nil {
			continue // it has just ended
		}
		r.Err = nil
		stack := r.Pointer(t.Addr, o.stack)
		if r.Err != nil || stack == 0 {
			continue
		}
		// The registers of the program are at the end of the kernel's stack: 16 KiB, with KASAN
		// 32; with FRED (since 6.9) 16 bytes are left free behind them.
		for _, size := range []virt.Addr{16 << 10, 32 << 10} {
			for _, padding := range []virt.Addr{0, 16} {
				r.Err = nil
				regs := stack + size - padding - virt.Addr(o.regSize)
				ip, cs, call := virt.Addr(r.Uint(regs, o.regIP)), r.Uint(regs, o.regCS), r.Int(regs, o.regCall)
				if m := linux.MappingAt(anonymous, ip); r.Err == nil && m != nil && (cs == 0x33 || cs == 0x23) && call >= 0 && j.afterCall(ip) {
					calls[m] = tid
				}
			}
		}
	}
	return calls, nil
}

// afterCall reports whether the instruction before ip is a system call.
func (j *injection) afterCall(ip virt.Addr) bool {
	var b [2]byte
	if _, err := j.space.ReadAt(b[:], ip-2); err != nil {
		return false
	}
	return b == [2]byte{0x0f, 0x05} || b == [2]byte{0xcd, 0x80} || b == [2]byte{0x0f, 0x34}
}
