package check

import (
	"context"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/mm"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Classic BPF programs, as filters of sockets and of seccomp are, are on no list of the kernel's. What a struct bpf_prog says of its
// code is believed only as far as the compiler's own notes agree: the header in front of the code says how large it is, and since 5.18
// (57631054fae6) the allocator has a bit for each piece of its large areas that it has given away.

// jitLayout is where the members lie.
type jitLayout struct {
	function, length, aux, program kobj.Field // of bpf_prog, bpf_prog_aux
	size, pages                    kobj.Field // of bpf_binary_header: since 5.18, and before
	pack, bitmap                   kobj.Field // of bpf_prog_pack
}

const (
	packPiece = 64       // BPF_PROG_CHUNK_SIZE
	maxPacks  = 1 << 12  // of 2 MiB for each NUMA node
	maxPack   = 64 << 20 // what is read of one
	// maxPrefix is how far a program may begin behind its compiled image: CONFIG_FINEIBT puts a hash in front of it (cfi_get_offset).
	maxPrefix = 16
)

// maxProgram is how much code one program may become, in bytes.
const maxProgram = 64 << 20

// jit is what the compiler of BPF programs notes.
type jit struct {
	*jitLayout
	r     kobj.Reader
	packs []run // areas that are given away in pieces
	bits  map[virt.Addr]virt.Addr
}

// classicPrograms is the code of BPF programs that the kernel keeps no list of. The program itself is in an area of vmalloc that was made
// for it.
func (s *Subject) classicPrograms(ctx context.Context, owners *linux.Owners) (code []run) {
	o, err := kobj.LayoutOf(s.Linux.Walker, "code of classic BPF programs", func(r *kobj.Resolver, o *jitLayout) {
		o.function, o.length, o.aux = r.Field("bpf_prog", "bpf_func"), r.Field("bpf_prog", "jited_len"), r.Field("bpf_prog", "aux")
		o.program = r.Field("bpf_prog_aux", "prog")
		o.size, o.pages = r.Optional("bpf_binary_header", "size"), r.Optional("bpf_binary_header", "pages")
		o.pack, o.bitmap = r.Optional("bpf_prog_pack", "ptr"), r.Optional("bpf_prog_pack", "bitmap")
	})
	if err != nil {
		return nil
	}
	j := &jit{jitLayout: o, r: s.Linux.Reader()}
	areas := map[virt.Addr]virt.Addr{} // their ends
	var programs []virt.Addr
	for area, err := range mm.VMAreas(ctx, s.Linux) {
		if err != nil {
			continue // who owns code reports it
		}
		areas[area.Start] = area.End
		if strings.HasPrefix(owners.CodeAt(area.Caller).Symbol, "bpf_prog_") {
			programs = append(programs, area.Start)
		}
	}
	if head, ok := s.Linux.Address("pack_list"); ok && o.pack.Present() && o.bitmap.Present() {
		for node, err := range s.Linux.List(ctx, head, maxPacks) {
			if err != nil {
				j.packs = nil // it is just being changed: the headers alone are compared
				break
			}
			j.add(node, areas)
		}
	}
	for _, p := range programs {
		if r := j.codeOf(p); r.end > r.start {
			code = append(code, r)
		}
	}
	return code
}

// add takes in an area that is given away in pieces: the list_head is the first member.
func (j *jit) add(pack virt.Addr, areas map[virt.Addr]virt.Addr) {
	j.r.Err = nil
	start := j.r.Pointer(pack, j.pack)
	end := min(areas[start], start+maxPack)
	if j.r.Err != nil || end <= start {
		return
	}
	if j.bits == nil {
		j.bits = map[virt.Addr]virt.Addr{}
	}
	j.packs, j.bits[start] = append(j.packs, run{start: start, end: end}), j.bitmap.At(pack)
}

// codeOf is the code of the program at p; empty if it has none, or what the program says does not agree with what the compiler noted.
func (j *jit) codeOf(p virt.Addr) run {
	r := &j.r
	r.Err = nil
	start, n := r.Pointer(p, j.function), r.Uint(p, j.length)
	aux := r.Pointer(p, j.aux)
	if n == 0 || n > maxProgram || r.Pointer(aux, j.program) != p || r.Err != nil {
		return run{}
	}
	for _, prefix := range []virt.Addr{0, maxPrefix} {
		if j.compiled(start-prefix, start+virt.Addr(n)) {
			return run{start: start, end: start + virt.Addr(n)}
		}
	}
	return run{}
}

// compiled reports whether the header in front of an image is that of one so large.
func (j *jit) compiled(image, end virt.Addr) bool {
	r := &j.r
	r.Err = nil
	var size virt.Addr
	unit := virt.Addr(packPiece)
	if j.size.Present() {
		size = virt.Addr(r.Uint(image&^(unit-1), j.size))
	} else {
		unit = phys.PageSize
		size = virt.Addr(r.Uint(image&^(unit-1), j.pages)) * unit
	}
	header := image &^ (unit - 1)
	// What does not fill it, and where in that the code begins is left to chance: at least 128 bytes in whole pages (bpf_jit_binary_alloc).
	const slack = 144
	if r.Err != nil || size == 0 || size%unit != 0 || end > header+size || header+size-end >= unit+slack {
		return false
	}
	return len(j.packs) == 0 || j.given(header, header+size)
}

// given reports whether the allocator has given all of this away.
func (j *jit) given(from, to virt.Addr) bool {
	for _, p := range j.packs {
		if from < p.start || to > p.end {
			continue
		}
		for a := from; a < to; a += packPiece {
			n := (a - p.start) / packPiece
			if j.r.U64(j.bits[p.start]+n/64*8)>>(n%64)&1 == 0 || j.r.Err != nil {
				return false
			}
		}
		return true
	}
	return false
}
