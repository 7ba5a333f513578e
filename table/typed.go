package table

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/outsight-vmi/outsight/guest"
)

// Columns are the columns of a view whose rows are made of objects of type T.
type Columns[T any] []Col[T]

// Col is one column of such a view, declared in one place: what it is called, what it
// holds, and where that comes from.
type Col[T any] struct {
	Name   string // as in [Column], and so the next five
	Type   Type
	Doc    string
	Extra  bool
	With   string
	Option bool // has no Get
	// Get makes the cell. It is called where the column is wanted only, so it may do what
	// takes long. It must not keep the object, which is reused for the next row.
	Get func(*T) Value
}

// Partial is an object whose cells can fail one by one. Unread is asked after the cells
// of a row were made, and returns what could not be read; that error goes with the row.
type Partial interface {
	Unread() error
}

// Objects yields what the rows of a view are made of. An error beside an object goes with
// its row; one without an object is an element that could not be read.
type Objects[T any] func(ctx context.Context, l *guest.Look, r Request) iter.Seq2[*T, error]

// Of makes a view of objects: each is a row, and each wanted column a cell of it. It sets
// the Columns and the Rows of s.
func Of[T any](s Spec, columns Columns[T], objects Objects[T]) View {
	return &typed[T]{spec: s, columns: columns, objects: objects}
}

// OfGroups is [Of] of columns that are put together when they are first asked for: most
// views of a program never are, and it need not pay for them when it starts.
func OfGroups[T any](s Spec, columns func() Columns[T], objects Objects[T]) View {
	return &typed[T]{spec: s, groups: columns, objects: objects}
}

type typed[T any] struct {
	spec    Spec
	columns Columns[T]
	groups  func() Columns[T] // nil if columns are there from the start
	objects Objects[T]
	once    sync.Once
	list    []Column
}

func (v *typed[T]) Name() string { return v.spec.Name }
func (v *typed[T]) Doc() string  { return v.spec.Doc }

func (v *typed[T]) Columns() []Column {
	v.once.Do(func() {
		if v.groups != nil {
			v.columns = v.groups()
		}
		v.list = make([]Column, len(v.columns))
		for i, c := range v.columns {
			v.list[i] = Column{Name: c.Name, Type: c.Type, Doc: c.Doc, Extra: c.Extra, With: c.With, Option: c.Option}
		}
	})
	return v.list
}

func (v *typed[T]) written() Spec {
	s := v.spec
	s.Columns, s.Rows = v.Columns(), v.Rows
	return s
}

func (v *typed[T]) Rows(ctx context.Context, l *guest.Look, r Request) iter.Seq2[Row, error] {
	v.Columns()
	return func(yield func(Row, error) bool) {
		row := make(Row, len(v.columns))
		wanted := v.wanted(r)
		for object, err := range v.objects(ctx, l, r) {
			if object == nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for _, i := range wanted {
				row[i] = v.columns[i].Get(object)
			}
			if p, ok := any(object).(Partial); ok {
				if unread := p.Unread(); unread != nil {
					err = errors.Join(err, unread)
				}
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

// wanted are the columns that r wants a cell of.
func (v *typed[T]) wanted(r Request) (wanted Selection) {
	if r.Columns == nil {
		for i := range v.columns {
			r.Columns = append(r.Columns, i)
		}
	}
	for _, i := range r.Columns {
		if v.columns[i].Get != nil {
			wanted = append(wanted, i)
		}
	}
	return wanted
}

// check is what [Validate] cannot see in the columns alone.
func (v *typed[T]) check() error {
	v.Columns()
	for _, c := range v.columns {
		if c.Option == (c.Get != nil) {
			return fmt.Errorf("view %s: column %s: an option has no getter, any other column has one", v.Name(), c.Name)
		}
	}
	return nil
}
