package linux

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

const (
	// MaxModules bounds the list of modules; distributions build some 4000 in all.
	MaxModules    = 4096
	maxModuleSize = 1 << 30 // bytes: modules live in a window of 1 GiB
	maxModuleName = 64 - 8  // MODULE_NAME_LEN
)

// moduleLayout is struct module and what it leads to.
type moduleLayout struct {
	list, state, name, version, srcversion, taints kobj.Field
	init, exit, args, refcnt, kp, numKP, kallsyms  kobj.Field
	sourceList, useSourceList, useSource           kobj.Field
	percpu, percpuSize                             kobj.Field
	// Since 6.4 an array of regions by kind; before, one for the core and one for
	// what initialisation needs, each beginning with its text.
	mem, memBase, memSize                  kobj.Field
	memStride                              uint32
	core, initial                          kobj.Field
	layoutBase, layoutSize, layoutTextSize kobj.Field
	kinds                                  []ModuleMemoryKind
	states                                 map[uint64]ModuleState
	sectAttrs, buildID                     kobj.Field
}

// ModuleMemoryKind is what a region of a module's memory holds.
type ModuleMemoryKind string

// The kinds, as enum mod_mem_type names them since 6.4. Older kernels know two
// regions only, whose parts are told apart as far as they can be.
const (
	ModuleText        ModuleMemoryKind = "text"
	ModuleData        ModuleMemoryKind = "data" // until 6.3 read-only data too
	ModuleRodata      ModuleMemoryKind = "rodata"
	ModuleROAfterInit ModuleMemoryKind = "ro_after_init"
	ModuleInitText    ModuleMemoryKind = "init_text"
	ModuleInitData    ModuleMemoryKind = "init_data"
	ModuleInitRodata  ModuleMemoryKind = "init_rodata"
)

// ModuleState is how far a module is, in the words of /proc/modules.
type ModuleState string

// The states.
const (
	ModuleLive      ModuleState = "Live"
	ModuleLoading   ModuleState = "Loading"
	ModuleUnloading ModuleState = "Unloading"
	// ModuleUnformed is a module that is still being laid out; /proc/modules leaves
	// those out.
	ModuleUnformed ModuleState = "Unformed"
)

func (s *System) moduleLayout() (*moduleLayout, error) {
	return kobj.LayoutOf(s.Walker, "modules", func(r *kobj.Resolver, o *moduleLayout) {
		r.Prefetch("modules")
		const m = "module"
		o.list, o.state, o.name = r.Field(m, "list"), r.Field(m, "state"), r.Field(m, "name")
		o.version, o.srcversion = r.Optional(m, "version"), r.Optional(m, "srcversion")
		o.taints, o.init, o.exit = r.Optional(m, "taints"), r.Optional(m, "init"), r.Optional(m, "exit")
		o.args, o.refcnt = r.Optional(m, "args"), r.Optional(m, "refcnt.counter")
		o.kp, o.numKP = r.Optional(m, "kp"), r.Optional(m, "num_kp")
		o.kallsyms, o.sectAttrs = r.Optional(m, "kallsyms"), r.Optional(m, "sect_attrs")
		o.buildID = r.Optional(m, "build_id") // 5.14, with CONFIG_STACKTRACE_BUILD_ID
		o.percpu, o.percpuSize = r.Optional(m, "percpu"), r.Optional(m, "percpu_size")
		o.sourceList = r.Optional(m, "source_list") // with CONFIG_MODULE_UNLOAD, as are exit and refcnt
		o.useSourceList, o.useSource = r.Optional("module_use", "source_list"), r.Optional("module_use", "source")
		if o.mem = r.Optional(m, "mem"); o.mem.Present() { // 6.4
			o.memBase, o.memSize = r.Field("module_memory", "base"), r.Field("module_memory", "size")
			o.memStride = r.Size("module_memory")
			o.kinds = moduleMemoryKinds(r)
		} else {
			o.core, o.initial = r.Field(m, "core_layout"), r.Field(m, "init_layout")
			const l = "module_layout"
			o.layoutBase, o.layoutSize, o.layoutTextSize = r.Field(l, "base"), r.Field(l, "size"), r.Field(l, "text_size")
		}
		o.states = map[uint64]ModuleState{}
		for name, state := range map[string]ModuleState{
			"MODULE_STATE_LIVE": ModuleLive, "MODULE_STATE_COMING": ModuleLoading,
			"MODULE_STATE_GOING": ModuleUnloading, "MODULE_STATE_UNFORMED": ModuleUnformed,
		} {
			v, err := r.Types.EnumValue("module_state", name)
			if err != nil {
				r.Errs = append(r.Errs, err)
			}
			o.states[uint64(v)] = state
		}
	})
}

