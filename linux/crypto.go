package linux

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"

	"github.com/outsight-vmi/outsight/phys"
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
	list, name, driver, module, priority, refcnt Field
	flags, blocksize, kind, show, init, exit     Field
}

// Algorithms yields the algorithms that the kernel knows, the last registered first,
// as /proc/crypto has them; internal ones are among them.
func (s *System) Algorithms(ctx context.Context) iter.Seq2[*Algorithm, error] {
	return func(yield func(*Algorithm, error) bool) {
		o, err := layoutOf(s.Walker, "crypto algorithms", func(r *resolver, o *cryptoLayout) {
			const t = "crypto_alg"
			r.symbols("crypto_alg_list")
			o.list, o.name, o.driver = r.field(t, "cra_list"), r.field(t, "cra_name"), r.field(t, "cra_driver_name")
			o.module, o.priority, o.refcnt = r.field(t, "cra_module"), r.field(t, "cra_priority"), r.field(t, "cra_refcnt.refs.counter")
			o.flags, o.blocksize = r.field(t, "cra_flags"), r.field(t, "cra_blocksize")
			o.kind, o.show = r.field(t, "cra_type"), r.optional("crypto_type", "show")
			o.init, o.exit = r.field(t, "cra_init"), r.field(t, "cra_exit")
		})
		if err != nil {
			yield(nil, err)
			return
		}
		head, err := s.listHead("crypto_alg_list")
		if err != nil {
			yield(nil, fmt.Errorf("crypto algorithms: %w: %w", ErrUnsupported, err))
			return
		}
		const limit = 1 << 14
		for node, err := range s.list(ctx, head, limit) {
			var a *Algorithm
			if err == nil {
				a, err = s.algorithm(o, node-virt.Addr(o.list.Offset))
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

func (s *System) algorithm(o *cryptoLayout, a virt.Addr) (_ *Algorithm, err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	const length = 128 // CRYPTO_MAX_ALG_NAME
	r := s.reader()
	alg := &Algorithm{
		Addr: a, Name: r.cString(at(a, o.name), length), Driver: r.cString(at(a, o.driver), length),
		Module:   s.moduleNameAt(&r, r.pointer(a, o.module)),
		Priority: int32(r.signed(a, o.priority)), RefCount: r.signed(a, o.refcnt), Flags: r.num(a, o.flags), BlockSize: r.num(a, o.blocksize),
		Init: r.pointer(a, o.init), Exit: r.pointer(a, o.exit),
	}
	if kind := r.pointer(a, o.kind); kind != 0 {
		alg.Show = r.pointer(kind, o.show)
	}
	if r.err != nil {
		return nil, fmt.Errorf("at %#x: %w", uint64(a), r.err)
	}
	return alg, nil
}
