package check

import (
	"context"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
)

// View shows findings as the rows of a view, for the encoders.
func View(findings iter.Seq[*Finding]) table.View {
	return table.Of(table.Spec{
		Name: "check", Doc: "Show what is not as it must be.", Host: true, Key: []string{"check", "object"},
	}, findingColumns, func(context.Context, *guest.Look, table.Request) iter.Seq2[*Finding, error] {
		return func(yield func(*Finding, error) bool) {
			for f := range findings {
				if !yield(f, nil) {
					return
				}
			}
		}
	})
}

func text(s string) table.Value {
	if s == "" {
		return table.Value{}
	}
	return table.TextValue(s)
}

var findingColumns = table.Columns[Finding]{
	{
		Name: "severity", Type: table.Text, Doc: "How bad it is if it is true: critical, high, medium, low.",
		Get: func(f *Finding) table.Value { return table.TextValue(string(f.Severity)) },
	},
	{
		Name: "confidence", Type: table.Text, Doc: "How sure it is: certain (no healthy guest looks so), likely, possible.",
		Get: func(f *Finding) table.Value { return table.TextValue(string(f.Confidence)) },
	},
	{
		Name: "check", Type: table.Text, Doc: "ID of the check that found it; outsight check --list documents them.",
		Get: func(f *Finding) table.Value { return table.TextValue(f.Check.ID) },
	},
	{
		Name: "title", Type: table.Text, Doc: "What was found, in one sentence.",
		Get: func(f *Finding) table.Value { return table.TextValue(f.Title) },
	},
	{
		Name: "object", Type: table.Text, Extra: true, Doc: "What it is about: kind, PID and name.",
		Get: func(f *Finding) table.Value { return table.TextValue(f.Object.String()) },
	},
	{
		Name: "pid", Type: table.Int, Extra: true, Doc: "Process or thread that it is about; missing for others.",
		Get: func(f *Finding) table.Value {
			if f.Object.PID == 0 {
				return table.Value{}
			}
			return table.IntValue(int64(f.Object.PID))
		},
	},
	{
		Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the object; missing if it has none.",
		Get: func(f *Finding) table.Value {
			if f.Object.Addr == 0 {
				return table.Value{}
			}
			return table.AddrValue(uint64(f.Object.Addr))
		},
	},
	{
		Name: "expected", Type: table.Text, Extra: true, Doc: "What should be there.",
		Get: func(f *Finding) table.Value { return text(f.Expected) },
	},
	{
		Name: "seen", Type: table.Text, Extra: true, Doc: "What is there.",
		Get: func(f *Finding) table.Value { return text(f.Seen) },
	},
	{
		Name: "evidence", Type: table.List, Extra: true, Doc: "Facts that it rests on, with their addresses and bytes.",
		Get: func(f *Finding) table.Value { return table.ListValue(evidenceTexts(f)) },
	},
	{
		Name: "key", Type: table.Text, Extra: true, Doc: "Names the finding for as long as the guest runs: --since goes by it.",
		Get: func(f *Finding) table.Value { return table.TextValue(f.Key()) },
	},
	{
		Name: "at", Type: table.Time, Extra: true, Doc: "When it was found, by the host's clock.",
		Get: func(f *Finding) table.Value { return table.TimeValue(f.At) },
	},
	{
		Name: "technique", Type: table.Text, Extra: true, Doc: "Technique of MITRE ATT&CK that it is a sign of.",
		Get: func(f *Finding) table.Value { return table.TextValue(f.Check.Technique) },
	},
	{
		Name: "basis", Type: table.Text, Extra: true, Doc: "What was compared with what, and whose word that is.",
		Get: func(f *Finding) table.Value { return text(f.Basis) },
	},
	{
		Name: "reference", Type: table.Text, Extra: true, Doc: "What the kernel's text was compared with, and what that proves.",
		Get: func(f *Finding) table.Value { return text(f.Reference) },
	},
	{
		Name: "proves", Type: table.Text, Extra: true, Doc: "What it proves.",
		Get: func(f *Finding) table.Value { return text(oneLine(f.Check.Proves)) },
	},
	{
		Name: "show", Type: table.Text, Extra: true, Doc: "Command that shows it by hand.",
		Get: func(f *Finding) table.Value { return text(f.Show) },
	},
	{
		Name: "next", Type: table.Text, Extra: true, Doc: "What to do about it.",
		Get: func(f *Finding) table.Value { return text(f.Next()) },
	},
}

// oneLine joins the lines of a text of several.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
