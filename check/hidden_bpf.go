package check

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/mm"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "hidden-bpf",
		Title:     "BPF programs that a list of the kernel leaves out",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source:    "prog_idr, bpf_kallsyms, bpf_tree, the vmalloc areas of struct bpf_prog, link_idr, control groups, network interfaces, perf events",
		Proves: `A BPF program is known to one part of the kernel and not to another that knows every program for as long as it is loaded. bpftool goes by the table of
identifiers, a fault in the program by the tree of symbols. Somebody took it out of one.`,
		Blind: `A program that filters what bpf(2) answers hides others without taking them off a list: "outsight bpf" shows both, and contradicted compares with what
bpftool said in the guest. Classic filters of sockets and of seccomp are on no list by design.`,
		Next: `Take the program's instructions out with "outsight bpf TARGET --columns" and its code with the command shown; "outsight bpf_links TARGET" and the attachments say what runs
it. What loaded it is in its time and user.`,
		Example: `A program on XDP was taken out of the table that bpftool goes by:

    $ outsight check lab:demo --only hidden-bpf
    SEVERITY  CONFIDENCE  CHECK       TITLE
    critical  certain     hidden-bpf  BPF program 1 on xdp:veth-x is missing from the table of identifiers (prog_idr)`,
		Quick: true,
		Kept:  true,
		Run:   hiddenBPF,
	})
}

// bpfLayout is where members of the structures lie that lead to programs.
type bpfLayout struct {
	typ, jited, aux                             kobj.Field // of bpf_prog
	id, refs, program, offloaded, bound, symbol kobj.Field // of bpf_prog_aux
	list, isProgram, treeNode, tree             kobj.Field // of bpf_ksym, latch_tree_root
}

// The ways to a program, as findings name them.
const (
	byIdentifier = "the table of identifiers (prog_idr)"
	bySymbol     = "the list of symbols (bpf_kallsyms)"
	byTree       = "the tree of addresses (bpf_tree)"
	byMemory     = "the areas of vmalloc"
	byLink       = "the links"
	byPlace      = "what runs programs"
)

// bpfWalk is one run of the check.
type bpfWalk struct {
	s    *Subject
	o    *bpfLayout
	r    kobj.Reader
	ways map[string]map[virt.Addr]bool // that this kernel has
	// partial are the ways that were not followed to their end.
	partial map[string]bool
	at      map[virt.Addr]string // what a program is attached to
}

func hiddenBPF(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		o, err := kobj.LayoutOf(s.Linux.Walker, "ways to BPF programs", func(r *kobj.Resolver, o *bpfLayout) {
			r.Prefetch("prog_idr", "bpf_kallsyms", "bpf_tree")
			const p, a, k = "bpf_prog", "bpf_prog_aux", "bpf_ksym"
			o.typ, o.jited, o.aux = r.Field(p, "type"), r.Field(p, "jited"), r.Field(p, "aux")
			o.id, o.refs, o.program = r.Field(a, "id"), r.Field(a, "refcnt"), r.Field(a, "prog")
			o.offloaded, o.bound = r.Optional(a, "offload_requested"), r.Optional(a, "dev_bound")
			o.symbol, o.list, o.isProgram = r.Optional(a, "ksym"), r.Optional(k, "lnode"), r.Optional(k, "prog") // 5.7
			o.treeNode, o.tree = r.Optional(k, "tnode"), r.Optional("latch_tree_root", "tree")
		})
		if err != nil {
			yield(nil, err)
			return
		}
		w := &bpfWalk{s: s, o: o, r: s.Linux.Reader(), ways: map[string]map[virt.Addr]bool{}, partial: map[string]bool{}, at: map[virt.Addr]string{}}
		for _, way := range []struct {
			name string
			read func(context.Context) error
		}{{byIdentifier, w.byIdentifier}, {bySymbol, w.bySymbol}, {byTree, w.byTree}, {byMemory, w.byMemory}, {byLink, w.byLink}, {byPlace, w.byPlace}} {
			if err := way.read(ctx); err != nil && !errors.Is(err, kobj.ErrUnsupported) {
				w.partial[way.name] = true // it cannot say that a program is missing
				if !yield(nil, err) {
					return
				}
			}
		}
		if w.ways[byIdentifier] == nil {
			return // built without CONFIG_BPF_SYSCALL
		}
		all := map[virt.Addr]bool{}
		for _, programs := range w.ways {
			maps.Copy(all, programs)
		}
		for _, p := range slices.Sorted(maps.Keys(all)) {
			found, err := w.judge(p)
			if (found != nil || err != nil) && !yield(found, err) {
				return
			}
		}
	}
}

