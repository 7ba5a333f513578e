package plant

import (
	"encoding/binary"
	"fmt"

	"github.com/outsight-vmi/outsight/virt"
)

// blob is the machine code that is planted. A kworker calls it in place of the function of a work item, once. It puts the
// item's own function back, takes the job that the mailbox names, does its steps, and goes on to that function. It is
// the same bytes for every job of a boot, so that they are written once: no processor ever sees them change, and a
// QEMU that translates has no old translation of them.
func blob(p *places) ([]byte, error) {
	a := &assembler{at: p.code}
	out, done, failed := a.label(), a.label(), a.label()
	next, unpatched, closes, store := a.label(), a.label(), a.label(), a.label()

	a.bytes(0xf3, 0x0f, 0x1e, 0xfa)                                     // endbr64: the call is indirect
	a.bytes(0x55, 0x48, 0x89, 0xe5)                                     // push %rbp; mov %rsp,%rbp: a frame, for who unwinds by frames
	a.bytes(0x53, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x57) // push %rbx, %r12 to %r15, %rdi
	a.bytes(0x48, 0x81, 0xec)                                           // sub $frame,%rsp
	a.u32(frame)
	a.move(0xbb, p.mailbox) // %rbx

	// The item's function comes back first. If something else is there by now, that stays.
	a.move(0xb8, p.code)                  // %rax
	a.move(0xb9, p.original)              // %rcx
	a.move(0xba, p.slot)                  // %rdx
	a.bytes(0xf0, 0x48, 0x0f, 0xb1, 0x0a) // lock cmpxchg %rcx,(%rdx)

	// The job is taken once: armed becomes running.
	a.bytes(0xb8)
	a.u32(uint32(stateArmed)) // mov $armed,%eax
	a.bytes(0xb9)
	a.u32(uint32(stateRunning))              // mov $running,%ecx
	a.bytes(0xf0, 0x0f, 0xb1, 0x4b, atState) // lock cmpxchg %ecx,state(%rbx)
	a.jump([]byte{0x0f, 0x85}, out)          // jne
	a.bytes(0x4c, 0x8b, 0x63, atJob)         // mov job(%rbx),%r12
	a.bytes(0x45, 0x8b, 0x2c, 0x24)          // mov (%r12),%r13d: how many steps
	a.bytes(0x49, 0x83, 0xc4, jobHead)       // add $head,%r12
	a.bytes(0x45, 0x31, 0xf6)                // xor %r14d,%r14d

	a.set(next)
	a.bytes(0x45, 0x39, 0xee)                 // cmp %r13d,%r14d
	a.jump([]byte{0x0f, 0x83}, done)          // jae
	a.bytes(0x49, 0x8b, 0x34, 0x24)           // mov (%r12),%rsi: the attributes, copied to the stack
	a.bytes(0x48, 0x89, 0xe7)                 // mov %rsp,%rdi
	a.bytes(0x41, 0x8b, 0x4c, 0x24, stepSize) // mov size(%r12),%ecx
	a.bytes(0xf3, 0xa4)                       // rep movsb
	a.bytes(0x41, 0x8b, 0x44, 0x24, stepFrom) // mov from(%r12),%eax: the object whose descriptor goes into them, from 1
	a.bytes(0x85, 0xc0)                       // test %eax,%eax
	a.jump([]byte{0x0f, 0x84}, unpatched)     // jz
	a.bytes(0x8b, 0x84, 0x83)                 // mov objects-4(%rbx,%rax,4),%eax
	a.u32(atObjects - 4)
	a.bytes(0x41, 0x8b, 0x4c, 0x24, stepPatch) // mov patch(%r12),%ecx
	a.bytes(0x89, 0x04, 0x0c)                  // mov %eax,(%rsp,%rcx)
	a.set(unpatched)
	a.bytes(0x41, 0x83, 0x7c, 0x24, stepOp, 0) // cmpl $0,op(%r12)
	a.jump([]byte{0x0f, 0x85}, closes)         // jne
	a.bytes(0x41, 0x8b, 0x7c, 0x24, stepCmd)   // mov cmd(%r12),%edi
	a.bytes(0x48, 0x89, 0xe6)                  // mov %rsp,%rsi
	a.bytes(0x41, 0x8b, 0x54, 0x24, stepSize)  // mov size(%r12),%edx
	a.call(p.sysBPF)
	a.bytes(0x85, 0xc0)                // test %eax,%eax
	a.jump([]byte{0x0f, 0x88}, failed) // js
	a.set(store)
	a.bytes(0x41, 0x8b, 0x4c, 0x24, stepTo) // mov to(%r12),%ecx
	a.bytes(0x89, 0x84, 0x8b)               // mov %eax,objects(%rbx,%rcx,4)
	a.u32(atObjects)
	a.bytes(0x41, 0xff, 0xc6)            // inc %r14d
	a.bytes(0x44, 0x89, 0x73, atStep)    // mov %r14d,step(%rbx)
	a.bytes(0x49, 0x83, 0xc4, stepBytes) // add $step,%r12
	a.jump([]byte{0xe9}, next)

	a.set(closes)
	a.bytes(0x8b, 0x3c, 0x24) // mov (%rsp),%edi
	a.call(p.closeFD)         // whatever it says, the descriptor is not ours any more
	a.bytes(0xb8)
	a.u32(0xffffffff) // mov $-1,%eax
	a.jump([]byte{0xe9}, store)

	a.set(failed)
	a.bytes(0x89, 0x43, atError) // mov %eax,error(%rbx)
	a.bytes(0xc7, 0x43, atState) // movl $failed,state(%rbx)
	a.u32(uint32(stateFailed))
	a.jump([]byte{0xe9}, out)
	a.set(done)
	a.bytes(0xc7, 0x43, atState)
	a.u32(uint32(stateDone))
	a.set(out)
	a.bytes(0x48, 0x81, 0xc4) // add $frame,%rsp
	a.u32(frame)
	a.bytes(0x5f, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5b, 0x5d) // pop all
	a.bytes(0xe9)                                                             // jmp to the item's own function, with its argument
	a.relative(p.original)
	return a.finish()
}

