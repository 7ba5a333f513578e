package sql_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/sql"
	_ "github.com/outsight-vmi/outsight/table/views"
)

// asked are the conditions that the view below was asked with.
var asked [][]table.Constraint

// used are the columns that it was asked for last.
var used table.Selection

func init() {
	table.Register(table.New(table.Spec{
		Name: "sample", Doc: "Show what was asked.", Source: "nothing", Key: []string{"pid"},
		Columns: []table.Column{
			{Name: "pid", Type: table.Int, Doc: "A number."},
			{Name: "path", Type: table.Text, Doc: "A text."},
			{Name: "at", Type: table.Addr, Doc: "An address."},
			{Name: "list", Type: table.Numbers, Doc: "Numbers."},
			{Name: "big", Type: table.Uint, Doc: "A large number."},
			{Name: "with_more", Type: table.Bool, Option: true, Doc: "More rows."},
			{Name: "with_error", Type: table.Bool, Option: true, Doc: "Fail."},
			{Name: "with_same", Type: table.Bool, Option: true, Doc: "All rows alike."},
		},
		Rows: func(_ context.Context, g *guest.Look, r table.Request) iter.Seq2[table.Row, error] {
			asked, used = append(asked, r.Where), r.Columns
			n := 3
			if r.Option("with_more") {
				n = 5
			}
			return func(yield func(table.Row, error) bool) {
				for i := range n {
					if r.Option("with_same") {
						i = 7
					}
					row := table.Row{
						table.IntValue(int64(i)), table.TextValue(fmt.Sprintf("/P%d", i)), table.AddrValue(0xffff888000000000 + uint64(i)),
						table.NumbersValue([]int{i, 10 * i}), table.UintValue(1<<64 - 1),
						{},
						{},
						{},
					}
					if !yield(row, nil) {
						return
					}
				}
				yield(nil, errors.New("one could not be read"))
				if r.Option("with_error") {
					yield(nil, table.Failure(errors.New("the end")))
				}
			}
		},
	}))
}

func system(t testing.TB, name string, pids ...int32) *guest.Look {
	t.Helper()
	g := synth.New(synth.Options{})
	for _, pid := range pids {
		g.Add(synth.Process{PID: pid, Comm: fmt.Sprintf("p%d", pid)})
	}
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &guest.Look{Target: name, Linux: s}
}

func query(t *testing.T, db *sql.DB, statement string) (lines []string, err error) {
	t.Helper()
	rows, err := db.Query(t.Context(), statement)
	if err != nil {
		return nil, err
	}
	for row := range rows.All() {
		var cells []string
		for _, v := range row {
			cells = append(cells, v.String())
		}
		lines = append(lines, strings.Join(cells, " "))
	}
	return lines, rows.Err()
}

