package table

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
)

// Column is one documented column of a view.
type Column struct {
	// Name is lower_case; it is the field name in JSON and never changes.
	Name string
	Type Type
	// Doc is one line: what it is, where the guest keeps it, when it is missing.
	Doc string
	// Extra columns are in JSON and CSV, and in the table form only on request.
	Extra bool
	// With is the option column without which it is empty: the table form shows it with the
	// option, and otherwise on request.
	With string
	// Option columns hold no data. They are the view's own switches, of type
	// Bool: a constraint that sets one to true changes what the view does, as the
	// hidden columns of a table-valued function in SQL do. One named with_x is
	// the flag --x of the command line.
	Option bool
}

// View is one question that a guest can be asked, answered in rows. The command
// line, JSON, CSV and everything else that shows data is derived from it.
type View interface {
	// Name is the verb of the command line: lower case, one word.
	Name() string
	// Doc says what the view shows. The first line is a summary; what it cannot
	// see is said too.
	Doc() string
	// Columns are the same at every call. The caller must not change them.
	Columns() []Column
	// Rows yields the rows, each with a value for every column. An error beside a
	// row, or instead of one, is one element that could not be read: it is
	// counted, and the rows go on. An error made by [Failure] ends them.
	Rows(ctx context.Context, l *guest.Look, r Request) iter.Seq2[Row, error]
}

// Spec is a view written down. [New] makes the [View].
type Spec struct {
	Name    string
	Doc     string
	Columns []Column
	Rows    func(ctx context.Context, l *guest.Look, r Request) iter.Seq2[Row, error]
	// Source says, in the kernel's own names, which structures the rows are read from.
	Source string
	// Key are the columns that together identify a row, and that a row keeps
	// from one look to the next. A view of one row has none.
	Key []string
	// Example is what follows "outsight NAME" in the example of --help.
	Example string
	// Host says that the view is about this host: its Rows get a nil Guest, and
	// the command takes no TARGET.
	Host bool
	// Monitor says that rows rest on what the virtual machine's monitor says as well as on the guest's memory.
	Monitor bool
	// Group is the heading under which help lists the view; empty means [Processes].
	Group Group
	// Exhaustive says that the view reads all of the guest's memory, or has more rows than
	// anybody reads: it is taken only where it is asked for by name.
	Exhaustive bool
	// Live says that rows come as things happen: each is to be shown at once.
	Live bool
	// Single says that there is one row, shown as lines of name and value.
	Single bool
	// Of chooses rows by process, of a view without a column pid or pids; nil: its rows have
	// nothing to do with processes.
	Of *OfProcess
}

// OfProcess chooses the rows of a view that have to do with a process.
type OfProcess struct {
	// Columns are the names of the columns that select.
	Columns []string
	// Test makes the test for one process: it gets the cells of Columns. It is nil if there
	// is no such process.
	Test func(ctx context.Context, l *guest.Look, pid int64) (mine func([]Value) bool, err error)
}

// Group is a heading for views that belong together.
type Group string

// The groups, in the order in which help shows them.
const (
	Processes Group = "Processes"
	Files     Group = "Files and memory"
	Network   Group = "Network"
	Kernel    Group = "The system"
	Internals Group = "Kernel internals"
)

// Groups are all of them, in order.
var Groups = []Group{Processes, Files, Network, Kernel, Internals}

// New makes a view.
func New(s Spec) View { return &written{s} }

// SpecOf returns the Spec of a view, and for a View of another make one that
// holds what its methods say.
func SpecOf(v View) Spec {
	if w, ok := v.(interface{ written() Spec }); ok {
		return w.written()
	}
	return Spec{Name: v.Name(), Doc: v.Doc(), Columns: v.Columns(), Rows: v.Rows}
}

type written struct{ Spec }

func (w *written) written() Spec     { return w.Spec }
func (w *written) Name() string      { return w.Spec.Name }
func (w *written) Doc() string       { return w.Spec.Doc }
func (w *written) Columns() []Column { return w.Spec.Columns }

func (w *written) Rows(ctx context.Context, l *guest.Look, r Request) iter.Seq2[Row, error] {
	return w.Spec.Rows(ctx, l, r)
}

// Summary is the first line of a view's Doc.
func Summary(v View) string {
	line, _, _ := strings.Cut(v.Doc(), "\n")
	return line
}

// ColumnIndex is where the column of that name stands; -1 if there is none.
func ColumnIndex(columns []Column, name string) int {
	return slices.IndexFunc(columns, func(c Column) bool { return c.Name == name })
}

func columnNames(columns []Column) string {
	var names []string
	for _, c := range columns {
		if !c.Option {
			names = append(names, c.Name)
		}
	}
	return strings.Join(names, ", ")
}
