package linux

import "github.com/outsight-vmi/outsight/kernel"

// absent marks a member that this kernel does not have.
const absent = ^uint32(0)

// resolver looks members up and collects what is missing.
type resolver struct {
	p     *kernel.Profile
	types types // p's, or a module's on top of them
	errs  []error
}

// field finds the first of several members, "struct.path"; the first alternative
// is the newest kernel's.
func (r *resolver) find(structure string, paths ...string) (Field, error) {
	var first error
	for _, path := range paths {
		f, err := r.types.Field(structure, path)
		if err == nil {
			return fieldOf(f), nil
		}
		if first == nil {
			first = err
		}
	}
	return Field{}, first
}

func (r *resolver) field(structure string, paths ...string) Field {
	f, err := r.find(structure, paths...)
	if err != nil {
		r.errs = append(r.errs, err)
	}
	return f
}

func (r *resolver) must(structure string, paths ...string) uint32 {
	return r.field(structure, paths...).Offset
}

// may is like must for what some kernels, or some builds, lack.
func (r *resolver) may(structure string, paths ...string) uint32 {
	f, err := r.find(structure, paths...)
	if err != nil {
		return absent
	}
	return f.Offset
}

func (r *resolver) size(structure string) uint32 {
	n, err := r.types.StructSize(structure)
	if err != nil {
		r.errs = append(r.errs, err)
	}
	return n
}

// symbols looks names up in one pass, so that [kernel.Kernel.Address] knows them at
// once afterwards. Names that the kernel lacks are no error.
func (r *resolver) symbols(names ...string) {
	if err := r.p.Prefetch(names...); err != nil {
		r.errs = append(r.errs, err)
	}
}

// optional is a member that some kernels, or some builds, lack: [has] tells.
func (r *resolver) optional(structure string, paths ...string) Field {
	f, _ := r.find(structure, paths...)
	return f
}