// frame is the room for attributes on the stack, in bytes; 16-byte aligned.
const frame = 192

// assembler puts machine code together that runs at one address.
type assembler struct {
	at     virt.Addr
	b      []byte
	labels []int // by label: offset; -1: not set
	jumps  []jump
	err    error
}

type jump struct{ at, label int }

func (a *assembler) bytes(b ...byte) { a.b = append(a.b, b...) }
func (a *assembler) u32(v uint32)    { a.b = binary.LittleEndian.AppendUint32(a.b, v) }

// move sets a register to an address: op is the second byte of mov $imm64.
func (a *assembler) move(op byte, v virt.Addr) {
	a.bytes(0x48, op)
	a.b = binary.LittleEndian.AppendUint64(a.b, uint64(v))
}

func (a *assembler) label() int {
	a.labels = append(a.labels, -1)
	return len(a.labels) - 1
}

func (a *assembler) set(l int) { a.labels[l] = len(a.b) }

// jump writes a jump whose operation is op to a label.
func (a *assembler) jump(op []byte, l int) {
	a.bytes(op...)
	a.jumps = append(a.jumps, jump{len(a.b), l})
	a.u32(0)
}

func (a *assembler) call(to virt.Addr) {
	a.bytes(0xe8)
	a.relative(to)
}

// relative writes the distance to an address from behind it.
func (a *assembler) relative(to virt.Addr) {
	d := int64(to) - int64(a.at) - int64(len(a.b)) - 4
	if int64(int32(d)) != d {
		a.err = fmt.Errorf("%#x is too far from %#x for a call", uint64(to), uint64(a.at))
	}
	a.u32(uint32(int32(d)))
}

func (a *assembler) finish() ([]byte, error) {
	for _, j := range a.jumps {
		to := a.labels[j.label]
		if to < 0 {
			return nil, fmt.Errorf("label %d is not set", j.label)
		}
		binary.LittleEndian.PutUint32(a.b[j.at:], uint32(int32(to-j.at-4)))
	}
	return a.b, a.err
}