// met notes that a way leads to a program.
func (w *bpfWalk) met(way string, p virt.Addr) {
	if w.ways[way] == nil {
		w.ways[way] = map[virt.Addr]bool{}
	}
	if p != 0 {
		w.ways[way][p] = true
	}
}

func (w *bpfWalk) byIdentifier(ctx context.Context) error {
	table, ok := w.s.Linux.Address("prog_idr")
	if !ok {
		return kobj.ErrUnsupported
	}
	w.met(byIdentifier, 0)
	for e, err := range w.s.Linux.IDR(ctx, table, kobj.MaxElements) {
		if err != nil {
			return fmt.Errorf("prog_idr: %w", err)
		}
		w.met(byIdentifier, e.Value)
	}
	return nil
}

// program is the program that a struct bpf_ksym is of; 0 for a trampoline and the like.
func (w *bpfWalk) program(symbol virt.Addr) virt.Addr {
	if w.r.Uint(symbol, w.o.isProgram) == 0 {
		return 0
	}
	return w.r.Pointer(symbol-w.o.symbol.At(0), w.o.program)
}

func (w *bpfWalk) bySymbol(ctx context.Context) error {
	head, ok := w.s.Linux.Address("bpf_kallsyms")
	if !ok || !w.o.symbol.Present() || !w.o.isProgram.Present() {
		return kobj.ErrUnsupported
	}
	w.met(bySymbol, 0)
	for node, err := range w.s.Linux.List(ctx, head, kobj.MaxElements) {
		if err != nil {
			return fmt.Errorf("bpf_kallsyms: %w", err)
		}
		w.r.Err = nil
		if w.met(bySymbol, w.program(node-w.o.list.At(0))); w.r.Err != nil {
			return fmt.Errorf("bpf_kallsyms: %w", w.r.Err)
		}
	}
	return nil
}

// byTree goes by one of the two trees that are kept in turn, so that one can be read at any
// time (include/linux/rbtree_latch.h). Symbols that are not programs are on it too.
func (w *bpfWalk) byTree(ctx context.Context) error {
	tree, ok := w.s.Linux.Address("bpf_tree")
	if !ok || !w.o.tree.Present() || !w.o.treeNode.Present() || !w.o.isProgram.Present() {
		return kobj.ErrUnsupported
	}
	w.met(byTree, 0)
	for node, err := range w.s.Linux.RBTree(ctx, w.o.tree.At(tree), kobj.MaxElements) {
		if err != nil {
			return fmt.Errorf("bpf_tree: %w", err)
		}
		w.r.Err = nil
		if w.met(byTree, w.program(node-w.o.treeNode.At(0))); w.r.Err != nil {
			return fmt.Errorf("bpf_tree: %w", w.r.Err)
		}
	}
	return nil
}

// byMemory goes by the areas that were allocated for programs.
func (w *bpfWalk) byMemory(ctx context.Context) error {
	owners, err := w.s.Owners()
	if err != nil {
		return err
	}
	w.met(byMemory, 0)
	for area, err := range mm.VMAreas(ctx, w.s.Linux) {
		if err != nil {
			return err
		}
		if !strings.HasPrefix(owners.CodeAt(area.Caller).Symbol, "bpf_prog_") && !w.ways[byIdentifier][area.Start] {
			continue
		}
		w.r.Err = nil
		if aux := w.r.Pointer(area.Start, w.o.aux); w.r.Err == nil && w.r.Pointer(aux, w.o.program) == area.Start {
			w.met(byMemory, area.Start)
		}
	}
	return nil
}

