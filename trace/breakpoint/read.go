package breakpoint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/peek"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/virt"
)

// maxText bounds what of a guest's text goes into one value of an event, in bytes.
const maxText = 4096

// exec is finalize_exec(struct linux_binprm *).
func (h *hit) exec() {
	if name := h.r.CString(h.r.Pointer(h.pointer(0), h.o.filename), linux.MaxPath); h.r.Err == nil {
		h.say("filename", name)
	}
	h.program()
}

// execTask is proc_exec_connector(struct task_struct *).
func (h *hit) execTask() {
	h.task = h.pointer(0)
	h.program()
}

// program is the program that the task has just begun to run.
func (h *hit) program() {
	h.s.processes.Forget(h.task, 0)
	h.process()
	if h.e.Process != nil {
		h.e.Object = h.e.Process.Exe
	}
	h.paths.Only(linux.PartArguments, linux.PartExecutable)
	p, err := h.paths.Process(h.ctx, h.sys.TaskAt(h.task))
	if err != nil {
		if h.r.Err == nil {
			h.r.Err = err
		}
		return
	}
	for _, m := range p.Missing {
		h.e.Note = "arguments: " + m.Err.Error()
	}
	if p.ExeDeleted {
		h.e.Object += trace.Deleted
	}
	h.e.Run(p.Args)
}

// exit is acct_collect(long code, int group_dead): each thread that ends, and whether it was the last.
func (h *hit) exit() {
	if h.drop = uint32(h.args[1]) == 0; h.drop {
		return
	}
	h.exited()
}

// exitThread is do_exit(long code). Where several threads end at a time, none may see that it is the last.
func (h *hit) exitThread() {
	if h.drop = h.r.Uint(h.r.Pointer(h.task, h.o.signal), h.o.live) > 1; h.drop {
		return
	}
	h.exited()
}

func (h *hit) exited() {
	const groupExit = 4 // SIGNAL_GROUP_EXIT
	code := uint32(h.args[0])
	if sig := h.r.Pointer(h.task, h.o.signal); h.r.Uint(sig, h.o.signalFlags)&groupExit != 0 {
		code = uint32(h.r.Uint(sig, h.o.groupExit))
	}
	h.e.End(code)
}

// fork is wake_up_new_task(struct task_struct *).
func (h *hit) fork() {
	pid, tid, err := h.sys.TaskAt(h.pointer(0)).IDs()
	if err != nil {
		h.r.Err = err
		return
	}
	if h.drop = pid != tid; h.drop { // a thread
		return
	}
	if by := h.e.Process; by != nil {
		h.e.Object = fmt.Sprintf("by %s (%d)", by.Comm, by.PID)
	}
	h.e.Process, h.e.TID = h.s.processes.Of(h.ctx, h.pointer(0)), pid
	h.s.processes.Forget(h.pointer(0), 0) // it has its parent's name until it takes its own
	h.e.Return, h.e.Returned = int64(pid), true
	h.say("child", pid)
}

// module is do_init_module(struct module *) and free_module(struct module *).
func (h *hit) module() {
	if !h.o.moduleName.Present() {
		return
	}
	m := h.pointer(0)
	h.e.Object = h.r.CString(h.o.moduleName.At(m), int(h.o.moduleName.Size))
	if h.o.moduleArgs.Present() {
		if args := h.r.Pointer(m, h.o.moduleArgs); args != 0 && h.r.Err == nil {
			h.e.Args = h.r.CString(args, maxText)
		}
	}
}

// creds is commit_creds(struct cred *): the task still has its old ones. Each program that is run gets new ones, most
// often the same.
func (h *hit) creds() {
	was, now := h.rights(h.r.Pointer(h.task, h.o.realCred)), h.rights(h.pointer(0))
	h.s.processes.Forget(h.task, 0)
	if h.drop = was == now && h.r.Err == nil; h.drop {
		return
	}
	h.e.Change(was, now, trace.RunsProgram(h.caller()))
}

// caller is the function that has called this one; empty: unknown. A caller outside the kernel's own code has its address.
func (h *hit) caller() string {
	names, err := peek.Kernel(h.sys).Placer()
	if err != nil {
		return ""
	}
	r := h.sys.Reader() // what fails here leaves the rest of the event whole
	a := uint64(r.Ptr(h.stack))
	if r.Err != nil {
		return ""
	}
	name, _, _ := strings.Cut(names.Name(a), "+")
	if name == "" {
		return fmt.Sprintf("%#x", a)
	}
	return name
}

