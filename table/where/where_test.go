package where_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/where"
)

var columns = []table.Column{
	{Name: "pid", Type: table.Int},
	{Name: "rss", Type: table.Size},
	{Name: "comm", Type: table.Text},
	{Name: "exe", Type: table.Text},
	{Name: "cpu_time", Type: table.Duration},
	{Name: "started", Type: table.Time},
	{Name: "args", Type: table.List},
	{Name: "owners", Type: table.Numbers},
	{Name: "task", Type: table.Addr},
	{Name: "kernel_thread", Type: table.Bool},
	{Name: "with_x", Type: table.Bool, Option: true},
}

var row = table.Row{
	table.IntValue(7), table.SizeValue(1 << 20), table.TextValue("s\xffhd"), table.Missing(table.None),
	table.DurationValue(90 * time.Second), table.TimeValue(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)),
	table.ListValue([]string{"sshd", "-D"}), table.NumbersValue([]int{3, -4}), table.AddrValue(0xffff888003c2a000),
	table.BoolValue(false),
	{},
}

func TestMatches(t *testing.T) {
	for expression, want := range map[string]bool{
		`pid == 7`:                    true,
		`pid > 7 || rss >= 1048576`:   true,
		`comm.startsWith("s")`:        true,
		`comm.matches("^s.hd$")`:      true,
		`exe == "/bin/sh"`:            false,
		`exe != "/bin/sh"`:            true,
		`exe == null`:                 true,
		`exe.startsWith("/")`:         false, // missing: not true
		`exe.startsWith("/") || true`: true,
		`cpu_time > duration("1m")`:   true,
		`started < timestamp("2026-02-01T00:00:00Z") && started.getFullYear() == 2026`: true,
		`"-D" in args && size(args) == 2`:                                              true,
		`-4 in owners`:                                                                 true,
		`task == "0xffff888003c2a000"`:                                                 true,
		`!kernel_thread`:                                                               true,
		`kernel_thread`:                                                                false,
		`kernel_thread || (pid == 7)`:                                                  true,
	} {
		f, err := where.Compile(columns, expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		for range 2 {
			if got, err := f.Matches(row); err != nil || got != want {
				t.Errorf("%s: %v, %v", expression, got, err)
			}
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for expression, word := range map[string]string{
		`pid ==`:                   "character 7: it ends where a value is expected",
		``:                         "it is empty",
		`pdi == 7`:                 "character 1: no column pdi; did you mean pid?",
		`with_x`:                   "character 1: no column with_x; text is written in quotes: \"with_x\"",
		`comm == sshd`:             "character 9: no column sshd; text is written in quotes: \"sshd\"",
		`foo(1)`:                   "character 4: no function foo",
		`pid == "x"`:               "character 5: == does not take int and string",
		`!pid`:                     "character 1: ! does not take int",
		`"x" in comm`:              "character 5: in does not take string and string",
		`pid`:                      "gives int, not true or false",
		`comm.matches("(")`:        "missing closing )",
		`pid.startsWith("1")`:      "character 15: startsWith of int does not take (string)",
		`comm + "x"`:               "true or false",
		`pid = 7`:                  "character 5: unexpected =: write == to compare",
		`pid == 7)`:                "character 9: unexpected )",
		`(pid == 1`:                "character 10: ) is missing",
		`pid == 7 and rss > 1`:     "character 10: unexpected and: write &&",
		`comm == 'x`:               "character 9: the text 'x has no quotation mark at its end",
		"pid == 7 &&\n comm = 'x'": "line 2, character 7: unexpected =: write == to compare",
		`pid == 7;`:                "character 9: unexpected ;",
		`comm.foo`:                 "character 5: type 'string' does not support field selection",
	} {
		if _, err := where.Compile(columns, expression); err == nil || !strings.HasSuffix(err.Error(), word) && !strings.Contains(err.Error(), word+":") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", expression, err)
		}
	}
}

func TestMatchesIsBounded(t *testing.T) {
	f, err := where.Compile(columns, `args.exists(a, args.exists(b, args.exists(c, args.exists(d, a + b + c + d == "x"))))`)
	if err != nil {
		t.Fatal(err)
	}
	many := append(table.Row(nil), row...)
	many[6] = table.ListValue(make([]string, 500))
	if _, err := f.Matches(many); err == nil || !strings.Contains(err.Error(), "cost") {
		t.Errorf("%v", err)
	}
}

func FuzzCompile(f *testing.F) {
	f.Add(`pid == 7 && "x" in args`)
	f.Add(`comm.matches("(a|b)*") ? rss > 1 : started < timestamp("2026-02-01T00:00:00Z")`)
	f.Fuzz(func(t *testing.T, expression string) {
		filter, err := where.Compile(columns, expression)
		if err == nil {
			_, _ = filter.Matches(row)
		}
	})
}

func Example() {
	filter, err := where.Compile(columns, `rss > 1000000 && "-D" in args`)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(filter.Matches(row))
	// Output: true <nil>
}
