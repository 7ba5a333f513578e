package check

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// example is a finding with everything that one can have.
func example() *Finding {
	return &Finding{
		Check:    &Check{ID: "hidden-process", Title: "Processes that are hidden", Severity: High, Technique: "T1564", Proves: "It is\nhidden.", Blind: "Others.", Next: "Look."},
		Severity: High, Confidence: Certain, Title: "process 7 (sh\x1b) is missing from the task list",
		Object: Object{Kind: "process", Name: "sh\x1b", PID: 7, Addr: 0xffff888000000000}, Expected: "in all", Seen: "in some",
		Evidence: []Evidence{{Text: "its task_struct", Addr: 0xffff888000000000, Bytes: []byte{1, 2}}}, Basis: "lists", Show: "outsight ps vm1", At: time.Unix(1e9, 0),
	}
}

func exampleReport(f *Finding) *Report {
	return &Report{
		Target: "/tmp/a b.raw", Guest: "vm1", Release: "6.12", Version: "1", At: time.Unix(1e9, 0), Checks: []*Check{f.Check},
		Assurances: []Assurance{{Subject: "kernel text", State: Verified, Text: "kernel text verified against somebody's signature"}},
	}
}

// decoded is what a writer of JSON wrote.
func decoded(t *testing.T, write func(*bytes.Buffer) error) map[string]any {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(b.Bytes(), &v); err != nil {
		t.Fatalf("%v in %s", err, &b)
	}
	return v
}

// at follows a path of members and indexes.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				t.Fatalf("%v has no element %d", path, p)
			}
			v = l[p]
		}
	}
	return v
}

// TestSARIF: what other programs look for. The whole was validated against the published
// schema (sarif-schema-2.1.0.json) by hand.
func TestSARIF(t *testing.T) {
	f := example()
	v := decoded(t, func(b *bytes.Buffer) error { return exampleReport(f).SARIF(b, []*Finding{f}) })
	run := at(t, v, "runs", 0)
	for want, path := range map[any][]any{
		"hidden-process":             {"results", 0, "ruleId"},
		"error":                      {"results", 0, "level"},
		"file:///tmp/a%20b.raw":      {"results", 0, "locations", 0, "physicalLocation", "artifactLocation", "uri"},
		f.Title + ".":                {"results", 0, "message", "text"},
		"outsight":                   {"tool", "driver", "name"},
		"Processes that are hidden.": {"tool", "driver", "rules", 0, "shortDescription", "text"},
	} {
		if got := at(t, run, path...); got != want {
			t.Errorf("%v is %v, not %v", path, got, want)
		}
	}
	if v["version"] != "2.1.0" {
		t.Errorf("version %v", v["version"])
	}
	if n := at(t, run, "invocations", 0, "toolExecutionNotifications", 0, "message", "text"); n != "kernel text verified against somebody's signature." {
		t.Errorf("the run proves %v", n)
	}
	if s := at(t, run, "properties", "references", 0, "state"); s != "verified" {
		t.Errorf("the reference is %v", s)
	}
	// Of nothing it is a document too, with an empty list: null would not be valid.
	v = decoded(t, func(b *bytes.Buffer) error { return exampleReport(f).SARIF(b, nil) })
	if l, ok := at(t, v, "runs", 0, "results").([]any); !ok || len(l) != 0 {
		t.Errorf("without findings the results are %v", at(t, v, "runs", 0, "results"))
	}
}

// TestOCSF: what class 2004 requires, and that the parts of type_uid agree.
func TestOCSF(t *testing.T) {
	f := example()
	v := decoded(t, func(b *bytes.Buffer) error { return exampleReport(f).OCSF(b, []*Finding{f}) })
	for want, path := range map[any][]any{
		float64(2004): {"class_uid"}, float64(200401): {"type_uid"}, float64(2): {"category_uid"}, float64(4): {"severity_id"},
		float64(1e12): {"time"}, "1.3.0": {"metadata", "version"}, "outsight": {"metadata", "product", "vendor_name"}, float64(3): {"confidence_id"},
		"T1564": {"finding_info", "attacks", 0, "technique", "uid"}, float64(7): {"evidences", 0, "process", "pid"}, "vm1": {"resources", 0, "name"},
		"It is hidden.": {"finding_info", "desc"},
	} {
		if got := at(t, v, path...); got != want {
			t.Errorf("%v is %v, not %v", path, got, want)
		}
	}
	end := decoded(t, func(b *bytes.Buffer) error { return exampleReport(f).OCSFScan(b, 3) })
	for want, path := range map[any][]any{
		float64(6007): {"class_uid"}, float64(600702): {"type_uid"}, float64(6): {"category_uid"}, float64(1): {"severity_id"}, float64(3): {"num_detections"},
		"kernel text verified against somebody's signature": {"message"}, float64(1e12): {"time"}, "1.3.0": {"metadata", "version"},
	} {
		if got := at(t, end, path...); got != want {
			t.Errorf("of the scan %v is %v, not %v", path, got, want)
		}
	}
	uid, _ := at(t, v, "finding_info", "uid").(string)
	if len(uid) != 32 {
		t.Errorf("uid %q", uid)
	}
	other := example()
	other.Object.PID = 8
	if r := exampleReport(f); r.uid(f) != uid || r.uid(other) == uid {
		t.Error("the uid does not name the finding")
	}
}

