package linux

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"runtime/debug"
	"time"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// BPFProgram is a loaded BPF program.
type BPFProgram struct {
	Addr       virt.Addr // of the struct bpf_prog
	ID         uint32
	Type       string // "kprobe", "cgroup_skb" …, as bpftool has them
	AttachType string // what it expects to be attached to; empty where its type has no choice
	Name       string // given by who loaded it, at most 15 bytes
	Tag        string // hash of its instructions, hex
	Function   string // its symbol in kallsyms
	// Target is the kernel function, or the function of another program, that it
	// was made for: fentry, fexit, LSM, extensions.
	Target    string
	SinceBoot time.Duration // from boot to its loading
	Loaded    time.Time
	UID       uint32 // who loaded it, in the initial user namespace
	BTF       uint32 // identifier of its type information; 0 without
	Sleepable bool
	GPL       bool
	JITAddr   virt.Addr // where its code lies; 0 if it is interpreted
	JITSize   uint32    // in bytes, its functions included
	Functions uint32    // it is made of, itself included
	Insns     uint32    // instructions, as the verifier left them
	Verified  uint32    // instructions that the verifier looked at; 0 before 5.16
	Maps      []uint32  // identifiers of the maps that it uses
	Refs      int64
	Runs      uint64 // counted while kernel.bpf_stats_enabled is on
	RunTime   time.Duration
	Missed    uint64 // runs left out because it was running already
}

// bpfProgLayout is struct bpf_prog and what it leads to.
type bpfProgLayout struct {
	typ, expected, length, jitedLen, tag, aux, function, insns, jited, gpl   Field
	sleepable, stats, auxStats                                               Field
	refs, usedMaps, usedCount, id, funcCount, funcs, user, loaded, name, btf Field
	verified, target, auxSleepable, ksymName                                 Field
	userUID, btfID, mapID, cnt, nsecs, misses                                Field
}

func (s *System) bpfProgLayout() (*bpfProgLayout, error) {
	return layoutOf(s.Walker, "BPF programs", func(r *resolver, o *bpfProgLayout) {
		const p, a = "bpf_prog", "bpf_prog_aux"
		r.symbols("prog_idr")
		o.typ, o.expected, o.length = r.field(p, "type"), r.field(p, "expected_attach_type"), r.field(p, "len")
		o.jitedLen, o.tag, o.aux = r.field(p, "jited_len"), r.field(p, "tag"), r.field(p, "aux")
		o.function, o.insns = r.field(p, "bpf_func"), r.field(p, "insnsi")
		o.jited, o.gpl = r.field(p, "jited"), r.field(p, "gpl_compatible")
		o.sleepable, o.auxSleepable = r.optional(p, "sleepable"), r.optional(a, "sleepable") // moved in 6.8
		o.stats, o.auxStats = r.optional(p, "stats"), r.optional(a, "stats")                 // moved in 5.12
		o.refs, o.usedMaps, o.usedCount = r.field(a, "refcnt"), r.field(a, "used_maps"), r.field(a, "used_map_cnt")
		o.id, o.funcCount, o.funcs = r.field(a, "id"), r.field(a, "func_cnt"), r.field(a, "func")
		o.user, o.loaded, o.name = r.field(a, "user"), r.field(a, "load_time"), r.field(a, "name")
		o.btf, o.btfID = r.optional(a, "btf"), r.optional("btf", "id")
		o.verified = r.optional(a, "verified_insns") // 5.16
		o.target, o.ksymName = r.optional(a, "attach_func_name"), r.optional(a, "ksym.name")
		o.userUID, o.mapID = r.field("user_struct", "uid"), r.field("bpf_map", "id")
		o.cnt, o.nsecs = r.optional("bpf_prog_stats", "cnt"), r.optional("bpf_prog_stats", "nsecs")
		o.misses = r.optional("bpf_prog_stats", "misses") // 5.12
	})
}

const (
	maxBPF       = 1 << 17 // objects of a kind
	maxBPFMaps   = 64      // MAX_USED_MAPS
	maxBPFFuncs  = 1024    // about BPF_MAX_SUBPROGS
	maxBPFInsns  = 1 << 20 // BPF_COMPLEXITY_LIMIT_INSNS
	maxBPFMemory = 64 << 20
)

