package text

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Data that is writable has no constant value, but its pointers to functions are as good as constant: tables of
// devices, protocols, consoles and clocks, static calls, handlers of sysctls. The image says which words were built
// to lead to the kernel's text. Some are exchanged at run time for other functions of the kernel's own; to lead
// elsewhere, one needs a reason.

// codePointers are the words of an image that were built to lead to text, and what else holds functions.
type codePointers struct {
	words []image.CodePointer
	// sealed is what is written until the kernel has started, and never again; filled are tables of functions in
	// writable data that the kernel alone fills in, while it starts.
	sealed span
	filled []span
	// named says that variables have names (CONFIG_KALLSYMS_ALL): else it is not known where one ends.
	named bool
}

// span is a stretch of the image, as linked.
type span struct{ start, end uint64 }

// filledTables are tables that are empty in the image and that no function writes to which modules may call, each with
// its size in bytes.
var filledTables = map[string]uint64{"softirq_vec": 10 * 8} // NR_SOFTIRQS

func (r *Reference) codePointers() (codePointers, error) {
	names := append([]string{hotplug}, rodataBounds...)
	for name := range filledTables {
		names = append(names, name)
	}
	at, err := r.Image.Lookup(names...)
	if err != nil {
		return codePointers{}, err
	}
	p := codePointers{named: at[hotplug] != 0}
	if from, to := at["__start_ro_after_init"], at["__end_ro_after_init"]; from > at["__start_rodata"] && from < to && to <= at["__end_rodata"] {
		p.sealed = span{(from + 7) &^ 7, to &^ 7}
	}
	for name, size := range filledTables {
		if a, ok := at[name]; ok && a%8 == 0 {
			p.filled = append(p.filled, span{a, a + size})
		}
	}
	p.words = r.Image.CodePointers(p.sealed.start, p.sealed.end)
	return p, nil
}

// Pointers are the pointers to functions in a kernel's data.
type Pointers struct {
	ref    *Reference
	s      *linux.System
	offset uint64
	codePointers
	symbol func(addr uint64) (name string, offset int64, ok bool)
	buffer []byte
	// unloaded says why it is not known which functions the kernel exchanges pointers for.
	unloaded error
}

// Pointer is one that does not lead to the kernel's text, or to a function of it whose address is in no instruction and no table of the image.
type Pointer struct {
	Addr      virt.Addr
	Want, Got virt.Addr // Want is 0 if it was built as nothing
	Symbol    string    // of the variable that it is in; empty if it is one of each processor
	Offset    int64     // in that
	CPU       int       // whose it is; -1: it is of all
	Sealed    bool      // nothing writes there once the kernel has started
	// Beside says that it is empty in the image, and is part of a variable that has other functions.
	Beside bool
	// Exchanged says that it leads to the kernel's text, and no instruction and no table of the image has the address that it leads to.
	Exchanged bool
}

// NewPointers prepares to read the pointers of a kernel's data.
func NewPointers(s *linux.System, ref *Reference) (*Pointers, error) {
	if err := ref.isOf(s); err != nil {
		return nil, err
	}
	all, err := ref.pointers()
	if err != nil {
		return nil, err
	}
	return &Pointers{ref: ref, s: s, offset: uint64(s.Text) - ref.start, codePointers: all, symbol: ref.symbol}, nil
}

// maxRead is how much is read of data at a time.
const maxRead = 64 << 10

// Moved yields the words that lead, or were built to lead, to code: those that were built to lead to the kernel's text
// and lead elsewhere now, to nothing as well, or to a function of it whose address is in no instruction and no table of the image; and those that are empty in the image and for which module reports true, if
// the kernel alone fills them in, or they are beside such words. An error says that some could not be read.
func (p *Pointers) Moved(ctx context.Context, module func(virt.Addr) bool) iter.Seq2[Pointer, error] {
	return func(yield func(Pointer, error) bool) {
		p.unloaded = nil
		if p.allMoved(ctx, module, yield) && p.unloaded != nil {
			yield(Pointer{}, p.unloaded)
		}
	}
}

// allMoved is Moved, and reports whether all was wanted.
func (p *Pointers) allMoved(ctx context.Context, module func(virt.Addr) bool, yield func(Pointer, error) bool) bool {
	percpu := len(p.words)
	for percpu > 0 && p.words[percpu-1].Percpu {
		percpu--
	}
	if !p.moved(ctx, p.words[:percpu], p.offset, -1, module, yield) {
		return false
	}
	for _, s := range append([]span{p.sealed}, p.filled...) {
		if !p.inSpan(ctx, s, module, yield) {
			return false
		}
	}
	if len(p.words) == percpu {
		return true
	}
	// Up to 6.14 variables of each processor are linked at zero.
	var offset uint64
	if p.words[percpu].Addr >= image.LinkText {
		offset = p.offset
	}
	for cpu, area := range p.s.CPUAreas {
		if !p.moved(ctx, p.words[percpu:], offset+uint64(area), cpu, nil, yield) {
			return false
		}
	}
	return true
}

