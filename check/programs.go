package check

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/virt"
)

// program is a process that runs a program, with what several checks need of it.
type program struct {
	*linux.Process
	maps []*linux.Mapping // by address
	// What the kernel keeps of the file that it was started from; zero without one.
	exe programFile
	// startCode and endCode are where exec put the code of the program.
	startCode, endCode virt.Addr
	root               virt.Addr // dentry of its root folder
	// impliesExec says that whatever it may read it may execute (READ_IMPLIES_EXEC).
	impliesExec bool
	// filtered says that its system calls are filtered (seccomp), which no process can take back.
	filtered bool
	// The kernel's own code in the process: the vDSO, and instructions that uprobes moved away.
	vdso, uprobes virt.Addr
}

// programFile is the file that a process was started from.
type programFile struct {
	file, dentry, super virt.Addr
}

// programs are those of a guest.
type programs struct {
	all   []*program // by PID
	byPID map[int32]*program
	holes []error // what could not be read

	s     *linux.System
	o     *programLayout
	owned owned
}

// programLayout is where members of the structures lie that lead from a task to its
// program.
type programLayout struct {
	exeFile, startCode, endCode                 kobj.Field // of mm_struct
	fileDentry                                  kobj.Field // of file
	parent, name, nameLen, inode, hashed, super kobj.Field // of dentry
	children, sibling                           kobj.Field // of dentry
	childrenAreList                             bool       // else an hlist, since 6.8 (da549bdd15c2)
	fs, root, pwd, pwdMount                     kobj.Field
	personality                                 kobj.Field
	stack, mm                                   kobj.Field
	vdso, xolArea, xolAt                        kobj.Field // of mm_struct, xol_area
	regIP, regCS, regCall                       kobj.Field // of pt_regs
	regSize                                     uint32
	userNS                                      kobj.Field // of super_block
	seccomp                                     kobj.Field // of task_struct
}

func layoutOfPrograms(s *linux.System) (*programLayout, error) {
	return kobj.LayoutOf(s.Walker, "programs", func(r *kobj.Resolver, o *programLayout) {
		const d = "dentry"
		*o = programLayout{
			exeFile: r.Field("mm_struct", "exe_file"), startCode: r.Field("mm_struct", "start_code"), endCode: r.Field("mm_struct", "end_code"),
			fileDentry: r.Field("file", "f_path.dentry"),
			parent:     r.Field(d, "d_parent"), name: r.Field(d, "d_name.name", "d_name.__name"), nameLen: r.Field(d, "d_name.len"), inode: r.Field(d, "d_inode"),
			hashed: r.Field(d, "d_hash.pprev"), super: r.Field(d, "d_sb"),
			children: r.Optional(d, "d_children"), sibling: r.Optional(d, "d_sib"),
			fs: r.Field("task_struct", "fs"), root: r.Field("fs_struct", "root.dentry"), pwd: r.Field("fs_struct", "pwd.dentry"), pwdMount: r.Field("fs_struct", "pwd.mnt"),
			personality: r.Field("task_struct", "personality"), stack: r.Field("task_struct", "stack"), mm: r.Field("task_struct", "mm"),
			regIP: r.Field("pt_regs", "ip"), regCS: r.Field("pt_regs", "cs"), regCall: r.Field("pt_regs", "orig_ax"), regSize: r.Size("pt_regs"),
		}
		o.seccomp = r.Optional("task_struct", "seccomp.mode")
		o.userNS = r.Optional("super_block", "s_user_ns")
		o.vdso = r.Optional("mm_struct", "context.vdso")
		o.xolArea, o.xolAt = r.Optional("mm_struct", "uprobes_state.xol_area"), r.Optional("xol_area", "vaddr")
		if !o.children.Present() {
			o.children, o.sibling, o.childrenAreList = r.Field(d, "d_subdirs"), r.Field(d, "d_child"), true
		}
	})
}

const readImpliesExec = 0x0400000 // include/uapi/linux/personality.h

// report takes a finding, or what could not be judged; nothing, if both are nil. It returns false
// when no more is wanted.
type report func(*Finding, error) bool