func (w *bpfWalk) byLink(ctx context.Context) error {
	for l, err := range bpf.Links(ctx, w.s.Linux) {
		if err != nil {
			return err
		}
		if w.met(byLink, l.Program); l.Program != 0 {
			w.at[l.Program] = l.Type + " " + l.Target
		}
	}
	return nil
}

func (w *bpfWalk) byPlace(ctx context.Context) error {
	for a, err := range bpf.Attachments(ctx, w.s.Linux) {
		if err != nil {
			return err
		}
		w.met(byPlace, a.Program)
		w.at[a.Program] = a.String()
	}
	return nil
}

// judge finds a program that is missing from where it belongs.
func (w *bpfWalk) judge(p virt.Addr) (*Finding, error) {
	o, r := w.o, &w.r
	r.Err = nil
	aux := r.Pointer(p, o.aux)
	typ, id, refs := r.Uint(p, o.typ), uint32(r.Uint(aux, o.id)), r.Int(aux, o.refs)
	offloaded := r.Uint(aux, o.offloaded)|r.Uint(aux, o.bound) != 0
	jited := r.Uint(p, o.jited) != 0
	if r.Err != nil {
		return nil, fmt.Errorf("BPF program at %#x: %w", uint64(p), r.Err)
	}
	const classic = 0 // BPF_PROG_TYPE_UNSPEC: a filter of a socket or of seccomp
	// Of the functions of a program, which are on the other lists, nobody holds a reference;
	// a program whose device is gone loses its identifier.
	if typ == classic || id == 0 && (refs == 0 || offloaded) {
		return nil, nil
	}
	must := []string{byIdentifier, byMemory}
	// Symbols are for programs that were compiled, of who may see them (bpf_prog_kallsyms_add):
	// one that never was on the list is linked to itself.
	if w.ways[bySymbol] != nil && jited {
		link := o.symbol.At(aux) + o.list.At(0)
		if next := r.Ptr(link); next != link && next != 0 || w.ways[byTree][p] {
			must = append(must, bySymbol)
			if w.ways[byTree] != nil {
				must = append(must, byTree)
			}
		}
	}
	if r.Err != nil {
		return nil, fmt.Errorf("BPF program at %#x: %w", uint64(p), r.Err)
	}
	// While the verifier looks at a program, which takes seconds for a large one, nothing but its memory
	// is there (bpf_prog_load): no identifier, no code, and nobody else holds it.
	young := id == 0 && refs == 1
	for _, way := range []string{byIdentifier, bySymbol, byTree, byLink, byPlace} {
		young = young && !w.ways[way][p]
	}
	if young && !jited {
		return nil, nil
	}
	var in, out []string
	for _, way := range []string{byIdentifier, byMemory, bySymbol, byTree, byLink, byPlace} {
		switch {
		case w.ways[way][p]:
			in = append(in, way)
		case slices.Contains(must, way) && w.ways[way] != nil && !w.partial[way]:
			out = append(out, way)
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	name := fmt.Sprintf("%d", id)
	if at := w.at[p]; at != "" {
		name += " on " + at
	}
	return &Finding{
		Confidence: Certain,
		Title:      fmt.Sprintf("BPF program %s is missing from %s", name, strings.Join(out, " and ")),
		Object:     Object{Kind: "BPF program", Name: name, Addr: p},
		Aspect:     strings.Join(out, " "),
		Busy:       young,
		Expected:   "in " + strings.Join(append(slices.Clone(in), out...), ", "),
		Seen:       "in " + strings.Join(in, ", ") + " alone",
		Evidence:   []Evidence{{Text: "its struct bpf_prog", Addr: p}, {Text: "its struct bpf_prog_aux", Addr: aux}},
		Basis:      "lists of the guest's kernel, compared with each other at one look",
		Show:       fmt.Sprintf("outsight struct {} bpf_prog %#x", uint64(p)),
	}, nil
}