func TestAllowed(t *testing.T) {
	read := func(s string) ([]Allowed, error) { return ReadAllowed(strings.NewReader(s)) }
	list, err := read(`[{"check":"hidden-process","object":"process * s?","reason":"a debugger","expires":"2027-01-31"}]`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read(` {"check":"hidden-process"}`); err == nil || !strings.Contains(err.Error(), "list of entries") {
		t.Errorf("an object: %v", err)
	}
	f := found("process", "sh", 7)
	f.Check = &Check{ID: "hidden-process"}
	last := time.Date(2027, 1, 31, 23, 59, 0, 0, time.Local)
	if rest, n := Without([]*Finding{f}, list, last); n != 1 || len(rest) != 0 {
		t.Errorf("on its last day %d are allowed", n)
	}
	if rest, n := Without([]*Finding{f}, list, last.Add(2*time.Minute)); n != 0 || len(rest) != 1 || !list[0].Expired(last.Add(2*time.Minute)) {
		t.Errorf("after it %d are allowed", n)
	}
	f.Object.Name = "bash"
	if _, n := Without([]*Finding{f}, list, last); n != 0 {
		t.Error("another object is allowed")
	}
	for text, want := range map[string]string{
		`{}`: "JSON", `[{"check":"no","object":"x","reason":"x","expires":"2027-01-31"}]`: "unknown check",
		`[{"check":"hidden-process","object":"x","reason":" ","expires":"2027-01-31"}]`: "reason",
		`[{"check":"hidden-process","object":"[","reason":"x","expires":"2027-01-31"}]`: "pattern",
		`[{"check":"hidden-process","object":"x","reason":"x","expires":"never"}]`:      "date",
		`[{"check":"hidden-process","object":"x","reason":"x","until":"never"}]`:        "unknown field \"until\"",
		"":                        "in JSON: it is empty",
		"[\n {\"check\": }]":      "in JSON: line 2, character 12: unexpected '}'",
		"[{\"check\":\"x\"":       "in JSON: it ends before the list does",
		"[\n7]":                   "in JSON: line 2, character 1: an entry is of type number",
		`[{"check":7}]`:           "check is of type number",
		"[\n]\n x":                "line 3, character 2: something follows the list",
		"- check: hidden-process": "unexpected ' '",
	} {
		if _, err := read(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestBaseline(t *testing.T) {
	f := found("process", "sh", 7)
	f.Expected = "in all"
	b, err := ReadBaseline(strings.NewReader(`{"check":"x","key":"` + f.Key() + `"}` + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	other := found("process", "sh", 8)
	if fresh := b.New([]*Finding{f, other}); len(fresh) != 1 || fresh[0] != other {
		t.Errorf("new are %v", fresh)
	}
	for _, text := range []string{"{}", "x", `{"check":"x"}`} {
		if _, err := ReadBaseline(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzReadAllowed(f *testing.F) {
	f.Add([]byte(`[{"check":"hidden-process","object":"process * s?","reason":"a debugger","expires":"2027-01-31"}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := ReadAllowed(bytes.NewReader(b))
		if err == nil {
			Without([]*Finding{example()}, list, time.Now())
		}
	})
}

func FuzzReadBaseline(f *testing.F) {
	f.Add([]byte(`{"check":"x","key":"00"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if known, err := ReadBaseline(bytes.NewReader(b)); err == nil {
			known.New([]*Finding{example()})
		}
	})
}
