package linux

import (
	"encoding/binary"
	"fmt"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// ABI is how a program calls the kernel, and with that how its code and its words are read.
type ABI string

// The ABIs that an amd64 kernel runs, as [Syscall] names them too.
const (
	ABI64   ABI = "64"
	ABIIA32 ABI = "ia32"
	ABIX32  ABI = "x32" // 64-bit code with 32-bit pointers
)

// WordSize is how many bytes a pointer has.
func (a ABI) WordSize() int {
	if a == ABIIA32 || a == ABIX32 {
		return 4
	}
	return 8
}

// WordIn is the word of so many bytes, 4 or 8, at the beginning of b.
func WordIn(b []byte, size int) virt.Addr {
	if size == 4 {
		return virt.Addr(binary.LittleEndian.Uint32(b))
	}
	return virt.Addr(binary.LittleEndian.Uint64(b))
}

// CodeBits is the mode in which the processor decodes its code.
func (a ABI) CodeBits() int {
	if a == ABIIA32 {
		return 32
	}
	return 64
}

type abiLayout struct{ taskSize, flags, compat kobj.Field }

func (s *System) abiLayout() (*abiLayout, error) {
	return kobj.LayoutOf(s.Walker, "ABIs", func(r *kobj.Resolver, o *abiLayout) {
		o.taskSize = r.Optional("mm_struct", "task_size")
		// Both are missing from kernels that run 64-bit programs only.
		o.flags = r.Optional("mm_struct", "context.flags")        // 5.11
		o.compat = r.Optional("mm_struct", "context.ia32_compat") // up to 5.10
	})
}

// ABI is that of the program whose mm_struct is at mm, as exec chose it. A 64-bit program
// can run 32-bit code all the same (Wine does): the kernel only knows of it while that code
// calls it.
func (s *System) ABI(mm virt.Addr) (ABI, error) {
	o, err := s.abiLayout()
	if err != nil {
		return "", err
	}
	r := s.Reader()
	abi := o.abi(&r, mm)
	if r.Err != nil {
		return "", fmt.Errorf("ABI of mm %#x: %w", uint64(mm), r.Err)
	}
	return abi, nil
}

func (o *abiLayout) abi(r *kobj.Reader, mm virt.Addr) ABI {
	// TASK_SIZE of a thread with TIF_ADDR32, which is ia32 or x32.
	const top32 = 1 << 32
	if !o.taskSize.Present() || r.Uint(mm, o.taskSize) > top32 {
		return ABI64
	}
	const (
		uprobeIA32 = 1  // MM_CONTEXT_UPROBE_IA32
		tifX32     = 30 // TIF_X32, which stands in ia32_compat
	)
	switch {
	case o.flags.Present() && !o.compat.Present() && r.Uint(mm, o.flags)&uprobeIA32 == 0:
		return ABIX32
	case o.compat.Present() && r.Uint(mm, o.compat) == tifX32:
		return ABIX32
	}
	return ABIIA32
}