// moved is Moved for words that lie by offset above where they are linked.
func (p *Pointers) moved(ctx context.Context, words []image.CodePointer, offset uint64, cpu int, module func(virt.Addr) bool, yield func(Pointer, error) bool) bool {
	for i := 0; i < len(words) && ctx.Err() == nil; {
		// Whole pages are read, one after the other: a look keeps what is read of parts.
		first := (words[i].Addr + offset) &^ (phys.PageSize - 1)
		j, end := i, first+phys.PageSize
		for ; j < len(words); j++ {
			if at := words[j].Addr + offset; at >= end {
				if at-end >= phys.PageSize || end-first >= maxRead {
					break
				}
				end += phys.PageSize
			}
		}
		b, err := p.read(first, end)
		if err != nil {
			if !yield(Pointer{}, err) {
				return false
			}
			i = j
			continue
		}
		for at := first; at < end; at += 8 {
			got, linked := binary.LittleEndian.Uint64(b[at-first:]), at-offset
			for i < j && words[i].Addr < linked {
				i++ // of an image, or a processor's area, that was made up
			}
			built := i < j && words[i].Addr == linked
			var want uint64
			switch {
			case built:
				if want = words[i].Target + p.offset; got == want || p.inText(got) && !p.exchanged(linked, got, cpu) {
					i++
					continue
				}
				i++
			case module == nil || got>>32 != modules || !module(virt.Addr(got)) || p.isSealed(linked) || !p.beside(words, i, linked):
				continue
			}
			d := p.describe(linked, virt.Addr(at), virt.Addr(want), virt.Addr(got), cpu)
			d.Beside, d.Exchanged = !built, built && p.inText(got)
			if !yield(d, nil) {
				return false
			}
		}
		i = j
	}
	return true
}

// modules is the upper half of addresses in modules: they lie in the last 2 GiB.
const modules = 0xffff_ffff

// beside reports whether a word is part of a variable that has words which were built to lead to text: the words around
// place i of them, in whose order it would be there, tell.
func (p *Pointers) beside(words []image.CodePointer, i int, linked uint64) bool {
	if !p.named {
		return false
	}
	name, off, ok := p.symbol(linked)
	if !ok || name == hotplug || name == "init_task" {
		return false
	}
	start := linked - uint64(off)
	for _, k := range []int{i - 1, i} {
		if k < 0 || k >= len(words) {
			continue
		}
		if _, off, ok := p.symbol(words[k].Addr); ok && words[k].Addr-uint64(off) == start {
			return true
		}
	}
	return false
}

// hotplug are the callbacks of processor hotplug: those that modules register stand beside the kernel's own.
const hotplug = "cpuhp_hp_states"

// inSpan is Moved for a stretch that the kernel alone fills in.
func (p *Pointers) inSpan(ctx context.Context, s span, module func(virt.Addr) bool, yield func(Pointer, error) bool) bool {
	for at := s.start; at < s.end && ctx.Err() == nil; {
		first := (at + p.offset) &^ (phys.PageSize - 1)
		end := min((s.end+p.offset+phys.PageSize-1)&^(phys.PageSize-1), first+maxRead)
		b, err := p.read(first, end)
		if err != nil {
			if !yield(Pointer{}, err) {
				return false
			}
			at = end - p.offset
			continue
		}
		for ; at < s.end && at+p.offset < end; at += 8 {
			got := virt.Addr(binary.LittleEndian.Uint64(b[at+p.offset-first:]))
			if got>>32 != modules || !module(got) || p.built(at) {
				continue
			}
			d := p.describe(at, virt.Addr(at+p.offset), 0, got, -1)
			if d.Symbol == "execmem_info" || d.Symbol == "default_execmem_info" {
				continue // where modules begin, and so perhaps the function of one (6.10)
			}
			if !yield(d, nil) {
				return false
			}
		}
	}
	return true
}

// built reports whether a word was built to lead to text.
func (p *Pointers) built(linked uint64) bool {
	_, found := slices.BinarySearchFunc(p.words, linked, func(w image.CodePointer, linked uint64) int {
		if w.Percpu {
			return 1
		}
		return cmp.Compare(w.Addr, linked)
	})
	return found
}

// read reads whole pages. What it returns is valid until the next call.
func (p *Pointers) read(first, end uint64) ([]byte, error) {
	if p.buffer == nil {
		p.buffer = make([]byte, maxRead)
	}
	b := p.buffer[:end-first]
	if _, err := p.s.Space.ReadAt(b, virt.Addr(first)); err != nil {
		return nil, fmt.Errorf("data of the kernel at %#x: %w", first, err)
	}
	return b, nil
}

// inText reports whether an address is in the kernel's text.
func (p *Pointers) inText(a uint64) bool { return a-p.offset-p.ref.start < p.ref.end-p.ref.start }

func (p *Pointers) isSealed(linked uint64) bool {
	return linked >= p.sealed.start && linked < p.sealed.end
}

func (p *Pointers) describe(linked uint64, at, want, got virt.Addr, cpu int) Pointer {
	d := Pointer{Addr: at, Want: want, Got: got, CPU: cpu, Sealed: cpu < 0 && p.isSealed(linked)}
	if cpu < 0 {
		d.Symbol, d.Offset, _ = p.symbol(linked)
	}
	return d
}
