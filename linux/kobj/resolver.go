package kobj

import "github.com/outsight-vmi/outsight/kernel"

// NoOffset is [Resolver.OptionalOffset] of a member that this kernel does not have.
const NoOffset = ^uint32(0)

// Resolver looks members up and collects what is missing.
type Resolver struct {
	Profile *kernel.Profile
	Types   Types   // the profile's, or a module's on top of them
	Errs    []error // what this kernel should have and lacks
}

// Find finds a member of a structure: the first of several paths that the types have,
// the newest kernel's first. A path leads through members that are structures
// themselves: "se.sum_exec_runtime".
func (r *Resolver) Find(structure string, paths ...string) (Field, error) {
	var first error
	for _, path := range paths {
		f, err := r.Types.Field(structure, path)
		if err == nil {
			return FieldOf(f), nil
		}
		if first == nil {
			first = err
		}
	}
	return Field{}, first
}

// Field is like Find for what every kernel has: that it is missing is an error of the
// whole layout.
func (r *Resolver) Field(structure string, paths ...string) Field {
	f, err := r.Find(structure, paths...)
	if err != nil {
		r.Errs = append(r.Errs, err)
	}
	return f
}

// Offset is the offset of a member that every kernel has.
func (r *Resolver) Offset(structure string, paths ...string) uint32 {
	return r.Field(structure, paths...).Offset
}

// OptionalOffset is like Offset for what some kernels, or some builds, lack.
func (r *Resolver) OptionalOffset(structure string, paths ...string) uint32 {
	f, err := r.Find(structure, paths...)
	if err != nil {
		return NoOffset
	}
	return f.Offset
}

// Size is the size of a structure in bytes.
func (r *Resolver) Size(structure string) uint32 {
	n, err := r.Types.StructSize(structure)
	if err != nil {
		r.Errs = append(r.Errs, err)
	}
	return n
}

// Prefetch looks names up in one pass, so that [kernel.Kernel.Address] knows them at
// once afterwards. Names that the kernel lacks are not errors.
func (r *Resolver) Prefetch(names ...string) {
	if err := r.Profile.Prefetch(names...); err != nil {
		r.Errs = append(r.Errs, err)
	}
}

// Optional is a member that some kernels, or some builds, lack: [Field.Present] says
// whether this one has it.
func (r *Resolver) Optional(structure string, paths ...string) Field {
	f, _ := r.Find(structure, paths...)
	return f
}