// rights are those of a struct cred.
func (h *hit) rights(cred virt.Addr) (r trace.Rights) {
	id := func(f kobj.Field) uint32 { return uint32(h.r.Uint(cred, f)) }
	r.UID, r.EUID, r.SUID, r.FSUID = id(h.o.uid), id(h.o.euid), id(h.o.suid), id(h.o.fsuid)
	r.GID, r.EGID, r.SGID, r.FSGID = id(h.o.gid), id(h.o.egid), id(h.o.sgid), id(h.o.fsgid)
	r.Caps.Inheritable, r.Caps.Permitted, r.Caps.Effective = h.r.Uint(cred, h.o.inheritable), h.r.Uint(cred, h.o.permitted), h.r.Uint(cred, h.o.effective)
	r.UserNS = h.r.Uint(h.r.Pointer(cred, h.o.userNS), h.o.number)
	r.Known = h.r.Err == nil
	return r
}

// mount is path_mount(const char *device, struct path *, const char *type, unsigned long flags, void *data).
func (h *hit) mount() {
	m := trace.Mounting{Source: h.text(h.pointer(0)), Type: h.text(h.pointer(2)), Target: h.path(h.pointer(1)), Flags: h.args[3]}
	h.e.Mounts(m)
	h.say("device", m.Source)
	h.say("type", m.Type)
	h.say("flags", fmt.Sprintf("%#x", m.Flags))
}

// text is a string of the kernel's; none for no pointer.
func (h *hit) text(a virt.Addr) string {
	if a == 0 {
		return ""
	}
	return h.r.CString(a, maxText)
}

// moveMount is security_move_mount(const struct path *from, const struct path *to): also of what fsmount(2) or open_tree(2) made, which is
// mounted nowhere yet, so that it is its own parent.
func (h *hit) moveMount() {
	from := h.pointer(0)
	vfs := h.r.Pointer(from, h.o.pathMount)
	mount := vfs - virt.Addr(h.o.mnt.Offset)
	m := trace.Mounting{Target: h.path(h.pointer(1)), Moves: true, Detached: h.r.Pointer(mount, h.o.mntParent) == mount}
	m.Source = h.text(h.r.Pointer(mount, h.o.mntDevice))
	m.Type = h.text(h.r.Pointer(h.r.Pointer(h.r.Pointer(vfs, h.o.mntSuper), h.o.superType), h.o.typeName))
	if m.Detached {
		m.Root = h.inside(h.r.Pointer(from, h.o.pathDentry))
	} else {
		m.From = h.path(from)
	}
	h.e.Mounts(m)
	h.say("device", m.Source)
	h.say("type", m.Type)
	h.say("from", m.From+m.Root)
}

// inside is the path of a dentry in its file system.
func (h *hit) inside(dentry virt.Addr) string {
	const depth = 256
	var names []string
	for range depth {
		above := h.r.Pointer(dentry, h.o.parent)
		if above == dentry || above == 0 {
			break
		}
		names = append(names, h.text(h.r.Pointer(dentry, h.o.name)))
		dentry = above
	}
	slices.Reverse(names)
	return "/" + strings.Join(names, "/")
}

// unmount is path_umount(struct path *, int flags).
func (h *hit) unmount() {
	h.e.Object = h.path(h.pointer(0))
	h.e.Args = fmt.Sprintf("%#x", uint32(h.args[1]))
}

// written is a watchpoint: the access has been done.
func (h *hit) written() {
	w := h.point.watch
	h.e.Name = w.Name
	h.e.Object = fmt.Sprintf("%#x", uint64(w.Addr))
	by := fmt.Sprintf("%#x", h.rip)
	if table, err := h.sys.Table(); err == nil {
		if name, off, ok := table.At(int64(h.rip - uint64(h.sys.Text))); ok {
			by = fmt.Sprintf("%s+%#x", name, off)
		}
	}
	var b [8]byte
	if err := h.sys.ReadAt(b[:w.Size], w.Addr); err != nil {
		h.r.Err = err
		return
	}
	v := uint64(0)
	for i := range b {
		v |= uint64(b[i]) << (8 * i)
	}
	h.e.Args = fmt.Sprintf("%#x by %s", v, by)
	h.say("value", fmt.Sprintf("%#x", v))
	h.say("by", by)
}