// bpfIDs walks one of the kernel's tables of BPF objects by identifier.
func (s *System) bpfIDs(ctx context.Context, table string) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		idr, err := s.symbol(table)
		if err != nil {
			yield(entry{}, fmt.Errorf("%w: %w (built without CONFIG_BPF_SYSCALL?)", ErrUnsupported, err))
			return
		}
		// struct idr begins with its tree.
		for e, err := range s.xarray(ctx, idr, maxBPF) {
			if err != nil {
				err = fmt.Errorf("%s: %w", table, err)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// BPFPrograms yields the loaded BPF programs in order of identifier: those that
// bpf(2) lists. Classic filters of sockets and seccomp are not among them.
func (s *System) BPFPrograms(ctx context.Context) iter.Seq2[*BPFProgram, error] {
	return func(yield func(*BPFProgram, error) bool) {
		o, err := s.bpfProgLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		r := s.reader()
		for e, err := range s.bpfIDs(ctx, "prog_idr") {
			var p *BPFProgram
			if err == nil {
				p, err = o.read(s, &r, e.value)
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

func (o *bpfProgLayout) read(s *System, r *reader, a virt.Addr) (_ *BPFProgram, err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	r.err = nil
	aux := r.pointer(a, o.aux)
	p := &BPFProgram{Addr: a, ID: uint32(r.num(aux, o.id))}
	kind, expected := r.num(a, o.typ), r.num(a, o.expected)
	p.Type = bpfName(bpfProgTypes[:], kind)
	const cgroupSKB = 8 // the only type for which attach type 0 means something
	if expected != 0 || kind == cgroupSKB {
		p.AttachType = bpfName(bpfAttachTypes[:], expected)
	}
	p.Name = cString(r.bytes(at(aux, o.name), int(min(o.name.Size, 64))))
	p.Tag = hex.EncodeToString(r.bytes(at(a, o.tag), int(min(o.tag.Size, 8))))
	if has(o.ksymName) {
		p.Function = r.cString(at(aux, o.ksymName), 128)
	}
	if r.err != nil {
		return nil, fmt.Errorf("BPF program at %#x: %w", uint64(a), r.err)
	}
	if name := r.pointer(aux, o.target); name != 0 {
		p.Target = r.cString(name, 256)
	}
	p.SinceBoot = time.Duration(r.num(aux, o.loaded))
	p.Loaded = s.started(uint64(p.SinceBoot))
	if user := r.pointer(aux, o.user); user != 0 {
		p.UID = uint32(r.num(user, o.userUID))
	}
	if b := r.pointer(aux, o.btf); b != 0 {
		p.BTF = uint32(r.num(b, o.btfID))
	}
	p.Sleepable = r.num(a, o.sleepable)|r.num(aux, o.auxSleepable) != 0
	p.GPL = r.num(a, o.gpl) != 0
	p.Insns, p.Verified = uint32(r.num(a, o.length)), uint32(r.num(aux, o.verified))
	p.Refs = r.signed(aux, o.refs)
	if r.num(a, o.jited) != 0 {
		p.JITAddr = r.pointer(a, o.function)
		p.JITSize = uint32(r.num(a, o.jitedLen))
	}
	o.functions(r, aux, p)
	o.maps(r, aux, p)
	o.runs(s, r, a, aux, p)
	if r.err != nil {
		return p, fmt.Errorf("BPF program %d at %#x: %w", p.ID, uint64(a), r.err)
	}
	return p, nil
}

// functions counts the functions of p. Each of several is compiled by itself, and
// the first is the program.
func (o *bpfProgLayout) functions(r *reader, aux virt.Addr, p *BPFProgram) {
	n, list := min(r.num(aux, o.funcCount), maxBPFFuncs), r.pointer(aux, o.funcs)
	p.Functions = uint32(max(n, 1))
	if p.JITAddr == 0 || list == 0 {
		return
	}
	sum := uint32(0)
	for i := range n {
		sum += uint32(r.num(r.ptr(list+virt.Addr(8*i)), o.jitedLen))
	}
	if n > 0 {
		p.JITSize = sum
	}
}

func (o *bpfProgLayout) maps(r *reader, aux virt.Addr, p *BPFProgram) {
	n, list := min(r.num(aux, o.usedCount), maxBPFMaps), r.pointer(aux, o.usedMaps)
	for i := range n {
		id := r.num(r.ptr(list+virt.Addr(8*i)), o.mapID)
		if r.err != nil {
			return
		}
		p.Maps = append(p.Maps, uint32(id))
	}
}

// runs sums what each processor counted.
func (o *bpfProgLayout) runs(s *System, r *reader, a, aux virt.Addr, p *BPFProgram) {
	stats := r.pointer(a, o.stats) + r.pointer(aux, o.auxStats) // one of them is absent
	if stats == 0 || !has(o.cnt) {
		return
	}
	for _, cpu := range s.cpus {
		p.Runs += r.num(stats+cpu, o.cnt)
		p.RunTime += time.Duration(r.num(stats+cpu, o.nsecs))
		p.Missed += r.num(stats+cpu, o.misses)
	}
}

// Instructions reads p's instructions as the verifier left them, 8 bytes each:
// calls and map references hold the kernel's own addresses.
func (s *System) Instructions(p *BPFProgram) (_ []byte, err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	o, err := s.bpfProgLayout()
	if err != nil {
		return nil, err
	}
	if p.Insns > maxBPFInsns {
		return nil, fmt.Errorf("BPF program %d: %w: %d instructions", p.ID, ErrBroken, p.Insns)
	}
	b := make([]byte, 8*p.Insns)
	if _, err = s.Space.ReadAt(b, at(p.Addr, o.insns)); err != nil {
		return nil, fmt.Errorf("instructions of BPF program %d at %#x: %w", p.ID, uint64(p.Addr), err)
	}
	return b, nil
}
