package tcg

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/arch/x86/x86asm"
	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/virt"
)

// refusable are the system calls whose refusal is an event: what asks for rights, for other processes' memory, or to change the kernel
// or what is mounted. Who is refused to open or run a file only fills a feed.
var refusable = []string{
	"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "bpf", "iopl", "ioperm", "perf_event_open", "userfaultfd",
	"ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd",
	"setuid", "setreuid", "setresuid", "setgid", "setregid", "setresgid", "setgroups", "capset",
	"mount", "umount", "umount2", "move_mount", "mount_setattr", "fsmount", "pivot_root", "chroot", "setns", "unshare",
}

// refusals are the errors with which a call is refused.
var refusals = []unix.Errno{
	unix.EPERM, unix.EACCES, // EACCES is also what the verifier of bpf(2) says
	unix.ENOKEY, unix.EKEYREJECTED, // a module that is not signed, or by somebody else
}

// deniedAt is where seccomp's judgement of a call returns: what a sandbox refuses gets no further. Compilers have __secure_computing end
// with a jump to __seccomp_filter.
func deniedAt(s *linux.System, owners *linux.Owners) []virt.Addr {
	return leavesOf(s, owners, "__secure_computing")
}

// refusedAt is where a refused call returns: its function's return instructions. A function that ends with a jump to the one that does
// the work returns there.
func refusedAt(s *linux.System, owners *linux.Owners) []virt.Addr {
	return returnsOfCalls(s, owners, refusable...)
}

// returnsOfCalls is where the functions of system calls return: see [refusedAt].
func returnsOfCalls(s *linux.System, owners *linux.Owners, calls ...string) (sites []virt.Addr) {
	seen := map[string]bool{}
	var follow func(name string)
	follow = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		sites = append(sites, returnsOf(s, owners, name)...)
		code, _, _ := function(s, name)
		for _, i := range code {
			rel, direct := i.Args[0].(x86asm.Rel)
			if i.Op != x86asm.JMP || !direct {
				continue
			}
			to := owners.CodeAt(i.at + virt.Addr(i.length) + virt.Addr(int64(rel)))
			for _, worker := range []string{"__do_sys_", "__se_sys_", "__sys_", "ksys_"} {
				if to.Offset == 0 && strings.HasPrefix(to.Symbol, worker) {
					follow(to.Symbol)
				}
			}
		}
	}
	for _, call := range calls {
		for _, abi := range []string{"__x64_sys_", "__ia32_sys_", "__ia32_compat_sys_"} {
			follow(abi + call)
		}
		follow("__ia32_sys_" + call + "16") // with users and groups of 16 bits
	}
	return sites
}

// refusableCalls are those among calls, by ABI and number.
func refusableCalls(calls [2][]*syscall.Call) (of [2][]*syscall.Call) {
	for abi := range calls {
		for n, call := range calls[abi] {
			if call != nil && slices.Contains(refusable, strings.TrimSuffix(call.Name, "32")) { // setuid32 of ia32
				of[abi] = append(of[abi], make([]*syscall.Call, n+1-len(of[abi]))...)
				of[abi][n] = call
			}
		}
	}
	return of
}

// Words of a record of a refused call behind those of every door: number and ABI, result, and from here on the arguments.
const refusedArgs = 2

// doorRefused is where a function of a system call returns: with an error that says no.
func (c *compiler) doorRefused(o *doorLayout) {
	refused := c.Label()
	c.Reg(sA, "rax")
	c.refusal(refused)
	c.Drop()
	c.Set(refused)
	none := c.Label()
	c.savedRegisters(none)
	c.callRecord(o, none, nil)
}

// doorDenied is where seccomp's judgement returns: it has put a result in place of the call's.
func (c *compiler) doorDenied(o *doorLayout) {
	denied, refused, none := c.Label(), c.Label(), c.Label()
	c.Reg(sA, "rax")
	c.And(sA, sA, 0xffffffff)
	c.If(sA, "==", 0xffffffff, denied)
	c.Drop()
	c.Set(denied)
	c.savedRegisters(none)
	c.Load(sA, sB, regAX, 8, none)
	c.refusal(refused)
	c.Jump(none)
	c.Set(refused)
	c.callRecord(o, none, nil)
}

// refusal goes to l if the result in sA is one. Some functions return an int.
func (c *compiler) refusal(l plugin.Label) {
	c.And(sA, sA, 0xffffffff)
	for _, e := range refusals {
		c.If(sA, "==", uint64(uint32(-int32(e))), l)
	}
}

// savedRegisters puts the address of what the entry code saved into sB.
func (c *compiler) savedRegisters(none plugin.Label) {
	c.gs("gs_base")
	c.task()
	c.Load(sB, sTask, int64(c.o.stack), 8, none)
	c.Add(sB, sB, c.o.regs)
}

// callRecord makes the record of the call that the saved registers have, whose result is in sA, if it is one of those. more, if there is any, adds
// items to it.
func (c *compiler) callRecord(o *doorLayout, none plugin.Label, more func()) {
	old, known, compat := c.Label(), c.Label(), c.Label()
	c.Load(sNumber, sB, regNr, 8, none)
	c.And(sNumber, sNumber, 0xffffffff)
	c.Load(sX, sB, regCS, 8, none)
	c.If(sX, "!=", userCS64, old)
	for abi, saved := range [][6]int64{saved64, saved32} {
		if abi == abi32 {
			c.Set(old)
		}
		one := c.Label()
		for n, call := range c.calls[abi] {
			if call != nil {
				c.If(sNumber, "==", uint64(n), one)
			}
		}
		c.Jump(none)
		c.Set(one)
		for i, off := range saved {
			c.Load(arg(i), sB, off, 8, none)
			if abi == abi32 {
				c.And(arg(i), arg(i), 0xffffffff)
			}
		}
		c.Add(sC, sNumber, uint64(abi)<<32)
		c.Jump(known)
	}
	c.doorNone(none)
	c.Set(known)
	c.doorHead(o)
	c.Put(sC)
	c.Put(sA)
	c.PutAll(sArgs, 6)
	c.Add(sX, sTask, uint64(o.comm))
	c.String(tagComm, sX, 16)
	if more != nil {
		c.Add(sZ, sC, 0)
		more()
		c.Add(sC, sZ, 0)
	}
	c.Shr(sX, sC, 32)
	c.If(sX, "==", abi32, compat)
	for abi := range 2 {
		if abi == abi32 {
			c.Set(compat)
		}
		c.branch(abi, func(number int) {
			if number >= 0 {
				c.fetch(abi, number)
			}
			c.End()
		})
	}
}

func (j *joiner) doorRefused(e *trace.Event, r *doorRecord) {
	number, result := r.word(0), int64(int32(uint32(r.word(1))))
	if e.Name != "" {
		e.Note = "by " + e.Name
	}
	v := syscall.Values{Returned: true, Result: result}
	for i := range v.Args {
		v.Args[i] = r.word(refusedArgs + i)
	}
	v.Data = r.pieces(v.Data)
	e.Return, e.Returned = result, true
	setErrno(e, result)
	abi, n := number>>32, number&0xffffffff
	if abi > abi32 || n >= uint64(len(j.refusable[abi])) || j.refusable[abi][n] == nil {
		e.Name = fmt.Sprintf("syscall_%#x", n) // no record of the plugin's
		return
	}
	call := j.refusable[abi][n]
	e.Name = call.NameOf(&v)
	e.Args, e.Result = string(call.AppendArgs(nil, &v, syscall.Options{Limit: j.o.Limit})), string(call.AppendResult(nil, &v))
	e.Fields = call.Fields(&v)
}
