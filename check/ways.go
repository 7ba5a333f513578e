package check

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// way is one of the kernel's own ways to all objects of a kind. They are independent: who
// takes an object off one of them shows in the others.
type way struct {
	name string
	// read calls met for every object. An error that is [kobj.ErrUnsupported] says that this
	// kernel has no such way.
	read func(ctx context.Context, met func(virt.Addr)) error
}

// followed are the objects to which ways lead that this kernel has, and that could be
// followed to their end: only those can say that an object is missing.
type followed []struct {
	name  string
	holds map[virt.Addr]bool
}

func follow(ctx context.Context, ways []way) (all followed, errs []error) {
	for _, w := range ways {
		holds := map[virt.Addr]bool{}
		switch err := w.read(ctx, func(a virt.Addr) { holds[a] = true }); {
		case errors.Is(err, kobj.ErrUnsupported):
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", w.name, err))
		default:
			all = append(all, struct {
				name  string
				holds map[virt.Addr]bool
			}{w.name, holds})
		}
	}
	return all, errs
}

// objects are all to which one of the ways leads.
func (all followed) objects() []virt.Addr {
	objects := map[virt.Addr]bool{}
	for _, w := range all {
		maps.Copy(objects, w.holds)
	}
	return slices.Sorted(maps.Keys(objects))
}

// of are the ways that lead to an object, and those that do not.
func (all followed) of(a virt.Addr) (in, out []string) {
	for _, w := range all {
		if w.holds[a] {
			in = append(in, w.name)
		} else {
			out = append(out, w.name)
		}
	}
	return in, out
}

// missing is the finding about an object that is missing from some ways: o with its kind and
// name, and the type of its structure.
func missing(o Object, structure string, in, out []string) *Finding {
	return &Finding{
		Confidence: Certain,
		Title:      fmt.Sprintf("%s %s is missing from %s", o.Kind, o.Name, strings.Join(out, " and ")),
		Object:     o,
		Aspect:     strings.Join(out, " "),
		Expected:   "in " + strings.Join(append(slices.Clone(in), out...), ", "),
		Seen:       "in " + strings.Join(in, ", ") + " alone",
		Evidence:   []Evidence{{Text: "its struct " + structure, Addr: o.Addr}},
		Basis:      "lists of the guest's kernel, compared with each other at one look",
		Show:       fmt.Sprintf("outsight struct {} %s %#x", structure, uint64(o.Addr)),
	}
}
