package table_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/text"
)

// columns has one column of every type, and an option.
var columns = []table.Column{
	{Name: "pid", Type: table.Int, Doc: "Process id."},
	{Name: "comm", Type: table.Text, Doc: "Name."},
	{Name: "rss", Type: table.Size, Doc: "Resident memory, in bytes."},
	{Name: "cpu", Type: table.Duration, Doc: "CPU time, in seconds."},
	{Name: "born", Type: table.Time, Doc: "Start.", Extra: true},
	{Name: "task", Type: table.Addr, Doc: "Address.", Extra: true},
	{Name: "load", Type: table.Float, Doc: "Share.", Extra: true},
	{Name: "idle", Type: table.Bool, Doc: "Idle.", Extra: true},
	{Name: "raw", Type: table.Bytes, Doc: "Bytes.", Extra: true},
	{Name: "big", Type: table.Uint, Doc: "Number.", Extra: true},
	{Name: "args", Type: table.List, Doc: "Arguments."},
	{Name: "threads", Type: table.Bool, Doc: "Show threads.", Option: true},
}

var errTorn = errors.New("torn")

var born = time.Date(2026, 11, 23, 5, 0, 0, 250_000_000, time.UTC)

func row(pid int64, comm string, args ...string) table.Row {
	return table.Row{
		table.IntValue(pid), table.TextValue(comm), table.SizeValue(12_900_000),
		table.DurationValue(1500 * time.Millisecond), table.TimeValue(born),
		table.AddrValue(0xffff888003c2a000), table.FloatValue(0.5), table.BoolValue(true),
		table.BytesValue("\x00\xff"), table.UintValue(math.MaxUint64), table.ListValue(args),
		table.Missing(table.None),
	}
}

func sample(yield func(table.Row, error) bool) {
	swapped := row(7, "swapped")
	swapped[10] = table.Missing(table.SwappedOut)
	_ = yield(row(1, "init", "/sbin/init", "--deep"), nil) &&
		yield(nil, errTorn) &&
		yield(row(42, "e\x1b[2Jvil\xff", "=cmd", "a b", ""), errTorn) &&
		yield(swapped, nil)
}

func view(rows iter.Seq2[table.Row, error]) table.View {
	return table.New(table.Spec{
		Name: "sample", Doc: "Show samples.", Columns: columns,
		Rows: func(context.Context, *guest.Look, table.Request) iter.Seq2[table.Row, error] { return rows },
	})
}

