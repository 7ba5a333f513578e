package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table/sql"
)

const queryLong = `Ask guests in SQL. Every view is a table, with the columns that its verb has ("outsight
tables" lists them, "outsight tables --details" with their columns), and a column target
that says which guest a row is of: several TARGETs can be asked at once.

It is SQLite's SQL, read only. Options of views are hidden columns ("where with_threads =
1"), lists are JSON arrays (json_each), addresses are text, times are text in UTC, durations
are seconds, booleans are 1 and 0. A view is read when it is asked: one that is named twice is read twice, and
the guest may have gone on meanwhile (--pause stops it).`

func newQueryCommand() *cobra.Command {
	var access guestFlags
	var out outputFlags
	c := &cobra.Command{
		Use:   "query [TARGET ...] SQL",
		Short: "Ask guests in SQL over all views",
		Long:  queryLong,
		Example: `  outsight query lab:demo 'select pid, comm from ps where uid = 0 order by rss desc limit 5'
  outsight query vm1 vm2 'select target, release from info'
  outsight query 'select p.comm, c.comm as child from ps p join ps c on c.ppid = p.pid' -o json`,
		GroupID: groupAsk,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("query takes a statement in SQL, such as 'select pid, comm from ps'")
			}
			return nil
		},
		ValidArgsFunction: completeTarget,
	}
	access.add(c)
	out.add(c, nil)
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if strings.HasPrefix(err.Error(), "unknown flag: -- ") {
			return usagef("a statement that begins with a comment needs a -- of its own before it: outsight query TARGET -- '-- …'")
		}
		return err
	})
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		targets, statement := args[:len(args)-1], args[len(args)-1]
		if len(strings.Fields(statement)) < 2 {
			return usagef("%q is not an SQL statement; it comes last, after the TARGETs", statement)
		}
		if len(targets) == 0 {
			targets = []string{""}
		}
		var guests []*guest.Look
		for i, t := range targets {
			if slices.Contains(targets[:i], t) {
				return usagef("%s is named twice: its rows could not be distinguished", t)
			}
		}
		for _, t := range targets {
			g, done, err2 := access.open(c.Context(), t)
			if err2 != nil {
				return errors.Join(err, err2)
			}
			defer func() { err = errors.Join(err, done()) }()
			if same := slices.IndexFunc(guests, func(o *guest.Look) bool { return g.Machine.PID != 0 && o.Machine.PID == g.Machine.PID }); same >= 0 {
				return usagef("%s and %s are the same guest: its rows could not be distinguished", targets[same], t)
			}
			guests = append(guests, g)
		}
		db, err := sql.Open(c.Context(), guests)
		if err != nil {
			return err
		}
		defer db.Close()
		rows, err := db.Query(c.Context(), statement)
		if err != nil {
			return queryError(err)
		}
		defer rows.Close() // before db, which waits for it
		o, err := out.parse(c.OutOrStdout(), rows.Columns())
		if err != nil {
			return err
		}
		if err := o.write(c.OutOrStdout(), rows.Columns(), rows.All()); err != nil {
			return err
		}
		for _, line := range gaps(db.Reports()) {
			fmt.Fprintln(c.ErrOrStderr(), "outsight: "+sentence(line))
		}
		if rows.Err() == nil && slices.ContainsFunc(db.Reports(), func(r *sql.Report) bool { return r.Absent > 0 }) {
			return errIncomplete{}
		}
		return queryError(rows.Err())
	}
	return c
}

// queryError distinguishes an invalid statement from a guest that cannot be read.
func queryError(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrStatement) {
		return usagef("%w; outsight tables --details lists tables and columns", err)
	}
	return err
}

// gaps is what could not be read, once for each view however often it was asked.
func gaps(reports []*sql.Report) (lines []string) {
	seen := map[string]bool{}
	for _, r := range reports {
		for _, line := range r.Diagnostics(r.View) {
			if r.Target != "" {
				line = r.Target + ": " + line
			}
			if !seen[line] {
				seen[line] = true
				lines = append(lines, line)
			}
		}
	}
	return lines
}
