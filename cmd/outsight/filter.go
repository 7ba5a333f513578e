package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/table"
)

// filterFlags are the flags that a view's columns give: --pid for every view
// with a column of that name, and a switch for every option column.
type filterFlags struct {
	columns []table.Column
	pids    []int64
	options map[string]*bool
}

func newFilterFlags(columns []table.Column) *filterFlags {
	return &filterFlags{columns: columns, options: map[string]*bool{}}
}

func (f *filterFlags) add(c *cobra.Command) {
	for _, col := range f.columns {
		switch {
		case col.Option:
			f.options[col.Name] = c.Flags().Bool(optionFlag(col.Name), false, lowerFirst(strings.TrimSuffix(col.Doc, ".")))
		case col.Name == "pid":
			c.Flags().Var((*pidList)(&f.pids), "pid", "only these processes: `pids` with commas between them")
		}
	}
}

// optionFlag is the flag of an option column. A prefix "with_" tells it from a
// column of data with the same name, and is not part of the flag.
func optionFlag(column string) string {
	return strings.ReplaceAll(strings.TrimPrefix(column, "with_"), "_", "-")
}

func (f *filterFlags) constraints() []table.Constraint {
	var where []table.Constraint
	if len(f.pids) > 0 {
		pids := table.Constraint{Column: "pid"}
		for _, pid := range f.pids {
			pids.Values = append(pids.Values, table.IntValue(pid))
		}
		where = append(where, pids)
	}
	for name, on := range f.options {
		if *on {
			where = append(where, table.Constraint{Column: name, Values: []table.Value{table.BoolValue(true)}})
		}
	}
	return where
}

// pidList is a flag that may be repeated and takes lists.
type pidList []int64

func (l *pidList) Set(s string) error {
	for field := range strings.SplitSeq(s, ",") {
		pid, err := strconv.ParseInt(strings.TrimSpace(field), 10, 32)
		if err != nil || pid < 0 {
			return usagef("%q is no pid", field)
		}
		*l = append(*l, pid)
	}
	return nil
}

func (l *pidList) Type() string { return "pids" }

func (l *pidList) String() string {
	var fields []string
	for _, pid := range *l {
		fields = append(fields, strconv.FormatInt(pid, 10))
	}
	return strings.Join(fields, ",")
}
