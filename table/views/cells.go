package views

import (
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

// text is a cell of text; an empty one is missing.
func text(s string) table.Value {
	if s == "" {
		return table.Missing(table.None)
	}
	return table.TextValue(s)
}

// unreadable is a cell that could not be read, because of err.
func unreadable(err error) table.Value {
	if virt.IsFault(err, virt.Swapped) {
		return table.Missing(table.SwappedOut)
	}
	return table.Missing(table.Unreadable)
}

// address is a cell of a guest address; 0 is missing.
func address(a virt.Addr) table.Value {
	if a == 0 {
		return table.Missing(table.None)
	}
	return table.AddrValue(uint64(a))
}

// functionColumns are the three columns that every function pointer gets: where it
// leads, which function that is, and whose.
func functionColumns(prefix, what string) []table.Column {
	return []table.Column{
		{Name: prefix, Type: table.Addr, Extra: true, Doc: "Address of " + what + "."},
		{Name: prefix + "_symbol", Type: table.Text, Doc: "Function at that address, with the distance from its start; missing where no symbol covers it."},
		{Name: prefix + "_owner", Type: table.Text, Doc: "Whose code that is: kernel, [module], bpf:program, trampoline; none is nobody's that is known."},
	}
}

// function fills functionColumns.
func function(o *linux.Owners, a virt.Addr) (at, symbol, owner table.Value) {
	if a == 0 {
		return table.Missing(table.None), table.Missing(table.None), table.Missing(table.None)
	}
	w := o.Of(a)
	return table.AddrValue(uint64(a)), text(w.Function()), table.TextValue(w.String())
}

// holder is a cell that says whose memory a is; 0 is nobody's to be asked for.
func holder(o *linux.Owners, a virt.Addr) table.Value {
	if a == 0 {
		return table.Missing(table.None)
	}
	return table.TextValue(o.Holder(a).String())
}

// texts is a cell of several texts; none is missing.
func texts(l []string) table.Value {
	if len(l) == 0 {
		return table.Missing(table.None)
	}
	return table.ListValue(l)
}

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
