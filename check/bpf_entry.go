package check

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/mm"
)

// programEntry is how a struct bpf_prog leads to its code.
type programEntry struct{ function, aux, program kobj.Field }

// exchangedPrograms are findings about BPF programs, classic filters of sockets and of seccomp among them, that run something
// else: bpf_prog.bpf_func is where every caller goes. It leads to the program's own code, or to the interpreter.
func exchangedPrograms(ctx context.Context, s *Subject) (fs []*Finding, err error) {
	owners, err := s.Owners()
	if err != nil {
		return nil, err
	}
	o, err := kobj.LayoutOf(s.Linux.Walker, "code of BPF programs", func(r *kobj.Resolver, o *programEntry) {
		o.function, o.aux, o.program = r.Field("bpf_prog", "bpf_func"), r.Field("bpf_prog", "aux"), r.Field("bpf_prog_aux", "prog")
	})
	if err != nil {
		return nil, err
	}
	r := s.Linux.Reader()
	for area, err := range mm.VMAreas(ctx, s.Linux) {
		if err != nil || !strings.HasPrefix(owners.CodeAt(area.Caller).Symbol, "bpf_prog_") {
			continue // who owns code reports what cannot be read of these
		}
		r.Err = nil
		f, aux := r.Pointer(area.Start, o.function), r.Pointer(area.Start, o.aux)
		if f == 0 || r.Pointer(aux, o.program) != area.Start || r.Err != nil {
			continue // it is being made or freed
		}
		code := owners.CodeAt(f)
		switch {
		case code.Kind == linux.OwnerModule:
		case code.Kind == linux.OwnerKernel && !strings.Contains(code.Symbol, "bpf_prog_"): // ___bpf_prog_run, __bpf_prog_run32, __bpf_prog_ret0_warn …
		default:
			continue
		}
		who := describeOwner(owners, f)
		fs = append(fs, &Finding{
			Severity: Critical, Confidence: Certain,
			Title:    fmt.Sprintf("a BPF program at %s runs %s in place of its own code", area.Start, who),
			Object:   Object{Kind: "BPF program", Addr: area.Start},
			Aspect:   "bpf_func",
			Expected: "bpf_func leads to the program's own code, or to the interpreter",
			Seen:     fmt.Sprintf("%s (%#x)", who, uint64(f)),
			Evidence: []Evidence{
				{Text: "its bpf_func", Addr: o.function.At(area.Start), Bytes: binary.LittleEndian.AppendUint64(nil, uint64(f))},
				{Text: "what it leads to", Addr: f, Bytes: codeAt(s, uint64(f))},
			},
			Basis: "the memory of BPF programs in the kernel's list of vmalloc areas, and whose code lies where",
			Show:  fmt.Sprintf("outsight struct {} bpf_prog %#x", uint64(area.Start)),
		})
	}
	return fs, ctx.Err()
}