// moduleMemoryKinds is the kinds in the order of struct module's mem.
func moduleMemoryKinds(r *kobj.Resolver) []ModuleMemoryKind {
	names := map[string]ModuleMemoryKind{
		"MOD_TEXT": ModuleText, "MOD_DATA": ModuleData, "MOD_RODATA": ModuleRodata, "MOD_RO_AFTER_INIT": ModuleROAfterInit,
		"MOD_INIT_TEXT": ModuleInitText, "MOD_INIT_DATA": ModuleInitData, "MOD_INIT_RODATA": ModuleInitRodata,
	}
	kinds := make([]ModuleMemoryKind, len(names))
	for name, kind := range names {
		v, err := r.Types.EnumValue("mod_mem_type", name)
		if err == nil && (v < 0 || int(v) >= len(kinds)) {
			err = fmt.Errorf("enum mod_mem_type: %s is %d", name, v)
		}
		if err != nil {
			r.Errs = append(r.Errs, err)
			continue
		}
		kinds[v] = kind
	}
	return kinds
}

// Module is one module on the kernel's list.
type Module struct {
	s                   *System
	Addr                virt.Addr // of the struct module
	Name                string
	State               ModuleState
	Memory              []ModuleMemory // where it lies; regions of no size are left out
	RefCount            int64          // as lsmod shows it; -1 while it is unloaded
	Version, SrcVersion string         // as its author declared; empty if not
	Taints              uint64         // bits; [TaintLetters] spells them
	Init, Exit          virt.Addr      // functions; Init's memory is freed once it has run
	Percpu              virt.Addr      // offset in each processor's area
	PercpuSize          uint64         // in bytes
	BuildID             string         // lower-case hex; empty where the kernel does not keep it

	symbols moduleSymbols
}

// ModuleMemory is a region of a module's memory.
type ModuleMemory struct {
	Kind  ModuleMemoryKind
	Start virt.Addr
	Size  uint64 // in bytes
}

// Text reports whether the region holds code.
func (m ModuleMemory) Text() bool { return m.Kind == ModuleText || m.Kind == ModuleInitText }

// Size is how much memory m takes, in bytes, as /proc/modules shows it.
func (m *Module) Size() (n uint64) {
	for _, r := range m.Memory {
		n += r.Size
	}
	return n
}

// Start is where m begins, as /proc/modules shows it to root.
func (m *Module) Start() virt.Addr {
	for _, r := range m.Memory {
		if r.Kind == ModuleText {
			return r.Start
		}
	}
	return 0
}

