// Package bpf is the BPF of a Linux guest: programs, maps and links, where programs are
// attached, and who holds them.
package bpf

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Program is a loaded BPF program.
type Program struct {
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

// programLayout is struct bpf_prog and what it leads to.
type programLayout struct {
	typ, expected, length, jitedLen, tag, aux, function, insns, jited, gpl   kobj.Field
	sleepable, stats, auxStats                                               kobj.Field
	refs, usedMaps, usedCount, id, funcCount, funcs, user, loaded, name, btf kobj.Field
	verified, target, auxSleepable, ksymName                                 kobj.Field
	userUID, btfID, mapID, cnt, nsecs, misses                                kobj.Field
}

func programLayoutOf(s *linux.System) (*programLayout, error) {
	return kobj.LayoutOf(s.Walker, "BPF programs", func(r *kobj.Resolver, o *programLayout) {
		const p, a = "bpf_prog", "bpf_prog_aux"
		r.Prefetch("prog_idr")
		o.typ, o.expected, o.length = r.Field(p, "type"), r.Field(p, "expected_attach_type"), r.Field(p, "len")
		o.jitedLen, o.tag, o.aux = r.Field(p, "jited_len"), r.Field(p, "tag"), r.Field(p, "aux")
		o.function, o.insns = r.Field(p, "bpf_func"), r.Field(p, "insnsi")
		o.jited, o.gpl = r.Field(p, "jited"), r.Field(p, "gpl_compatible")
		o.sleepable, o.auxSleepable = r.Optional(p, "sleepable"), r.Optional(a, "sleepable") // moved in 6.8
		o.stats, o.auxStats = r.Optional(p, "stats"), r.Optional(a, "stats")                 // moved in 5.12
		o.refs, o.usedMaps, o.usedCount = r.Field(a, "refcnt"), r.Field(a, "used_maps"), r.Field(a, "used_map_cnt")
		o.id, o.funcCount, o.funcs = r.Field(a, "id"), r.Field(a, "func_cnt"), r.Field(a, "func")
		o.user, o.loaded, o.name = r.Field(a, "user"), r.Field(a, "load_time"), r.Field(a, "name")
		o.btf, o.btfID = r.Optional(a, "btf"), r.Optional("btf", "id")
		o.verified = r.Optional(a, "verified_insns") // 5.16
		o.target, o.ksymName = r.Optional(a, "attach_func_name"), r.Optional(a, "ksym.name")
		o.userUID, o.mapID = r.Field("user_struct", "uid"), r.Field("bpf_map", "id")
		o.cnt, o.nsecs = r.Optional("bpf_prog_stats", "cnt"), r.Optional("bpf_prog_stats", "nsecs")
		o.misses = r.Optional("bpf_prog_stats", "misses") // 5.12
	})
}

const (
	maxObjects = 1 << 17 // of a kind
	maxMaps    = 64      // MAX_USED_MAPS
	maxFuncs   = 1024    // about BPF_MAX_SUBPROGS
	maxInsns   = 1 << 20 // BPF_COMPLEXITY_LIMIT_INSNS
	maxErrs    = 1000    // that are kept
)

// objects walks one of the kernel's tables of BPF objects by identifier.
func objects(ctx context.Context, s *linux.System, table string) iter.Seq2[kobj.XArrayEntry, error] {
	return func(yield func(kobj.XArrayEntry, error) bool) {
		idr, err := s.SymbolAddr(table)
		if err != nil {
			if s.NamesVariables() {
				err = fmt.Errorf("%w (built without CONFIG_BPF_SYSCALL?)", err)
			}
			yield(kobj.XArrayEntry{}, fmt.Errorf("%w: %w", kobj.ErrUnsupported, err))
			return
		}
		for e, err := range s.IDR(ctx, idr, maxObjects) {
			if err != nil {
				err = fmt.Errorf("%s: %w", table, err)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// Programs yields the loaded BPF programs in order of identifier: those that
// bpf(2) lists. Classic filters of sockets and seccomp are not among them.
func Programs(ctx context.Context, s *linux.System) iter.Seq2[*Program, error] {
	return func(yield func(*Program, error) bool) {
		o, err := programLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		r := s.Reader()
		for e, err := range objects(ctx, s, "prog_idr") {
			var p *Program
			if err == nil {
				p, err = o.read(s, &r, e.Value)
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

func (o *programLayout) read(s *linux.System, r *kobj.Reader, a virt.Addr) (_ *Program, err error) {
	r.Err = nil
	aux := r.Pointer(a, o.aux)
	p := &Program{Addr: a, ID: uint32(r.Uint(aux, o.id))}
	kind, expected := r.Uint(a, o.typ), r.Uint(a, o.expected)
	p.Type = kobj.EnumName(programTypes[:], kind)
	const cgroupSKB = 8 // the only type for which attach type 0 means something
	if expected != 0 || kind == cgroupSKB {
		p.AttachType = kobj.EnumName(attachTypes[:], expected)
	}
	p.Name = kobj.CString(r.Bytes(o.name.At(aux), int(min(o.name.Size, 64))))
	p.Tag = hex.EncodeToString(r.Bytes(o.tag.At(a), int(min(o.tag.Size, 8))))
	if o.ksymName.Present() {
		p.Function = r.CString(o.ksymName.At(aux), 128)
	}
	if r.Err != nil {
		return nil, fmt.Errorf("BPF program at %#x: %w", uint64(a), r.Err)
	}
	if name := r.Pointer(aux, o.target); name != 0 {
		p.Target = r.CString(name, 256)
	}
	p.SinceBoot = time.Duration(r.Uint(aux, o.loaded))
	p.Loaded = s.WallClock(p.SinceBoot)
	if user := r.Pointer(aux, o.user); user != 0 {
		p.UID = uint32(r.Uint(user, o.userUID))
	}
	if b := r.Pointer(aux, o.btf); b != 0 {
		p.BTF = uint32(r.Uint(b, o.btfID))
	}
	p.Sleepable = r.Uint(a, o.sleepable)|r.Uint(aux, o.auxSleepable) != 0
	p.GPL = r.Uint(a, o.gpl) != 0
	p.Insns, p.Verified = uint32(r.Uint(a, o.length)), uint32(r.Uint(aux, o.verified))
	p.Refs = r.Int(aux, o.refs)
	if r.Uint(a, o.jited) != 0 {
		p.JITAddr = r.Pointer(a, o.function)
		p.JITSize = uint32(r.Uint(a, o.jitedLen))
	}
	o.functions(r, aux, p)
	o.maps(r, aux, p)
	o.runs(s, r, a, aux, p)
	if r.Err != nil {
		return p, fmt.Errorf("BPF program %d at %#x: %w", p.ID, uint64(a), r.Err)
	}
	return p, nil
}

// functions counts the functions of p. Each of several is compiled by itself, and
// the first is the program.
func (o *programLayout) functions(r *kobj.Reader, aux virt.Addr, p *Program) {
	n, list := min(r.Uint(aux, o.funcCount), maxFuncs), r.Pointer(aux, o.funcs)
	p.Functions = uint32(max(n, 1))
	if p.JITAddr == 0 || list == 0 {
		return
	}
	sum := uint32(0)
	for i := range n {
		sum += uint32(r.Uint(r.Ptr(list+virt.Addr(8*i)), o.jitedLen))
	}
	if n > 0 {
		p.JITSize = sum
	}
}

func (o *programLayout) maps(r *kobj.Reader, aux virt.Addr, p *Program) {
	n, list := min(r.Uint(aux, o.usedCount), maxMaps), r.Pointer(aux, o.usedMaps)
	for i := range n {
		id := r.Uint(r.Ptr(list+virt.Addr(8*i)), o.mapID)
		if r.Err != nil {
			return
		}
		p.Maps = append(p.Maps, uint32(id))
	}
}

// runs sums what each processor counted.
func (o *programLayout) runs(s *linux.System, r *kobj.Reader, a, aux virt.Addr, p *Program) {
	stats := r.Pointer(a, o.stats) + r.Pointer(aux, o.auxStats) // one of them is absent
	if stats == 0 || !o.cnt.Present() {
		return
	}
	for _, cpu := range s.CPUAreas {
		p.Runs += r.Uint(stats+cpu, o.cnt)
		p.RunTime += time.Duration(r.Uint(stats+cpu, o.nsecs))
		p.Missed += r.Uint(stats+cpu, o.misses)
	}
}

// Instructions reads p's instructions as the verifier left them, 8 bytes each:
// calls and map references hold the kernel's own addresses.
func Instructions(s *linux.System, p *Program) (_ []byte, err error) {
	o, err := programLayoutOf(s)
	if err != nil {
		return nil, err
	}
	if p.Insns > maxInsns {
		return nil, fmt.Errorf("BPF program %d: %w: %d instructions", p.ID, kobj.ErrBroken, p.Insns)
	}
	b := make([]byte, 8*p.Insns)
	if _, err = s.Space.ReadAt(b, o.insns.At(p.Addr)); err != nil {
		return nil, fmt.Errorf("instructions of BPF program %d at %#x: %w", p.ID, uint64(p.Addr), err)
	}
	return b, nil
}
