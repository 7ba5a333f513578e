package views

import (
	"context"
	"errors"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

// owned is an object of a view that shows functions, with what knows the owners of code.
type owned[T any] struct {
	it     *T
	owners *owners
	// The owner that was asked for last: symbol and owner are two columns.
	at    virt.Addr
	owner linux.Owner
}

// owners are the owners of code of one scan, read when the first is asked for.
type owners struct {
	s      *linux.System
	owners *linux.Owners
	err    error
}

func (o *owners) get() (*linux.Owners, error) {
	if o.owners == nil && o.err == nil {
		o.owners, o.err = o.s.Owners()
	}
	return o.owners, o.err
}

// of is the owner of the code at a; unknown if owners cannot be read, which ends the view.
func (o *owned[T]) of(a virt.Addr) linux.Owner {
	if a != o.at {
		o.at, o.owner = a, linux.Owner{}
		if owners, err := o.owners.get(); err == nil {
			o.owner = owners.CodeAt(a)
		}
	}
	return o.owner
}

// whose is of without the symbol.
func (o *owned[T]) whose(a virt.Addr) linux.Owner {
	if a == o.at {
		return o.owner
	}
	owners, err := o.owners.get()
	if err != nil {
		return linux.Owner{}
	}
	return owners.OwnerAt(a)
}

// memory is the owner of memory at a, code or data.
func (o *owned[T]) memory(a virt.Addr) linux.Owner {
	owners, err := o.owners.get()
	if err != nil {
		return linux.Owner{}
	}
	return owners.MemoryAt(a)
}

// Unread is part of [table.Partial].
func (o *owned[T]) Unread() error {
	if o.owners.err != nil {
		return table.Failure(o.owners.err)
	}
	if p, ok := any(o.it).(table.Partial); ok {
		return p.Unread()
	}
	return nil
}

// plain are columns that need no owners.
func plain[T any](columns table.Columns[T]) table.Columns[owned[T]] {
	all := make(table.Columns[owned[T]], len(columns))
	for i, c := range columns {
		all[i] = table.Col[owned[T]]{Name: c.Name, Type: c.Type, Doc: c.Doc, Extra: c.Extra, With: c.With, Option: c.Option}
		if get := c.Get; get != nil {
			all[i].Get = func(o *owned[T]) table.Value { return get(o.it) }
		}
	}
	return all
}

// code are the three columns that every function pointer gets: where it leads, which
// function that is, and whose.
func code[T any](prefix, what string, at func(*T) virt.Addr) table.Columns[owned[T]] {
	return table.Columns[owned[T]]{
		{
			Name: prefix, Type: table.Addr, Extra: true, Doc: "Address of " + what + ".",
			Get: func(o *owned[T]) table.Value { return address(at(o.it)) },
		},
		{
			Name: prefix + "_symbol", Type: table.Text, Doc: "Function at that address, with the offset into it; missing where no symbol covers it.",
			Get: func(o *owned[T]) table.Value {
				a := at(o.it)
				if a == 0 {
					return none
				}
				return text(o.of(a).Function())
			},
		},
		{
			Name: prefix + "_owner", Type: table.Text, Doc: "Owner of that code: kernel, [module], bpf:program, trampoline; none if the owner is unknown.",
			Get: func(o *owned[T]) table.Value {
				a := at(o.it)
				if a == 0 {
					return none
				}
				return table.TextValue(o.whose(a).String())
			},
		},
	}
}

// holder is the cell of who owns the memory at a.
func (o *owned[T]) holder(a virt.Addr) table.Value {
	if a == 0 {
		return none
	}
	owners, err := o.owners.get()
	if err != nil {
		return table.TextValue(linux.Owner{}.String())
	}
	return table.TextValue(owners.HolderAt(a).String())
}

// holderDoc documents the columns of such cells.
const holderDoc = "Owner of the memory that it is in: kernel, [module]; none if the owner is unknown."

// withOwners makes the objects of a view that shows functions of what package linux yields.
func withOwners[T any](objects func(context.Context, *linux.System, *owners) iter.Seq2[*T, error]) table.Objects[owned[T]] {
	return func(ctx context.Context, l *guest.Look, _ table.Request) iter.Seq2[*owned[T], error] {
		return ownedOf(ctx, l.Linux, objects)
	}
}

func ownedOf[T any](ctx context.Context, s *linux.System, objects func(context.Context, *linux.System, *owners) iter.Seq2[*T, error]) iter.Seq2[*owned[T], error] {
	return func(yield func(*owned[T], error) bool) {
		row := owned[T]{owners: &owners{s: s}}
		for v, err := range objects(ctx, s, row.owners) {
			if v == nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			row.it, row.at, row.owner = v, 0, linux.Owner{}
			if !yield(&row, err) {
				return
			}
		}
	}
}

// withCode is for objects that need the owners to be read.
func withCode[T any](o *owners, objects func(*linux.Owners) iter.Seq2[*T, error]) iter.Seq2[*T, error] {
	owners, err := o.get()
	if err != nil {
		return func(yield func(*T, error) bool) { yield(nil, table.Failure(err)) }
	}
	return objects(owners)
}

// of is a function of one of linux's packages in the form of a method of System.
func of[T any](objects func(context.Context, *linux.System) iter.Seq2[T, error]) func(*linux.System, context.Context) iter.Seq2[T, error] {
	return func(s *linux.System, ctx context.Context) iter.Seq2[T, error] { return objects(ctx, s) }
}

// each is withOwners of objects that need no owners to be read. One that came with an error
// is left out.
func each[T any](objects func(*linux.System, context.Context) iter.Seq2[*T, error]) table.Objects[owned[T]] {
	return withOwners(func(ctx context.Context, s *linux.System, _ *owners) iter.Seq2[*T, error] {
		return whole(objects(s, ctx))
	})
}

// eachPartly is [each], but one that came with an error is shown beside it.
func eachPartly[T any](objects func(*linux.System, context.Context) iter.Seq2[*T, error]) table.Objects[owned[T]] {
	return withOwners(func(ctx context.Context, s *linux.System, _ *owners) iter.Seq2[*T, error] { return objects(s, ctx) })
}

// whole leaves out objects that came with an error.
func whole[T any](objects iter.Seq2[*T, error]) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for v, err := range objects {
			if err != nil {
				v = nil
			}
			if !yield(v, err) {
				return
			}
		}
	}
}

