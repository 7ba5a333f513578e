package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/table"
)

const treeLong = `Show the processes of a guest as a tree.

The rows are those of "outsight ps", each process after its parent. The table form
draws the tree; JSON and CSV have a field more, depth, 0 for a root. A process whose
parent is not in the list is a root, and parents that form a circle, which an honest
kernel never has, are cut at the first of them. With --pid there are only these
processes, and what descends from them.`

// newTreeCommand makes the tree verb: another order and drawing of the ps view.
func newTreeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "tree [TARGET]",
		Short:             "Show the processes of a guest as a tree",
		Long:              treeLong,
		Example:           "  outsight tree lab:demo\n  outsight tree lab:demo --pid 1200",
		Args:              oneTarget,
		GroupID:           string(table.Processes),
		ValidArgsFunction: completeTarget,
	}
	var out outputFlags
	var access guestFlags
	var pids pidList
	var columns []table.Column
	ps, ok := table.Lookup("ps")
	if ok {
		columns = append(slices.Clone(ps.Columns()), table.Column{
			Name: "depth", Type: table.Int, Doc: "How many ancestors are above it.", Extra: true,
		})
	}
	out.add(c, columns)
	access.add(c)
	c.Flags().Var(&pids, "pid", "only these processes and what descends from them: `pids` with commas between them")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if !ok {
			return usagef("this build has no process list")
		}
		o, err := out.parse(c.OutOrStdout(), columns)
		if err != nil {
			return err
		}
		if o.format == table.Table && out.columns == "" {
			o.options.Columns = treeColumns(columns)
		}
		g, done, err := access.open(c.Context(), slices.Concat(args, []string{""})[0])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		var report table.Report
		rows := collect(table.Rows(c.Context(), ps, g, treeRequest(columns, o), &report))
		if len(pids) > 0 {
			var absent pidList
			if rows, absent = descendants(rows, columns, pids); len(absent) > 0 && report.Err == nil {
				fmt.Fprintf(c.ErrOrStderr(), "outsight: tree: no process with pid %s\n", absent.String())
			}
		}
		o.order.Sort(rows) // siblings keep this order
		o.order = nil
		err = o.write(c.OutOrStdout(), columns, treeRows(rows, columns, o.format == table.Table))
		if err != nil {
			return err
		}
		return finish(c.ErrOrStderr(), ps, &report)
	}
	return c
}

// descendants are the rows of pids and of all that descend from them, in the order of
// rows, and the pids of which there is none.
func descendants(rows []table.Row, columns []table.Column, pids pidList) (kept []table.Row, absent pidList) {
	pid, parent := table.ColumnIndex(columns, "pid"), table.ColumnIndex(columns, "ppid")
	known, children := map[int64]bool{}, map[int64][]int64{}
	for _, r := range rows {
		known[r[pid].Int()] = true
		if !r[parent].IsNull() {
			children[r[parent].Int()] = append(children[r[parent].Int()], r[pid].Int())
		}
	}
	wanted := map[int64]bool{}
	for todo := slices.Clone(pids); len(todo) > 0; {
		p := todo[len(todo)-1]
		if todo = todo[:len(todo)-1]; !wanted[p] { // a guest can make parents a circle
			wanted[p] = true
			todo = append(todo, children[p]...)
		}
	}
	for _, p := range pids {
		if !known[p] {
			absent = append(absent, p)
		}
	}
	return slices.DeleteFunc(rows, func(r table.Row) bool { return !wanted[r[pid].Int()] }), absent
}

// treeColumns are few, so that the drawing has room; comm carries it and is last.
func treeColumns(columns []table.Column) table.Selection {
	var s table.Selection
	for _, name := range []string{"pid", "uid", "state", "rss", "comm"} {
		if i := slices.IndexFunc(columns, func(c table.Column) bool { return c.Name == name }); i >= 0 {
			s = append(s, i)
		}
	}
	return s
}

// treeRequest is for the columns that are shown, and those that make the tree.
func treeRequest(columns []table.Column, o output) table.Request {
	wanted := o.options.Columns.With(o.order.Columns()...)
	for _, name := range []string{"pid", "ppid", "comm"} {
		wanted = wanted.With(table.ColumnIndex(columns, name))
	}
	depth := len(columns) - 1 // is not of the view
	return table.Request{Columns: slices.DeleteFunc(wanted, func(i int) bool { return i >= depth })}
}

// treeRows orders rows as a tree and adds their depth; draw puts the lines of
// the tree before the names.
func treeRows(rows []table.Row, columns []table.Column, draw bool) func(yield func(table.Row) bool) {
	place := func(name string) int {
		return slices.IndexFunc(columns, func(c table.Column) bool { return c.Name == name })
	}
	comm := place("comm")
	branches := table.Forest(rows, place("pid"), place("ppid"))
	return func(yield func(table.Row) bool) {
		for _, b := range branches {
			row := append(b.Row, table.IntValue(int64(b.Depth)))
			if draw && comm >= 0 && !row[comm].IsNull() {
				row[comm] = table.TextValue(b.Lines + row[comm].Text())
			}
			if !yield(row) {
				return
			}
		}
	}
}
