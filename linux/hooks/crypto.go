package hooks

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Algorithm is one implementation of an algorithm of the kernel's crypto API.
type Algorithm struct {
	Addr         virt.Addr // of the struct crypto_alg
	Name, Driver string
	Module       string // empty: built in
	Priority     int32
	RefCount     int64
	Flags        uint64
	BlockSize    uint64    // in bytes
	Show         virt.Addr // function of its type that describes it; 0: none
	Init, Exit   virt.Addr // functions; 0: none
}

// Flags of algorithms (include/linux/crypto.h).
const (
	AlgorithmLarval   = 0x10
	AlgorithmTested   = 0x400
	AlgorithmInternal = 0x2000
)

type cryptoLayout struct {
	list, name, driver, module, priority, refcnt kobj.Field
	flags, blocksize, kind, show, init, exit     kobj.Field
}

// Algorithms yields the algorithms that the kernel knows, the last registered first,
// as /proc/crypto has them; internal ones are among them.
func Algorithms(ctx context.Context, s *linux.System) iter.Seq2[*Algorithm, error] {
	return func(yield func(*Algorithm, error) bool) {
		o, err := kobj.LayoutOf(s.Walker, "crypto algorithms", func(r *kobj.Resolver, o *cryptoLayout) {
			const t = "crypto_alg"
			r.Prefetch("crypto_alg_list")
			o.list, o.name, o.driver = r.Field(t, "cra_list"), r.Field(t, "cra_name"), r.Field(t, "cra_driver_name")
			o.module, o.priority, o.refcnt = r.Field(t, "cra_module"), r.Field(t, "cra_priority"), r.Field(t, "cra_refcnt.refs.counter")
			o.flags, o.blocksize = r.Field(t, "cra_flags"), r.Field(t, "cra_blocksize")
			o.kind, o.show = r.Field(t, "cra_type"), r.Optional("crypto_type", "show")
			o.init, o.exit = r.Field(t, "cra_init"), r.Field(t, "cra_exit")
		})
		if err != nil {
			yield(nil, err)
			return
		}
		head, err := s.ListHead("crypto_alg_list")
		if err != nil {
			yield(nil, fmt.Errorf("crypto algorithms: %w: %w", kobj.ErrUnsupported, err))
			return
		}
		const limit = 1 << 14
		for node, err := range s.List(ctx, head, limit) {
			var a *Algorithm
			if err == nil {
				a, err = algorithm(s, o, node-virt.Addr(o.list.Offset))
			}
			if err != nil {
				err = fmt.Errorf("crypto algorithms: %w", err)
			}
			if !yield(a, err) {
				return
			}
		}
	}
}

func algorithm(s *linux.System, o *cryptoLayout, a virt.Addr) (_ *Algorithm, err error) {
	const length = 128 // CRYPTO_MAX_ALG_NAME
	r := s.Reader()
	alg := &Algorithm{
		Addr: a, Name: r.CString(o.name.At(a), length), Driver: r.CString(o.driver.At(a), length),
		Module:   s.ModuleNameAt(&r, r.Pointer(a, o.module)),
		Priority: int32(r.Int(a, o.priority)), RefCount: r.Int(a, o.refcnt), Flags: r.Uint(a, o.flags), BlockSize: r.Uint(a, o.blocksize),
		Init: r.Pointer(a, o.init), Exit: r.Pointer(a, o.exit),
	}
	if kind := r.Pointer(a, o.kind); kind != 0 {
		alg.Show = r.Pointer(kind, o.show)
	}
	if r.Err != nil {
		return nil, fmt.Errorf("at %#x: %w", uint64(a), r.Err)
	}
	return alg, nil
}