// from makes the objects of a view of what package linux yields. One that came with an
// error is left out; an error that says that the whole view is unavailable ends it.
func from[T any](objects func(*linux.System, context.Context) iter.Seq2[*T, error]) table.Objects[T] {
	return func(ctx context.Context, l *guest.Look, _ table.Request) iter.Seq2[*T, error] {
		return ending(whole(objects(l.Linux, ctx)))
	}
}

// fromPartly is [from], but one that came with an error is shown beside it.
func fromPartly[T any](objects func(*linux.System, context.Context) iter.Seq2[*T, error]) table.Objects[T] {
	return func(ctx context.Context, l *guest.Look, _ table.Request) iter.Seq2[*T, error] {
		return ending(objects(l.Linux, ctx))
	}
}

// fromEach is [from] of objects that go on after whatever error: one address family can be
// unavailable and the other not.
func fromEach[T any](objects func(*linux.System, context.Context) iter.Seq2[*T, error]) table.Objects[T] {
	return func(ctx context.Context, l *guest.Look, _ table.Request) iter.Seq2[*T, error] {
		return whole(objects(l.Linux, ctx))
	}
}

// fromEachPartly is [fromEach], but one that came with an error is shown beside it.
func fromEachPartly[T any](objects func(*linux.System, context.Context) iter.Seq2[*T, error]) table.Objects[T] {
	return func(ctx context.Context, l *guest.Look, _ table.Request) iter.Seq2[*T, error] {
		return objects(l.Linux, ctx)
	}
}

// ending ends objects at an error that says that the whole view is unavailable.
func ending[T any](objects iter.Seq2[*T, error]) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for v, err := range objects {
			if !yield(v, ended(err)) {
				return
			}
		}
	}
}

// ended makes an error that says that a view is unavailable as a whole into one that
// ends its rows: every further element would only repeat it.
func ended(err error) error {
	if errors.Is(err, kobj.ErrUnsupported) || errors.Is(err, linux.ErrNoModuleTypes) {
		return table.Failure(err)
	}
	return err
}
