package linux

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// What only a module has (struct nft_table, struct tun_struct …) is described by the
// module's own types, of which the kernel keeps a copy while the module is loaded. See
// docs/decisions/0003-module-types.md.

var (
	// ErrNotLoaded says that a module is not loaded, so that there is nothing of it.
	ErrNotLoaded = errors.New("module not loaded")
	// ErrNoModuleTypes says that a module is loaded, but the kernel has no description
	// of its types: it is older than 5.11 or was built without
	// CONFIG_DEBUG_INFO_BTF_MODULES, or the module was.
	ErrNoModuleTypes = errors.New("the kernel keeps no types of the module (before 5.11, or built without)")
)

// maxModuleTypes is the largest copy that is read, in bytes. That of amdgpu, the
// largest module, takes some 2 MB.
const maxModuleTypes = 16 << 20

// ModuleTypes is the kernel's description of one module's types.
type ModuleTypes struct {
	Module string    // name of the module
	Addr   virt.Addr // of the struct btf
	ID     uint32    // as bpf(2) lists it; a module that is loaded again gets another
	Size   uint32    // in bytes

	data virt.Addr
	base virt.Addr // the struct btf of the kernel
}

type moduleTypesLayout struct {
	list, btf                  kobj.Field // struct btf_module
	name, id, data, size, base kobj.Field // struct btf
	startID, startStrings      kobj.Field
}

func (s *System) moduleTypesLayout() (*moduleTypesLayout, error) {
	return kobj.LayoutOf(s.Walker, "types of modules", func(r *kobj.Resolver, o *moduleTypesLayout) {
		r.Prefetch("btf_modules")
		o.list, o.btf = r.Field("btf_module", "list"), r.Field("btf_module", "btf")
		const b = "btf"
		o.name, o.id = r.Field(b, "name"), r.Field(b, "id")
		o.data, o.size, o.base = r.Field(b, "data"), r.Field(b, "data_size"), r.Field(b, "base_btf")
		o.startID, o.startStrings = r.Field(b, "start_id"), r.Field(b, "start_str_off")
	})
}

// ModuleTypes yields the descriptions of types that the kernel keeps, one for each
// module that has any: those in /sys/kernel/btf. Kernels before 5.11 keep none; the error
// then wraps [ErrNoModuleTypes].
func (s *System) ModuleTypes(ctx context.Context) iter.Seq2[*ModuleTypes, error] {
	return func(yield func(*ModuleTypes, error) bool) {
		o, err := s.moduleTypesLayout()
		if err != nil {
			yield(nil, fmt.Errorf("%w: %w", ErrNoModuleTypes, err))
			return
		}
		head, err := s.ListHead("btf_modules")
		if err != nil {
			yield(nil, fmt.Errorf("types of modules: %w: %w", ErrNoModuleTypes, err))
			return
		}
		r := s.Reader()
		for node, err := range s.List(ctx, head, MaxModules) {
			var m *ModuleTypes
			if err == nil {
				m, err = o.read(&r, node-virt.Addr(o.list.Offset))
			}
			if err != nil {
				m, err = nil, fmt.Errorf("types of modules: %w", err)
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

func (o *moduleTypesLayout) read(r *kobj.Reader, a virt.Addr) (_ *ModuleTypes, err error) {
	return kobj.Read(r, func() *ModuleTypes {
		b := r.Pointer(a, o.btf)
		return &ModuleTypes{
			Addr: b, Module: r.CString(o.name.At(b), int(min(o.name.Size, maxModuleName))), ID: uint32(r.Uint(b, o.id)),
			Size: uint32(r.Uint(b, o.size)), data: r.Pointer(b, o.data), base: r.Pointer(b, o.base),
		}
	})
}

// TypesOf copies the module's types out of the guest and reads them. They continue the
// kernel's, which are found through them too.
func (s *System) TypesOf(m *ModuleTypes) (_ *btf.Spec, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("types of module %s: %w", m.Module, err)
		}
	}()
	if m.Size > maxModuleTypes {
		return nil, fmt.Errorf("%w: %d bytes", kobj.ErrBroken, m.Size)
	}
	base, err := s.Types()
	if err != nil {
		return nil, err
	}
	o, err := s.moduleTypesLayout()
	if err != nil {
		return nil, err
	}
	r := s.Reader()
	// They are numbered from where the base ends, which is only right for the base that
	// the kernel itself used.
	id, strings := r.Uint(m.Addr, o.startID), r.Uint(m.Addr, o.startStrings)
	size := r.Uint(m.base, o.size)
	if r.Err != nil {
		return nil, r.Err
	}
	if m.base == 0 || size != uint64(len(base.Raw())) || id != uint64(base.Len()+1) || strings != uint64(base.Strings()) {
		return nil, fmt.Errorf("%w: they begin at type %d and string %d of another kernel", kobj.ErrBroken, id, strings)
	}
	b := make([]byte, m.Size)
	if _, err := s.Space.ReadAt(b, m.data); err != nil {
		return nil, err
	}
	return btf.ParseSplit(b, base)
}

// ModuleTypesNamed finds the types of a module; nil if the kernel keeps none of it.
func (s *System) ModuleTypesNamed(name string) (*ModuleTypes, error) {
	var first error
	for m, err := range s.ModuleTypes(context.Background()) {
		if err == nil && m.Module == name {
			return m, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// moduleSpecs are the types of modules that were read so far, by name.
type moduleSpecs struct {
	mu    sync.Mutex
	known map[string]*moduleSpec
}

// moduleSpec is a module's types with the members that were resolved in them.
type moduleSpec struct {
	of      ModuleTypes
	Spec    *btf.Spec
	layouts kobj.Layouts
}

// ModuleSpec reads the types of a module, unless they are known already. What was
// loaded again since has another identifier.
func (s *System) ModuleSpec(m *ModuleTypes) (*moduleSpec, error) {
	c := s.moduleTypes
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.known[m.Module]; k != nil && k.of == *m {
		return k, nil
	}
	spec, err := s.TypesOf(m)
	if err != nil {
		return nil, err
	}
	if c.known == nil {
		c.known = map[string]*moduleSpec{}
	}
	k := &moduleSpec{of: *m, Spec: spec}
	c.known[m.Module] = k
	return k, nil
}

// LayoutIn is [kobj.LayoutOf] with the types of a module: its own come first, then the
// kernel's. A module that is built into the kernel has all its types there. The error
// wraps [ErrNotLoaded] where the module is not loaded, and [ErrNoModuleTypes] where its
// types cannot be known. Ask once in a listing: a module can come and go at any time.
func LayoutIn[T any](s *System, module, what string, resolve func(*kobj.Resolver, *T)) (*T, error) {
	m, listErr := s.ModuleTypesNamed(module)
	if m != nil {
		k, err := s.ModuleSpec(m)
		if err != nil {
			return nil, fmt.Errorf("%s: kernel %s: %w", what, s.Release, err)
		}
		return kobj.LayoutFrom(s.Walker, &k.layouts, k.Spec, what, resolve)
	}
	v, err := kobj.LayoutOf(s.Walker, what, resolve)
	if err == nil {
		return v, nil
	}
	if listErr != nil && !errors.Is(listErr, ErrNoModuleTypes) {
		return nil, fmt.Errorf("%s: module %s: %w", what, module, listErr)
	}
	loaded, err := s.ModuleNamed(module)
	switch {
	case loaded != nil:
		err = ErrNoModuleTypes
	case err == nil:
		err = ErrNotLoaded
	}
	return nil, fmt.Errorf("%s: module %s: %w", what, module, err)
}
