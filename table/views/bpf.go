package views

import (
	"context"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "bpf", Group: table.Internals,
		Doc: `Show the BPF programs of a guest.

The programs are those in the kernel's table of identifiers, which bpf(2) and bpftool
read, with where each is attached and who holds it. Attachments are read from the
links and, whether there is a link or not, from control groups, network interfaces
(XDP, tcx) and perf events. Attachments to sockets, to maps of programs and by
filters of traffic control are not shown, nor are classic filters (tcpdump, seccomp).
A program that was taken out of the table is not shown. Descriptors in flight over a
socket are not found.`,
		Source:  "prog_idr: struct bpf_prog, bpf_prog_aux; link_idr, cgroups, network devices and perf events for where it is attached",
		Key:     []string{"id"},
		Of:      heldBy,
		Example: "lab:demo",
	}, bpfColumns, bpfPrograms))
}

var bpfColumns = table.Columns[bpfProgram]{
	{Name: "id", Type: table.Uint, Doc: "Identifier.", Get: func(p *bpfProgram) table.Value { return unsigned(p.ID) }},
	{
		Name: "type", Type: table.Text, Doc: "Type of program: kprobe, xdp, cgroup_skb and so on, as bpftool has it.",
		Get: func(p *bpfProgram) table.Value { return table.TextValue(p.Type) },
	},
	{
		Name: "name", Type: table.Text, Doc: "Name, at most 15 bytes that who loaded it chose; missing without one.",
		Get: func(p *bpfProgram) table.Value { return text(p.Name) },
	},
	{
		Name: "tag", Type: table.Text, Doc: "Hash of its instructions, as the kernel made it when it was loaded.",
		Get: func(p *bpfProgram) table.Value { return table.TextValue(p.Tag) },
	},
	{
		Name: "attach_type", Type: table.Text, Extra: true, Doc: "What it was loaded to be attached to; missing where the type leaves no choice.",
		Get: func(p *bpfProgram) table.Value { return text(p.AttachType) },
	},
	{
		Name: "attached", Type: table.List, Doc: "Where it runs: kind and target of each place; empty if none is known.",
		Get: func(p *bpfProgram) table.Value {
			return table.ListValue(append([]string{}, p.around.attached[p.Addr]...))
		},
	},
	{
		Name: "target", Type: table.Text, Extra: true, Doc: "Function that it was loaded for (fentry, fexit, LSM, extension); missing for others.",
		Get: func(p *bpfProgram) table.Value { return text(p.Target) },
	},
	{Name: "loaded", Type: table.Time, Doc: "When it was loaded, by the guest's clock.", Get: func(p *bpfProgram) table.Value { return started(p.Loaded) }},
	{
		Name: "since_boot", Type: table.Duration, Extra: true, Doc: "The same, counted from the boot of the guest.",
		Get: func(p *bpfProgram) table.Value { return table.DurationValue(p.SinceBoot) },
	},
	{
		Name: "uid", Type: table.Uint, Doc: "User who loaded it, as numbered in the initial user namespace.",
		Get: func(p *bpfProgram) table.Value { return unsigned(p.UID) },
	},
	{
		Name: "btf_id", Type: table.Uint, Extra: true, Doc: "Identifier of its type information; missing without.",
		Get: func(p *bpfProgram) table.Value { return positive(p.BTF) },
	},
	{
		Name: "gpl", Type: table.Bool, Extra: true, Doc: "Whether it says that its licence is compatible with the GPL.",
		Get: func(p *bpfProgram) table.Value { return table.BoolValue(p.GPL) },
	},
	{
		Name: "sleepable", Type: table.Bool, Extra: true, Doc: "Whether it may sleep.",
		Get: func(p *bpfProgram) table.Value { return table.BoolValue(p.Sleepable) },
	},
	{
		Name: "jited", Type: table.Bool, Extra: true, Doc: "Whether it was compiled to machine code.",
		Get: func(p *bpfProgram) table.Value { return table.BoolValue(p.JITAddr != 0) },
	},
	{
		Name: "jited_size", Type: table.Size, Extra: true, Doc: "Size of its machine code in bytes, all functions; missing if interpreted.",
		Get: func(p *bpfProgram) table.Value { return when(p.JITAddr != 0, size(p.JITSize)) },
	},
	{
		Name: "insns", Type: table.Uint, Doc: "Number of instructions, as the verifier left them.",
		Get: func(p *bpfProgram) table.Value { return unsigned(p.Insns) },
	},
	{
		Name: "verified_insns", Type: table.Uint, Extra: true, Doc: "Instructions that the verifier looked at; missing before 5.16.",
		Get: func(p *bpfProgram) table.Value { return positive(p.Verified) },
	},
	{
		Name: "functions", Type: table.Uint, Extra: true, Doc: "Functions that it consists of.",
		Get: func(p *bpfProgram) table.Value { return unsigned(p.Functions) },
	},
	{
		Name: "maps", Type: table.Numbers, Doc: "Identifiers of the maps that it uses.",
		Get: func(p *bpfProgram) table.Value { return table.NumbersValue(p.Maps) },
	},
	{Name: "refs", Type: table.Int, Extra: true, Doc: "Number of references to it.", Get: func(p *bpfProgram) table.Value { return integer(p.Refs) }},
	{
		Name: "run_count", Type: table.Uint, Extra: true, Doc: "How often it ran while kernel.bpf_stats_enabled was on.",
		Get: func(p *bpfProgram) table.Value { return unsigned(p.Runs) },
	},
	{
		Name: "run_time", Type: table.Duration, Extra: true, Doc: "How long those runs took.",
		Get: func(p *bpfProgram) table.Value { return table.DurationValue(p.RunTime) },
	},
	{
		Name: "missed", Type: table.Uint, Extra: true, Doc: "Runs left out because it was running already on that CPU.",
		Get: func(p *bpfProgram) table.Value { return unsigned(p.Missed) },
	},
	{
		Name: "holders", Type: table.List, Doc: "File descriptors of it: process/descriptor.",
		Get: func(p *bpfProgram) table.Value { return p.around.holders.files(p.Addr) },
	},
	{
		Name: "pinned", Type: table.List, Doc: "Paths under which it is pinned in a BPF file system.",
		Get: func(p *bpfProgram) table.Value { return p.around.holders.pins(p.Addr) },
	},
	{
		Name: "instructions", Type: table.List, Extra: true, Doc: "Its instructions in the verifier's notation; with --instructions only.",
		Get: (*bpfProgram).instructions,
	},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct bpf_prog.", Get: func(p *bpfProgram) table.Value { return address(p.Addr) }},
	{
		Name: "code", Type: table.Addr, Extra: true, Doc: "Address of its machine code; missing if interpreted.",
		Get: func(p *bpfProgram) table.Value { return address(p.JITAddr) },
	},
	{
		Name: "code_symbol", Type: table.Text, Extra: true, Doc: "Function at that address, with the distance from its start; missing where no symbol covers it.",
		Get: func(p *bpfProgram) table.Value {
			if o := p.around.owners; o != nil && p.JITAddr != 0 {
				return text(o.CodeAt(p.JITAddr).Function())
			}
			return none
		},
	},
	{
		Name: "code_owner", Type: table.Text, Extra: true, Doc: "Owner of that code; anything but a program means that it was redirected.",
		Get: func(p *bpfProgram) table.Value {
			if o := p.around.owners; o != nil && p.JITAddr != 0 {
				return table.TextValue(o.CodeAt(p.JITAddr).String())
			}
			return none
		},
	},
	{Name: "with_instructions", Type: table.Bool, Option: true, Doc: "Disassemble each program."},
}