// overPrograms has each program judged.
func (s *Subject) overPrograms(ctx context.Context, judge func(ps *programs, p *program, yield report)) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		ps, err := s.Programs()
		if err != nil {
			yield(nil, err)
			return
		}
		ended := false
		for _, p := range ps.all {
			judge(ps, p, func(f *Finding, err error) bool {
				if !ended && (f != nil || err != nil) {
					ended = !yield(f, err)
				}
				return !ended
			})
			if ended || ctx.Err() != nil {
				return
			}
		}
	}
}

// readPrograms reads the programs that run: all that these checks need, each process once.
func readPrograms(ctx context.Context, s *linux.System) (*programs, error) {
	o, err := layoutOfPrograms(s)
	if err != nil {
		return nil, err
	}
	ps := &programs{byPID: map[int32]*program{}, s: s, o: o}
	reader := programReader(s)
	for t, err := range s.Processes(ctx) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			ps.holes = append(ps.holes, err)
			continue
		}
		n, holes := ps.read(ctx, s, reader, t)
		// A process that runs another program, or ends, leaves what was read of it.
		for try := 1; len(holes) > 0 && try < programTries; try++ {
			now := s.Fresh()
			if now == s {
				break
			}
			n, holes = ps.read(ctx, now, programReader(now), now.TaskAt(t.Addr))
		}
		if len(holes) > 0 && t.Released(ctx) {
			continue
		}
		ps.holes = append(ps.holes, holes...)
		if n != nil && ps.byPID[n.PID] == nil {
			ps.all, ps.byPID[n.PID] = append(ps.all, n), n
		}
	}
	slices.SortFunc(ps.all, func(a, b *program) int { return cmp.Compare(a.PID, b.PID) })
	return ps, nil
}

// programTries is how often a process is read that changes meanwhile.
const programTries = 3

func programReader(s *linux.System) *linux.ProcessReader {
	reader := s.NewProcessReader()
	reader.Only(linux.PartName, linux.PartParent, linux.PartExecutable, linux.PartArguments)
	return reader
}

// read reads the program of one process; nil if it has none, or cannot be read. holes are what
// could not.
func (ps *programs) read(ctx context.Context, s *linux.System, reader *linux.ProcessReader, t linux.Task) (_ *program, holes []error) {
	o, r := ps.o, s.Reader()
	if mm := r.Pointer(t.Addr, o.mm); mm == 0 && r.Err == nil {
		return nil, nil // a kernel thread, whose name may change all the time
	}
	p, err := reader.Process(ctx, t)
	if err != nil {
		return nil, []error{err}
	}
	if !p.HasAddressSpace() {
		return nil, nil
	}
	n := &program{Process: p}
	for m, err := range reader.MappingsOf(ctx, p.MM) {
		if err != nil {
			holes = append(holes, fmt.Errorf("process %d: %w", p.PID, err))
			continue
		}
		n.maps = append(n.maps, m)
	}
	n.startCode, n.endCode = virt.Addr(r.Uint(p.MM, o.startCode)), virt.Addr(r.Uint(p.MM, o.endCode))
	n.impliesExec = r.Uint(t.Addr, o.personality)&readImpliesExec != 0
	const filter = 2 // SECCOMP_MODE_FILTER
	n.filtered = r.Uint(t.Addr, o.seccomp) == filter
	n.vdso = r.Pointer(p.MM, o.vdso)
	if area := r.Pointer(p.MM, o.xolArea); area != 0 {
		n.uprobes = r.Pointer(area, o.xolAt)
	}
	if n.exe.file = r.Pointer(p.MM, o.exeFile); n.exe.file != 0 {
		n.exe.dentry = r.Pointer(n.exe.file, o.fileDentry)
		n.exe.super = r.Pointer(n.exe.dentry, o.super)
	}
	if fs := r.Pointer(t.Addr, o.fs); fs != 0 {
		n.root = r.Pointer(fs, o.root)
	}
	if r.Err != nil {
		return nil, append(holes, fmt.Errorf("program of process %d: %w", p.PID, r.Err))
	}
	return n, holes
}

// nameState is what a folder has under a name, as far as the kernel remembers.
type nameState int

const (
	unknownName nameState = iota // nobody asked for the name of late
	noSuchName                   // it was asked for, and there is none
	hasName
)