func encode(t *testing.T, f table.Format, o table.Options) string {
	t.Helper()
	var out bytes.Buffer
	enc, err := table.NewEncoder(&out, f, columns, o)
	if err != nil {
		t.Fatal(err)
	}
	var rep table.Report
	for r := range table.Rows(t.Context(), view(sample), nil, table.Request{}, &rep) {
		if err := enc.Row(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(rep.Err, enc.Close()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestTableForm(t *testing.T) {
	same(t, "piped", encode(t, table.Table, table.Options{}), `
PID  COMM             RSS    CPU  ARGS
  1  init             12M  1.50s  /sbin/init --deep
 42  e\x1b[2Jvil\xff  12M  1.50s  =cmd 'a b' ''
  7  swapped          12M  1.50s  (swapped)
`[1:])
	same(t, "narrow", encode(t, table.Table, table.Options{Width: 40, NoHeader: true}), `
 1  init             12M  1.50s  /sbin/…
42  e\x1b[2Jvil\xff  12M  1.50s  =cmd '…
 7  swapped          12M  1.50s  (swapp…
`[1:])
	two, err := table.Select(columns, "born,idle", table.Table)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "records", encode(t, table.Table, table.Options{Columns: two, Single: true}), `
born  2026-11-23 05:00:00
idle  yes

born  2026-11-23 05:00:00
idle  yes

born  2026-11-23 05:00:00
idle  yes
`[1:])
}

func TestJSON(t *testing.T) {
	lines := strings.SplitAfter(encode(t, table.JSON, table.Options{}), "\n")
	same(t, "first line", lines[0], `{"pid":1,"comm":"init","rss":12900000,"cpu":1.5,"born":"2026-11-23T05:00:00.25Z",`+
		`"task":"0xffff888003c2a000","load":0.5,"idle":true,"raw":"00ff","big":18446744073709551615,"args":["/sbin/init","--deep"]}`+"\n")
	var got struct {
		Comm string
		Args []string
	}
	if err := json.Unmarshal([]byte(lines[1]), &got); err != nil {
		t.Fatal(err)
	}
	same(t, "hostile name", text.FromLossless(got.Comm), "e\x1b[2Jvil\xff")
	if strings.ContainsRune(lines[1], 0x1b) || !strings.HasSuffix(lines[2], `"args":null}`+"\n") {
		t.Errorf("got %q and %q", lines[1], lines[2])
	}
}

func TestCSV(t *testing.T) {
	records, err := csv.NewReader(strings.NewReader(encode(t, table.CSV, table.Options{}))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"pid", "comm", "rss", "cpu", "born", "task", "load", "idle", "raw", "big", "args"},
		{"42", `e\x1b[2Jvil\xff`, "12900000", "1.5", "2026-11-23T05:00:00.25Z", "0xffff888003c2a000", "0.5", "true", "00ff", "18446744073709551615", `["=cmd","a b",""]`},
	}
	if diff := cmp.Diff(want, [][]string{records[0], records[2]}); diff != "" {
		t.Error(diff)
	}
}

// No text is a formula to a spreadsheet, and each can be recovered.
func TestCSVFormula(t *testing.T) {
	for _, s := range []string{"=1+1", "+1", "-bash", "@sum", "＝1", "\t=1", "plain", "", " =1"} {
		var out bytes.Buffer
		enc, err := table.NewEncoder(&out, table.CSV, columns, table.Options{Columns: table.Selection{1}, NoHeader: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(enc.Row(row(1, s)), enc.Close()); err != nil {
			t.Fatal(err)
		}
		cell := strings.TrimSuffix(out.String(), "\r\n")
		if strings.ContainsAny(cell[:1], "=+-@\t\r") || strings.HasPrefix(cell, "＝") {
			t.Errorf("%q became the formula %q", s, cell)
		}
		same(t, "read back", text.FromVisible(strings.Trim(cell, `"`)), s)
	}
}

func TestReport(t *testing.T) {
	var rep table.Report
	n := 0
	for range table.Rows(t.Context(), view(sample), nil, table.Request{}, &rep) {
		n++
	}
	if n != 3 || rep.Err != nil {
		t.Fatalf("%d rows, %v", n, rep.Err)
	}
	want := []string{
		"sample: 2 of 4 unreadable, 1 of them not shown; the first: torn",
		"sample: args missing in 1 of 4 rows: swapped out",
	}
	if diff := cmp.Diff(want, rep.Diagnostics(view(sample))); diff != "" {
		t.Error(diff)
	}
}

func TestFailureEndsRows(t *testing.T) {
	gone := errors.New("the guest is gone")
	var rep table.Report
	n := 0
	for range table.Rows(t.Context(), view(func(yield func(table.Row, error) bool) {
		_ = yield(row(1, "a"), nil) && yield(nil, table.Failure(gone)) && yield(row(2, "b"), nil)
	}), nil, table.Request{}, &rep) {
		n++
	}
	if n != 1 || !errors.Is(rep.Err, gone) {
		t.Errorf("%d rows, then %v", n, rep.Err)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var rep table.Report
	for range table.Rows(ctx, view(sample), nil, table.Request{}, &rep) {
		cancel()
	}
	if rep.Rows != 1 || !errors.Is(rep.Err, context.Canceled) {
		t.Errorf("%d rows, then %v", rep.Rows, rep.Err)
	}
}

func TestConstraints(t *testing.T) {
	where := func(column string, op table.Op, values ...table.Value) []table.Constraint {
		return []table.Constraint{{Column: column, Op: op, Values: values}}
	}
	for name, c := range map[string]struct {
		where []table.Constraint
		want  string
	}{
		"one":           {where("pid", table.Equal, table.IntValue(42)), "42 "},
		"one of many":   {where("pid", table.Equal, table.UintValue(1), table.IntValue(7)), "1 7 "},
		"ordered":       {where("pid", table.GreaterOrEqual, table.IntValue(7)), "42 7 "},
		"text":          {where("comm", table.Equal, table.TextValue("init")), "1 "},
		"never null":    {where("args", table.Less, table.ListValue([]string{"\xff"})), "1 42 "},
		"option column": {where("threads", table.Equal, table.BoolValue(true)), "1 42 7 "},
	} {
		var rep table.Report
		got := ""
		for r := range table.Rows(t.Context(), view(sample), nil, table.Request{Where: c.where}, &rep) {
			got += fmt.Sprint(r[0].Int(), " ")
		}
		if got != c.want || rep.Err != nil {
			t.Errorf("%s: got %q, %v", name, got, rep.Err)
		}
	}
	var rep table.Report
	for range table.Rows(t.Context(), view(sample), nil, table.Request{Where: where("nosuch", table.Equal)}, &rep) {
		t.Error("a row")
	}
	if rep.Err == nil {
		t.Error("a constraint on no column went through")
	}
}

// process is an object with cells that are made on request.
type process struct {
	pid    int64
	unread error
}

func (p *process) Unread() error { return p.unread }

// A getter runs only where its column is wanted, and its error goes with the row.
func TestWantedColumns(t *testing.T) {
	var made []string
	get := func(name string, v func(*process) table.Value) func(*process) table.Value {
		return func(p *process) table.Value {
			made = append(made, name)
			return v(p)
		}
	}
	v := table.Of(table.Spec{Name: "sample", Doc: "Show samples."}, table.Columns[process]{
		{Name: "pid", Type: table.Int, Doc: "Process id.", Get: get("pid", func(p *process) table.Value { return table.IntValue(p.pid) })},
		{Name: "args", Type: table.List, Doc: "Arguments.", Get: get("args", func(p *process) table.Value {
			p.unread = errTorn
			return table.Missing(table.Unreadable)
		})},
		{Name: "comm", Type: table.Text, Doc: "Name.", Get: get("comm", func(*process) table.Value { return table.TextValue("x") })},
		{Name: "threads", Type: table.Bool, Doc: "Show threads.", Option: true},
	}, func(_ context.Context, _ *guest.Look, r table.Request) iter.Seq2[*process, error] {
		made = append(made, fmt.Sprint(r.Wants("args", "threads")))
		return func(yield func(*process, error) bool) {
			_ = yield(&process{pid: 7}, nil) && yield(nil, errTorn)
		}
	})
	if got := table.SpecOf(v).Columns; len(got) != 4 || !got[3].Option || got[1].Doc != "Arguments." {
		t.Errorf("columns %+v", got)
	}
	for name, c := range map[string]struct {
		r          table.Request
		made       string
		unreadable int
	}{
		"all":        {table.Request{}, "[true pid args comm]", 2},
		"one":        {table.Request{Columns: table.Selection{2}}, "[false comm]", 1},
		"none":       {table.Request{Columns: table.Selection{}}, "[false]", 1},
		"by its pid": {table.Request{Columns: table.Selection{2}, Where: []table.Constraint{{Column: "pid", Values: []table.Value{table.IntValue(7)}}}}, "[false pid comm]", 1},
		"expensive":  {table.Request{Columns: table.Selection{3, 1}}, "[true args]", 2},
	} {
		made = nil
		var rep table.Report
		n := 0
		for r := range table.Rows(t.Context(), v, nil, c.r, &rep) {
			if n++; len(r) != 4 {
				t.Errorf("%s: %d cells", name, len(r))
			}
		}
		if fmt.Sprint(made) != c.made || n != 1 || rep.Unreadable != c.unreadable {
			t.Errorf("%s: made %v, %d rows, %d unreadable", name, made, n, rep.Unreadable)
		}
	}
}

func TestSelectAndSort(t *testing.T) {
	for list, want := range map[string]table.Selection{
		"":         {0, 1, 2, 3, 10},
		"all":      {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
		"comm,pid": {1, 0},
		"+task":    {0, 1, 2, 3, 10, 5},
	} {
		got, err := table.Select(columns, list, table.Table)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", list, err, diff)
		}
	}
	for _, list := range []string{"nosuch", "pid,", "threads"} {
		if _, err := table.Select(columns, list, table.Table); err == nil {
			t.Errorf("selected %q", list)
		}
	}
	order, err := table.ParseOrder(columns, "-comm,pid")
	if err != nil {
		t.Fatal(err)
	}
	rows := []table.Row{row(2, "a"), row(1, "b"), row(1, "a")}
	order.Sort(rows)
	got := ""
	for _, r := range rows {
		got += r[1].Text() + r[0].String() + " "
	}
	same(t, "order", got, "b1 a1 a2 ")
}

func TestHumanForms(t *testing.T) {
	for want, v := range map[string]table.Value{
		"0":      table.SizeValue(0),
		"1023":   table.SizeValue(1023),
		"1.0K":   table.SizeValue(1024),
		"1.0M":   table.SizeValue(1<<20 - 1),
		"16E":    table.SizeValue(math.MaxUint64),
		"0.04s":  table.DurationValue(47 * time.Millisecond),
		"59.99s": table.DurationValue(time.Minute - 1),
		"2m03s":  table.DurationValue(123 * time.Second),
		"1d01h":  table.DurationValue(25 * time.Hour),
		"-1.00s": table.DurationValue(-time.Second),
		"?":      table.Missing(table.Unreadable),
		`""`:     table.TextValue(""),
	} {
		same(t, want, v.String(), want)
	}
	if v := table.TimeValue(time.Unix(1<<55, 0)); !v.IsNull() || v.Reason() != table.Unreadable {
		t.Errorf("a time past the end of times: %v", v)
	}
}

func TestJSONSeconds(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0": 0, "1": time.Second, "0.000000001": 1, "-0.5": -time.Second / 2,
		"12345.000006": 12345*time.Second + 6000, "-9223372036.854775808": math.MinInt64,
	} {
		same(t, want, string(table.AppendJSON(nil, table.DurationValue(d))), want)
	}
}

func TestValuesDoNotAllocate(t *testing.T) {
	r := make(table.Row, 3)
	if n := testing.AllocsPerRun(100, func() {
		r[0], r[1], r[2] = table.IntValue(1), table.TextValue("x"), table.TimeValue(born)
	}); n != 0 {
		t.Errorf("%v allocations a row", n)
	}
}

func TestValidate(t *testing.T) {
	good := table.Spec{Name: "sample", Doc: "Show samples.", Source: "task_struct", Key: []string{"pid"}, Columns: columns}
	if err := table.Validate(table.New(good)); err != nil {
		t.Error(err)
	}
	for word, spoil := range map[string]func(*table.Spec){
		"lower-case":       func(s *table.Spec) { s.Name = "Sample" },
		"no documentation": func(s *table.Spec) { s.Doc = "" },
		"no source":        func(s *table.Spec) { s.Source = "" },
		"has a key":        func(s *table.Spec) { s.Key = nil },
		"has none":         func(s *table.Spec) { s.Single = true },
		"no column":        func(s *table.Spec) { s.Key = []string{"pid", "nosuch"} },
		"twice":            func(s *table.Spec) { s.Key = []string{"pid", "pid"} },
		"no option": func(s *table.Spec) {
			s.Columns = []table.Column{{Name: "pid", Type: table.Int, Doc: "Process.", With: "comm"}}
		},
	} {
		s := good
		spoil(&s)
		if err := table.Validate(table.New(s)); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", word, err)
		}
	}
	getter := table.Of(good, table.Columns[process]{{Name: "pid", Type: table.Int, Doc: "Process."}}, nil)
	if err := table.Validate(getter); err == nil || !strings.Contains(err.Error(), "getter") {
		t.Errorf("a column without getter: %v", err)
	}
}

// A stream shows each row at once, and its columns grow.
func TestFlush(t *testing.T) {
	two := table.Selection{1, 0}
	for f, want := range map[table.Format][3]string{
		table.JSON:  {"{\"comm\":\"a\",\"pid\":1}\n", "{\"comm\":\"longer\",\"pid\":200}\n", "{\"comm\":\"b\",\"pid\":3}\n"},
		table.CSV:   {"comm,pid\r\na,1\r\n", "longer,200\r\n", "b,3\r\n"},
		table.Table: {"COMM  PID\na       1\n", "longer  200\n", "b         3\n"},
	} {
		var out bytes.Buffer
		enc, err := table.NewEncoder(&out, f, columns, table.Options{Columns: two})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range []table.Row{row(1, "a"), row(200, "longer"), row(3, "b")} {
			out.Reset()
			if err := errors.Join(enc.Row(r), enc.Flush()); err != nil {
				t.Fatal(err)
			}
			same(t, fmt.Sprint(f, " ", i), out.String(), want[i])
		}
		out.Reset()
		if err := enc.Close(); err != nil || out.Len() > 0 {
			t.Errorf("%s: %q after the last row, %v", f, out.String(), err)
		}
	}
}

func BenchmarkJSON(b *testing.B) {
	enc, _ := table.NewEncoder(new(bytes.Buffer), table.JSON, columns, table.Options{})
	r := row(1, "systemd", "/sbin/init")
	b.ReportAllocs()
	for b.Loop() {
		if err := enc.Row(r); err != nil {
			b.Fatal(err)
		}
	}
}

func Example() {
	hosts := table.New(table.Spec{
		Name: "hosts",
		Doc:  "Show hosts.",
		Columns: []table.Column{
			{Name: "name", Type: table.Text, Doc: "Its name."},
			{Name: "ram", Type: table.Size, Doc: "Its memory, in bytes."},
		},
		Rows: func(context.Context, *guest.Look, table.Request) iter.Seq2[table.Row, error] {
			return func(yield func(table.Row, error) bool) {
				yield(table.Row{table.TextValue("db1"), table.SizeValue(4 << 30)}, nil)
			}
		},
	})
	enc, err := table.NewEncoder(os.Stdout, table.JSON, hosts.Columns(), table.Options{})
	if err != nil {
		panic(err)
	}
	var report table.Report
	for row := range table.Rows(context.Background(), hosts, nil, table.Request{}, &report) {
		enc.Row(row)
	}
	enc.Close()
	// Output: {"name":"db1","ram":4294967296}
}