func TestQuery(t *testing.T) {
	db, err := sql.Open(t.Context(), []*guest.Look{system(t, "a", 1, 2, 3), system(t, "b", 1, 9)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for statement, want := range map[string]string{
		`select target, pid, comm from ps where pid in (1, 9) order by 1, 2`:                                   "a 1 p1|b 1 p1|b 9 p9",
		`select count(*) from ps where target = 'a'`:                                                           "3",
		`select path, pid from sample where path = '/P1' and target = 'b'`:                                     "/P1 1",
		`select path from sample where path = '/p1' collate nocase and target = 'b'`:                           "/P1",
		`select pid from sample where at = '0xffff888000000002' and target = 'b'`:                              "2",
		`select pid from sample where at > '0xffff888000000001' and target = 'b'`:                              "2",
		`select value from sample, json_each(list) where pid = 2 and target = 'a'`:                             "2|20",
		`select big from sample where pid = 0 and target = 'a'`:                                                "18446744073709551615",
		`select max(pid), with_more from sample where with_more = 1 and target = 'a'`:                          "4 1",
		`select a.pid, b.pid from sample a join ps b on a.pid = b.pid where a.target = 'b' and b.target = 'b'`: "1 1",
		`select 1 where 0`: "",
		// Each in a way of its own for SQLite's planner.
		`select target, pid from ps where pid = 1 or pid = 2 order by 1, 2`:                                                 "a 1|a 2|b 1",
		`select pid from ps where target = 'a' and (pid = 1 or comm = 'p2') order by 1`:                                     "1|2",
		`select target, pid from ps where (target = 'a' and pid = 2) or (target = 'b' and pid = 9) order by 1, 2`:           "a 2|b 9",
		`select pid from sample where target = 'a' and (path = '/P1' or path = '/P2') order by 1`:                           "1|2",
		`select count(*) from ps a join ps b on b.pid = a.pid or b.pid = a.pid + 1 where a.target = 'a' and b.target = 'a'`: "5",
		`select count(distinct rowid) from ps`:                                                                              "5",
		`select count(distinct rowid), max(pid) from sample where target = 'a' and with_more = 1 and with_same = 1`:         "5 7",
	} {
		lines, err := query(t, db, statement)
		if got := strings.Join(lines, "|"); err != nil || got != want {
			t.Errorf("%s: %s, %v", statement, got, err)
		}
	}
	rows, err := db.Query(t.Context(), "select a.pid, b.pid from ps a, ps b limit 1")
	if err != nil {
		t.Fatal(err)
	}
	for range rows.All() {
	}
	if c := rows.Columns(); c[0].Name != "pid" || c[1].Name != "pid_2" || c[1].Type != table.Int {
		t.Errorf("columns %v", c)
	}
}

// The view is asked for the columns that a statement uses, wherever it does.
func TestQueryAsksForWhatItUses(t *testing.T) {
	db, err := sql.Open(t.Context(), []*guest.Look{system(t, "a", 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for statement, want := range map[string]string{
		`select * from sample`:                               "[0 1 2 3 4]",
		`select target, path from sample`:                    "[1]",
		`select count(*) from sample`:                        "[]",
		`select path from sample where at > 'a' and pid = 1`: "[0 1 2]",
		`select 1 from sample order by big`:                  "[4]",
		`select max(length(list)) from sample group by at`:   "[2 3]",
	} {
		used = nil
		if _, err := query(t, db, statement); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
		if got := fmt.Sprint(used); got != want {
			t.Errorf("%s: the view was asked for %s", statement, got)
		}
	}
}

// What a view can use reaches it; what would compare differently there does not.
func TestQueryPushesDown(t *testing.T) {
	db, err := sql.Open(t.Context(), []*guest.Look{system(t, "a", 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for statement, want := range map[string]string{
		`select * from sample where pid = 1 and path = '/P1'`:               "pid=1 path=/P1",
		`select * from sample where pid > 1`:                                "pid>1",
		`select * from sample where pid = 1.5`:                              "",
		`select * from sample where path = '/p1' collate nocase`:            "",
		`select * from sample where path > 'a'`:                             "",
		`select * from ps p join sample s on s.pid = p.pid where p.pid = 1`: "pid=1",
	} {
		asked = nil
		if _, err := query(t, db, statement); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
		var got []string
		for _, c := range asked[0] {
			got = append(got, fmt.Sprintf("%s%v%v", c.Column, c.Op, c.Values[0]))
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("%s: the view was asked %q", statement, g)
		}
	}
}

func TestQueryRefuses(t *testing.T) {
	db, err := sql.Open(t.Context(), []*guest.Look{system(t, "a", 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for statement, word := range map[string]string{
		`select nothing from ps`:                            "nothing",
		`select`:                                            "incomplete",
		`delete from ps`:                                    "only reads",
		`create table t(x)`:                                 "only reads",
		`select 1; select 2`:                                "several",
		`attach ':memory:' as m`:                            "attached",
		`pragma query_only = 0; attach 'x' as m`:            "several",
		`vacuum into 'x'`:                                   "",
		`select * from sample where with_error = 1`:         "sample: the end",
		`create virtual table temp.q using outsight(9, ps)`: "",
	} {
		if _, err := query(t, db, statement); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", statement, err)
		}
	}
	if _, err := query(t, db, `select * from sample`); err != nil {
		t.Fatal(err)
	}
	if r := db.Reports(); len(r) != 1 || r[0].Unreadable != 1 || r[0].Target != "a" {
		t.Errorf("reports %+v", r)
	}
}

func Example() {
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init"})
	g.Add(synth.Process{PID: 7, PPID: 1, Comm: "sshd"})
	ctx := context.Background()
	system, err := linux.Open(ctx, g.Memory, kernel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	db, err := sql.Open(ctx, []*guest.Look{{Target: "web", Linux: system}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	rows, err := db.Query(ctx, `select p.target, p.comm, parent.comm as parent
		from ps p join ps parent on parent.pid = p.ppid`)
	if err != nil {
		fmt.Println(err)
		return
	}
	for row := range rows.All() {
		fmt.Println(row[0], row[1], row[2])
	}
	// Output: web sshd init
}
