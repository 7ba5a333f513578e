package views

import (
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

// functionColumns are the three columns that every function pointer gets.
func functionColumns(prefix, what string) []table.Column {
	return []table.Column{
		{Name: prefix, Type: table.Addr, Extra: true, Doc: "Address of " + what + "."},
		{Name: prefix + "_symbol", Type: table.Text, Doc: symbolDoc},
		{Name: prefix + "_owner", Type: table.Text, Doc: ownerDoc},
	}
}

const (
	symbolDoc = "Function at that address, with the offset into it; missing where no symbol covers it."
	ownerDoc  = "Owner of that code: kernel, [module], bpf:program, trampoline; none if the owner is unknown."
)

// function fills functionColumns.
func function(o *linux.Owners, a virt.Addr) (at, symbol, owner table.Value) {
	if a == 0 {
		return none, none, none
	}
	w := o.Of(a)
	return table.AddrValue(uint64(a)), text(w.Function()), table.TextValue(w.String())
}

// holder is a cell that says whose memory a is; 0 is nobody's to be asked for.
func holder(o *linux.Owners, a virt.Addr) table.Value {
	if a == 0 {
		return none
	}
	return table.TextValue(o.Holder(a).String())
}

func texts(l []string) table.Value { return list(l) }

// rowsOf makes a row of each object.
func rowsOf[T any](objects iter.Seq2[T, error], row func(T) table.Row) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for v, err := range objects {
			var r table.Row
			if err == nil {
				r = row(v)
			}
			if !yield(r, ended(err)) {
				return
			}
		}
	}
}