// anyUint reports whether n is among values.
func anyUint(values []table.Value, n uint64) bool {
	for _, v := range values {
		if v.Uint() == n {
			return true
		}
	}
	return false
}

// bpfSurroundings is what is known of programs beside themselves.
type bpfSurroundings struct {
	s           *linux.System
	owners      *linux.Owners // nil if unknown
	callBase    virt.Addr
	attached    map[virt.Addr][]string
	holders     *bpfHolders
	disassemble bool
}

// bpfPlace names the place of a link as [bpf.Attachment] names its own.
func bpfPlace(l *bpf.Link) string {
	kind := l.AttachType
	if kind == "" || l.Type == "perf_event" || l.Type == "raw_tracepoint" || l.Type == "xdp" {
		kind = l.Type
	}
	return kind + ":" + l.Target
}

// symbol names the kernel function at an offset from where helper calls count from.
func (b *bpfSurroundings) symbol(offset int32) string {
	if b.owners == nil || b.callBase == 0 {
		return ""
	}
	name, off, ok := b.owners.Symbol(b.callBase + virt.Addr(int64(offset)))
	if !ok || off != 0 {
		return ""
	}
	return name
}

// bpfProgram is a row of bpf.
type bpfProgram struct {
	*bpf.Program
	around *bpfSurroundings
	unread error
}

// Unread is part of [table.Partial].
func (p *bpfProgram) Unread() error { return p.unread }

func (p *bpfProgram) instructions() table.Value {
	if !p.around.disassemble {
		return none
	}
	code, err := bpf.Instructions(p.around.s, p.Program)
	if err != nil {
		p.unread = err
		return unreadable(err)
	}
	return table.ListValue(bpf.Disassemble(code, p.around.symbol))
}

func bpfPrograms(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*bpfProgram, error] {
	wanted, some := r.Values("id")
	return func(yield func(*bpfProgram, error) bool) {
		var around *bpfSurroundings
		for p, err := range bpf.Programs(ctx, l.Linux) {
			if p == nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if some && !anyUint(wanted, uint64(p.ID)) {
				continue
			}
			if around == nil { // a guest without programs is not searched
				var ok bool
				if around, ok = lookAroundBPF(ctx, l.Linux, r, func(err error) bool { return yield(nil, err) }); !ok {
					return
				}
			}
			if !yield(&bpfProgram{Program: p, around: around}, err) {
				return
			}
		}
	}
}

// lookAroundBPF reads what is wanted of them; failed gets what cannot be read. It reports
// whether more is wanted.
func lookAroundBPF(ctx context.Context, s *linux.System, r table.Request, failed func(error) bool) (*bpfSurroundings, bool) {
	b := &bpfSurroundings{s: s, attached: map[virt.Addr][]string{}, holders: newBPFHolders(ctx, s, r), disassemble: r.Option("with_instructions")}
	if b.disassemble || r.Wants("code_symbol", "code_owner") {
		var err error
		if b.owners, err = s.Owners(); err != nil && !failed(err) {
			return nil, false
		}
	}
	b.callBase, _ = s.Address("__bpf_call_base")
	if !b.holders.look(failed) {
		return nil, false
	}
	if !r.Wants("attached") {
		return b, true
	}
	for l, err := range bpf.Links(ctx, s) {
		if err != nil && !failed(err) {
			return nil, false
		}
		if l != nil && l.Program != 0 {
			b.attach(l.Program, bpfPlace(l))
		}
	}
	for a, err := range bpf.Attachments(ctx, s) {
		if err != nil {
			if !failed(err) {
				return nil, false
			}
			continue
		}
		b.attach(a.Program, a.String())
	}
	return b, true
}

// attach notes a place of a program, once.
func (b *bpfSurroundings) attach(p virt.Addr, place string) {
	if !slices.Contains(b.attached[p], place) {
		b.attached[p] = append(b.attached[p], place)
	}
}