// Modules yields the modules on the kernel's list, the newest first, as
// /proc/modules has them. A module that took itself off that list is not among
// them. An error stands for one that could not be read.
func (s *System) Modules(ctx context.Context) iter.Seq2[*Module, error] {
	return func(yield func(*Module, error) bool) {
		o, err := s.moduleLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		head, err := s.ListHead("modules")
		if err != nil {
			yield(nil, fmt.Errorf("modules: %w: %w", kobj.ErrUnsupported, err))
			return
		}
		for node, err := range s.List(ctx, head, MaxModules) {
			var m *Module
			if err != nil {
				err = fmt.Errorf("modules: %w", err)
			} else {
				m, err = s.module(o, node-virt.Addr(o.list.Offset))
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

// hasModules reports whether the kernel can load modules (CONFIG_MODULES).
func (s *System) hasModules() bool {
	_, err := s.StructSize("module")
	return err == nil
}

// ModuleNamed finds a module by its name; nil where there is none of that name.
func (s *System) ModuleNamed(name string) (*Module, error) {
	var first error
	for m, err := range s.Modules(context.Background()) {
		if err == nil && m.Name == name {
			return m, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// ModuleAt reads the struct module at a. Nothing says that there is one.
func (s *System) ModuleAt(a virt.Addr) (*Module, error) {
	o, err := s.moduleLayout()
	if err != nil {
		return nil, err
	}
	return s.module(o, a)
}

// ModuleNameAt is the name alone; empty for a null pointer, which stands for the kernel.
func (s *System) ModuleNameAt(r *kobj.Reader, a virt.Addr) string {
	o, err := s.moduleLayout()
	if err != nil || a == 0 {
		return ""
	}
	return r.CString(o.name.At(a), maxModuleName)
}

func (s *System) module(o *moduleLayout, a virt.Addr) (_ *Module, err error) {
	r := s.Reader()
	m := &Module{s: s, Addr: a}
	m.Name = r.CString(o.name.At(a), maxModuleName)
	m.State = o.states[r.Uint(a, o.state)]
	if r.Err == nil && (m.State == "" || m.Name == "") {
		return nil, fmt.Errorf("module at %#x: %w: state %d, name %q", uint64(a), kobj.ErrBroken, r.Uint(a, o.state), m.Name)
	}
	m.memory(o, &r)
	m.RefCount = -1
	if o.refcnt.Present() { // MODULE_REF_BASE is the module's own one
		m.RefCount = r.Int(a, o.refcnt) - 1
	}
	m.Taints = r.Uint(a, o.taints)
	m.Init, m.Exit = r.Pointer(a, o.init), r.Pointer(a, o.exit)
	if m.PercpuSize = r.Uint(a, o.percpuSize); m.PercpuSize != 0 {
		m.Percpu = r.Pointer(a, o.percpu)
	}
	for _, s := range []struct {
		to *string
		f  kobj.Field
	}{{&m.Version, o.version}, {&m.SrcVersion, o.srcversion}} {
		if p := r.Pointer(a, s.f); p != 0 {
			*s.to = r.CString(p, 256)
		}
	}
	if o.buildID.Present() {
		var id [20]byte
		if r.ReadInto(id[:], o.buildID.At(a)); id != [20]byte{} {
			m.BuildID = hex.EncodeToString(id[:])
		}
	}
	if r.Err != nil {
		return nil, fmt.Errorf("module %q at %#x: %w", m.Name, uint64(a), r.Err)
	}
	return m, nil
}

// memory reads where m lies.
func (m *Module) memory(o *moduleLayout, r *kobj.Reader) {
	add := func(kind ModuleMemoryKind, start virt.Addr, size uint64) {
		if size != 0 && size <= maxModuleSize {
			m.Memory = append(m.Memory, ModuleMemory{kind, start, size})
		}
	}
	if o.mem.Present() {
		for i, kind := range o.kinds {
			region := o.mem.At(m.Addr) + virt.Addr(uint32(i)*o.memStride)
			add(kind, r.Pointer(region, o.memBase), r.Uint(region, o.memSize))
		}
		return
	}
	for _, l := range []struct {
		f          kobj.Field
		text, data ModuleMemoryKind
	}{{o.core, ModuleText, ModuleData}, {o.initial, ModuleInitText, ModuleInitData}} {
		region := l.f.At(m.Addr)
		base, size := r.Pointer(region, o.layoutBase), r.Uint(region, o.layoutSize)
		text := min(r.Uint(region, o.layoutTextSize), size)
		add(l.text, base, text)
		add(l.data, base+virt.Addr(text), size-text)
	}
}

// Dependants are the names of the modules that use m, as lsmod shows them.
func (m *Module) Dependants(ctx context.Context) (names []string, err error) {
	o, err := m.s.moduleLayout()
	if err != nil || !o.sourceList.Present() || !o.useSource.Present() {
		return nil, err
	}
	r := m.s.Reader()
	for node, err := range m.s.List(ctx, o.sourceList.At(m.Addr), MaxModules) {
		if err != nil {
			return names, fmt.Errorf("users of module %s: %w", m.Name, err)
		}
		name := m.s.ModuleNameAt(&r, r.Pointer(node-virt.Addr(o.useSourceList.Offset), o.useSource))
		if r.Err != nil {
			return names, fmt.Errorf("users of module %s: %w", m.Name, r.Err)
		}
		names = append(names, name)
	}
	return names, nil
}

// taintLetters are the letters of the taint flags by bit. No bit ever changed its
// meaning: N came in 5.17, J in 6.14.
const taintLetters = "PFSRMBUDAWCIOELKXTNJ"

// TaintLetters spells taint bits, of a module or of the kernel, as the kernel does
// (Documentation/admin-guide/tainted-kernels.rst); a bit without a letter is its
// number in angle brackets.
func TaintLetters(bits uint64) string {
	var b strings.Builder
	for i := range 64 {
		switch {
		case bits&(1<<i) == 0:
		case i < len(taintLetters):
			b.WriteByte(taintLetters[i])
		default:
			fmt.Fprintf(&b, "<%d>", i)
		}
	}
	return b.String()
}

// Bits of [Module.Taints] (include/linux/panic.h).
const (
	TaintOutOfTree = 1 << 12 // TAINT_OOT_MODULE
	TaintUnsigned  = 1 << 13 // TAINT_UNSIGNED_MODULE
	TaintLivepatch = 1 << 15 // TAINT_LIVEPATCH
)

// Foreign reports whether m says that it did not come with the kernel.
func (m *Module) Foreign() bool { return m.Taints&(TaintOutOfTree|TaintUnsigned) != 0 }
