package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "bpf", Group: table.Machinery,
		Doc: `Show the BPF programs of a guest.

The programs are those in the kernel's table of identifiers, which bpf(2) and bpftool
read, with where each is attached and who holds it. Attachments are read from the
links and, whether there is a link or not, from control groups, network interfaces
(XDP, tcx) and perf events. Attachments to sockets, to maps of programs and by
filters of traffic control are not shown, nor are classic filters (tcpdump, seccomp).
A program that was taken out of the table is not shown. Descriptors in flight over a
socket are not found.`,
		Columns: bpfColumns,
		Rows:    bpfRows,
		Of:      heldBy,
		Example: "lab:demo",
	}))
}

var bpfColumns = []table.Column{
	{Name: "id", Type: table.Uint, Doc: "Identifier."},
	{Name: "type", Type: table.Text, Doc: "Type of program: kprobe, xdp, cgroup_skb and so on, as bpftool has it."},
	{Name: "name", Type: table.Text, Doc: "Name, at most 15 bytes that who loaded it chose; missing without one."},
	{Name: "tag", Type: table.Text, Doc: "Hash of its instructions, as the kernel made it when it was loaded."},
	{Name: "attach_type", Type: table.Text, Extra: true, Doc: "What it was loaded to be attached to; missing where the type leaves no choice."},
	{Name: "attached", Type: table.List, Doc: "Where it runs: kind and target of each place; empty if none is known."},
	{Name: "target", Type: table.Text, Extra: true, Doc: "Function that it was loaded for (fentry, fexit, LSM, extension); missing for others."},
	{Name: "loaded", Type: table.Time, Doc: "When it was loaded, by the guest's clock."},
	{Name: "since_boot", Type: table.Duration, Extra: true, Doc: "The same, counted from the boot of the guest."},
	{Name: "uid", Type: table.Uint, Doc: "User who loaded it, as numbered in the initial user namespace."},
	{Name: "btf_id", Type: table.Uint, Extra: true, Doc: "Identifier of its type information; missing without."},
	{Name: "gpl", Type: table.Bool, Extra: true, Doc: "Whether it says that its licence is compatible with the GPL."},
	{Name: "sleepable", Type: table.Bool, Extra: true, Doc: "Whether it may sleep."},
	{Name: "jited", Type: table.Bool, Extra: true, Doc: "Whether it was compiled to machine code."},
	{Name: "jited_size", Type: table.Size, Extra: true, Doc: "Size of its machine code in bytes, all functions; missing if interpreted."},
	{Name: "insns", Type: table.Uint, Doc: "Number of instructions, as the verifier left them."},
	{Name: "verified_insns", Type: table.Uint, Extra: true, Doc: "Instructions that the verifier looked at; missing before 5.16."},
	{Name: "functions", Type: table.Uint, Extra: true, Doc: "Functions that it consists of."},
	{Name: "maps", Type: table.Numbers, Doc: "Identifiers of the maps that it uses."},
	{Name: "refs", Type: table.Int, Extra: true, Doc: "Number of references to it."},
	{Name: "run_count", Type: table.Uint, Extra: true, Doc: "How often it ran while kernel.bpf_stats_enabled was on."},
	{Name: "run_time", Type: table.Duration, Extra: true, Doc: "How long those runs took."},
	{Name: "missed", Type: table.Uint, Extra: true, Doc: "Runs left out because it was running already on that processor."},
	{Name: "holders", Type: table.List, Doc: "File descriptors of it: process/descriptor."},
	{Name: "pinned", Type: table.List, Doc: "Paths under which it is pinned in a BPF file system."},
	{Name: "instructions", Type: table.List, Extra: true, Doc: "Its instructions in the verifier's notation; with --instructions only."},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct bpf_prog."},
	{Name: "code", Type: table.Addr, Extra: true, Doc: "Address of its machine code; missing if interpreted."},
	{Name: "code_symbol", Type: table.Text, Extra: true, Doc: "Function at that address, with the distance from its start; missing where no symbol covers it."},
	{Name: "code_owner", Type: table.Text, Extra: true, Doc: "Whose code that is; anything but a program's is a program redirected."},
	{Name: "with_instructions", Type: table.Bool, Option: true, Doc: "Disassemble each program."},
}

func bpfRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	disassemble := where.Option("with_instructions")
	wanted, some := where.Values("id")
	return func(yield func(table.Row, error) bool) {
		s := g.Linux
		var rest *bpfSurroundings
		for p, err := range s.BPFPrograms(ctx) {
			if p == nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if some && !anyUint(wanted, uint64(p.ID)) {
				continue
			}
			if rest == nil { // a guest without programs is not searched
				var ok bool
				if rest, ok = lookAroundBPF(ctx, s, yield); !ok {
					return
				}
			}
			row := rest.row(p)
			if disassemble {
				code, codeErr := s.Instructions(p)
				if codeErr != nil {
					row[table.ColumnIndex(bpfColumns, "instructions")] = unreadable(codeErr)
					if err == nil {
						err = codeErr
					}
				} else {
					row[table.ColumnIndex(bpfColumns, "instructions")] = table.ListValue(linux.DisassembleBPF(code, rest.symbol))
				}
			}
			if !yield(row, err) {
				return
			}
		}
	}
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
	owners   *linux.Owners // nil if unknown
	callBase virt.Addr
	attached map[virt.Addr][]string
	holders  *linux.BPFHolders // nil if unknown
}

// lookAroundBPF collects them; what cannot be read is yielded as errors. It reports
// whether more is wanted.
func lookAroundBPF(ctx context.Context, s *linux.System, yield func(table.Row, error) bool) (*bpfSurroundings, bool) {
	b := &bpfSurroundings{attached: map[virt.Addr][]string{}}
	var err error
	if b.owners, err = s.Owners(); err != nil && !yield(nil, err) {
		return nil, false
	}
	b.callBase, _ = s.Address("__bpf_call_base")
	if b.holders, err = s.BPFHolders(ctx); err != nil {
		if !yield(nil, err) {
			return nil, false
		}
	} else {
		for _, err := range b.holders.Errs {
			if !yield(nil, err) {
				return nil, false
			}
		}
	}
	add := func(p virt.Addr, place string) {
		for _, known := range b.attached[p] {
			if known == place {
				return
			}
		}
		b.attached[p] = append(b.attached[p], place)
	}
	for l, err := range s.BPFLinks(ctx) {
		if err != nil && !yield(nil, err) {
			return nil, false
		}
		if l != nil && l.Program != 0 {
			add(l.Program, bpfPlace(l))
		}
	}
	for a, err := range s.BPFAttachments(ctx) {
		if err != nil {
			if !yield(nil, err) {
				return nil, false
			}
			continue
		}
		add(a.Program, a.String())
	}
	return b, true
}

// bpfPlace names the place of a link as [linux.BPFAttachment] names its own.
func bpfPlace(l *linux.BPFLink) string {
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

// held fills the columns holders and pinned of the object at a.
func held(h *linux.BPFHolders, a virt.Addr) (holders, pinned table.Value) {
	if h == nil {
		return table.Missing(table.Unreadable), table.Missing(table.Unreadable)
	}
	list := make([]string, 0, len(h.Files[a]))
	for _, f := range h.Files[a] {
		list = append(list, f.String())
	}
	return table.ListValue(list), table.ListValue(append([]string{}, h.Pins[a]...))
}

func (b *bpfSurroundings) row(p *linux.BPFProgram) table.Row {
	loaded := table.Missing(table.Unreadable)
	if !p.Loaded.IsZero() {
		loaded = table.TimeValue(p.Loaded)
	}
	size, code, symbol, owner := table.Missing(table.None), address(p.JITAddr), table.Missing(table.None), table.Missing(table.None)
	if p.JITAddr != 0 {
		size = table.SizeValue(uint64(p.JITSize))
		if b.owners != nil {
			code, symbol, owner = function(b.owners, p.JITAddr)
		}
	}
	holders, pinned := held(b.holders, p.Addr)
	return table.Row{
		table.UintValue(uint64(p.ID)), table.TextValue(p.Type), text(p.Name), table.TextValue(p.Tag),
		text(p.AttachType), table.ListValue(append([]string{}, b.attached[p.Addr]...)), text(p.Target),
		loaded, table.DurationValue(p.SinceBoot), table.UintValue(uint64(p.UID)), positive(p.BTF),
		table.BoolValue(p.GPL), table.BoolValue(p.Sleepable), table.BoolValue(p.JITAddr != 0), size,
		table.UintValue(uint64(p.Insns)), positive(p.Verified), table.UintValue(uint64(p.Functions)),
		table.NumbersValue(p.Maps), table.IntValue(p.Refs),
		table.UintValue(p.Runs), table.DurationValue(p.RunTime), table.UintValue(p.Missed),
		holders, pinned, table.Missing(table.None), address(p.Addr), code, symbol, owner, table.Missing(table.None),
	}
}