// maxNames bounds the names in one folder that are looked at.
const maxNames = 1 << 20

// look looks for a name in a folder, among those that the kernel remembers: the dentry, if
// there is one that can still be found by its name.
func (o *programLayout) look(ctx context.Context, s *linux.System, folder virt.Addr, name string) (virt.Addr, nameState, error) {
	r := s.Reader()
	entries := s.HList(ctx, o.children.At(folder), maxNames)
	if o.childrenAreList {
		entries = s.List(ctx, o.children.At(folder), maxNames)
	}
	for node, err := range entries {
		if err != nil {
			return 0, unknownName, fmt.Errorf("names in the folder at %#x: %w", uint64(folder), err)
		}
		d := node - o.sibling.At(0)
		if r.Uint(d, o.nameLen) != uint64(len(name)) || r.Pointer(d, o.hashed) == 0 || r.CString(r.Pointer(d, o.name), len(name)+1) != name {
			continue
		}
		inode := r.Pointer(d, o.inode)
		if r.Err != nil {
			break
		}
		if inode == 0 {
			return d, noSuchName, nil
		}
		return d, hasName, nil
	}
	if r.Err != nil {
		return 0, unknownName, fmt.Errorf("names in the folder at %#x: %w", uint64(folder), r.Err)
	}
	return 0, unknownName, nil
}

// look is that of the layout, in the guest as it was when the programs were read.
func (ps *programs) look(ctx context.Context, folder virt.Addr, name string) (virt.Addr, nameState, error) {
	return ps.o.look(ctx, ps.s, folder, name)
}

// successor is what has the place of a program's file that was deleted.
func (ps *programs) successor(ctx context.Context, p *program) (nameState, error) {
	r := ps.s.Reader()
	folder := r.Pointer(p.exe.dentry, ps.o.parent)
	if r.Err != nil || folder == 0 {
		return unknownName, r.Err
	}
	_, n, err := ps.look(ctx, folder, path.Base(p.Exe))
	return n, err
}

// arg0 is the first argument, which a program is free to choose.
func (p *program) arg0() string {
	if len(p.Args) == 0 {
		return ""
	}
	return p.Args[0]
}

// String names it in findings.
func (p *program) String() string { return fmt.Sprintf("process %d (%s)", p.PID, p.Comm) }

// object is what a finding about it is about.
func (p *program) object() Object { return Object{Kind: "process", Name: p.Comm, PID: p.PID} }

// interpreterOf is the interpreter that a process is; empty for another program. Of a
// busybox it is the applet, which only its name shows.
func (p *program) interpreter() string {
	base := path.Base(p.Exe)
	if base == "busybox" || base == "toybox" || base == "" {
		base = strings.TrimPrefix(path.Base(p.arg0()), "-")
		if base == "busybox" && len(p.Args) > 1 {
			base = p.Args[1]
		}
		if !interpreters[base] && interpreters[p.Comm] {
			base = p.Comm
		}
	}
	stem := strings.TrimRight(base, "0123456789.") // python3.11, perl5.36.0, lua5.4
	if interpreters[base] || interpreters[stem] {
		return base
	}
	return ""
}

var interpreters = map[string]bool{
	"sh": true, "bash": true, "rbash": true, "dash": true, "ash": true, "hush": true, "zsh": true, "ksh": true, "mksh": true, "csh": true, "tcsh": true, "fish": true, "yash": true,
	"python": true, "perl": true, "ruby": true, "php": true, "lua": true, "luajit": true, "tclsh": true, "expect": true, "awk": true, "gawk": true, "mawk": true, "pwsh": true, "node": true,
}

// sockets are those of a guest.
type sockets struct {
	all   []*network.Socket
	files map[uint64]*network.Socket // by inode, which is that of the open file
	holes []error
}

func readSockets(ctx context.Context, s *linux.System) (*sockets, error) {
	ks := &sockets{files: map[uint64]*network.Socket{}}
	for k, err := range network.Sockets(ctx, s) {
		if err != nil {
			ks.holes = append(ks.holes, err)
			continue
		}
		ks.all = append(ks.all, k)
		if k.Inode != 0 && k.Protocol != "mptcp" {
			ks.files[k.Inode] = k
		}
	}
	return ks, ctx.Err()
}
