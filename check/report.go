package check

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Report is what the formats for other programs say beside the findings.
type Report struct {
	Target  string // as the user gave it
	Guest   string // name of the machine, if it has one
	Release string // of its kernel
	Version string // of outsight
	At      time.Time
	Checks  []*Check // that were run
	// Assurances are what the run proves.
	Assurances []Assurance
}

// uid identifies a finding on one guest, across runs.
func (r *Report) uid(f *Finding) string {
	sum := sha256.Sum256([]byte(r.Target + "\x00" + f.Key()))
	return hex.EncodeToString(sum[:16])
}

const homepage = "https://github.com/outsight-vmi/outsight"

// SARIF writes findings in the Static Analysis Results Interchange Format, version 2.1.0
// (OASIS standard). The guest is the artifact, the address of the object its region.
func (r *Report) SARIF(w io.Writer, findings []*Finding) error {
	type message struct {
		Text string `json:"text"`
	}
	type rule struct {
		ID            string            `json:"id"`
		Name          string            `json:"name"`
		Short         message           `json:"shortDescription"`
		Full          message           `json:"fullDescription"`
		Help          message           `json:"help"`
		Configuration map[string]string `json:"defaultConfiguration"`
		Properties    map[string]any    `json:"properties"`
	}
	type result struct {
		Rule         string            `json:"ruleId"`
		Index        int               `json:"ruleIndex"`
		Level        string            `json:"level"`
		Message      message           `json:"message"`
		Locations    []any             `json:"locations"`
		Fingerprints map[string]string `json:"partialFingerprints"`
		Properties   map[string]any    `json:"properties"`
	}
	rules, results := []rule{}, []result{}
	for _, c := range r.Checks {
		rules = append(rules, rule{
			ID: c.ID, Name: c.ID, Short: message{c.Title + "."}, Full: message{oneLine(c.Proves)},
			Help:          message{"It cannot see: " + oneLine(c.Blind) + " What to do: " + oneLine(c.Next)},
			Configuration: map[string]string{"level": sarifLevel(c.Severity)},
			Properties:    map[string]any{"tags": []string{"security", c.Technique}, "security-severity": sarifScore(c.Severity)},
		})
	}
	for _, f := range findings {
		location := map[string]any{
			"physicalLocation": map[string]any{"artifactLocation": map[string]any{"uri": artifact(r.Target)}},
			"logicalLocations": []map[string]any{{"name": f.Object.String(), "kind": f.Object.Kind}},
		}
		results = append(results, result{
			Rule: f.Check.ID, Index: slices.Index(r.Checks, f.Check), Level: sarifLevel(f.Severity), Message: message{f.Title + "."},
			Locations: []any{location}, Fingerprints: map[string]string{"outsight/v1": r.uid(f)},
			Properties: map[string]any{
				"severity": f.Severity, "confidence": f.Confidence, "expected": f.Expected, "seen": f.Seen, "basis": f.Basis,
				"reference": f.Reference, "evidence": evidenceTexts(f), "show": f.Show, "technique": f.Check.Technique,
			},
		})
	}
	return encode(w, map[string]any{
		"$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json",
		"version": "2.1.0",
		"runs": []any{map[string]any{
			"tool":        map[string]any{"driver": map[string]any{"name": "outsight", "version": r.Version, "informationUri": homepage, "rules": rules}},
			"invocations": []any{map[string]any{"executionSuccessful": true, "endTimeUtc": r.At.UTC().Format(time.RFC3339), "toolExecutionNotifications": r.notifications()}},
			"results":     results,
			"properties":  map[string]any{"kernel": r.Release, "references": r.references()},
		}},
	}, "  ")
}

// artifact is a TARGET as the URI that SARIF wants.
func artifact(target string) string {
	if target == "" {
		return "outsight:guest"
	}
	if strings.HasPrefix(target, "/") {
		return "file://" + escaped(target)
	}
	return escaped(target)
}

// escaped writes what a URI cannot hold as %XX.
func escaped(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte("-._~:/@!$&'()*+,;=", c) >= 0 || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func sarifLevel(s Severity) string {
	switch s {
	case Critical, High:
		return "error"
	case Medium:
		return "warning"
	}
	return "note"
}

// sarifScore is the CVSS-like number that viewers of SARIF sort by.
func sarifScore(s Severity) string {
	return map[Severity]string{Critical: "9.5", High: "8.0", Medium: "5.5", Low: "2.0"}[s]
}

// OCSF writes each finding as one line of JSON: a Detection Finding (class 2004) of the Open
// Cybersecurity Schema Framework, version 1.3.0.
func (r *Report) OCSF(w io.Writer, findings []*Finding) error {
	for _, f := range findings {
		if err := encode(w, r.ocsf(f), ""); err != nil {
			return err
		}
	}
	return nil
}

func (r *Report) ocsf(f *Finding) map[string]any {
	const created, detectionFinding = 1, 2004
	at := r.At.UnixMilli()
	severity := map[Severity]int{Low: 2, Medium: 3, High: 4, Critical: 5}[f.Severity]
	confidence := map[Confidence]int{Possible: 1, Likely: 2, Certain: 3}[f.Confidence]
	resource := map[string]any{"uid": r.Target, "name": r.Guest, "type": "Virtual Machine"}
	if r.Guest == "" {
		resource["name"] = r.Target
	}
	evidence := map[string]any{"data": map[string]any{
		"expected": f.Expected, "seen": f.Seen, "basis": f.Basis, "reference": f.Reference, "evidence": evidenceTexts(f), "show": f.Show, "object": f.Object.String(), "kernel": r.Release,
	}}
	if f.Object.PID != 0 {
		evidence["process"] = map[string]any{"pid": f.Object.PID, "name": f.Object.Name}
	}
	return map[string]any{
		"activity_id": created, "activity_name": "Create", "category_uid": 2, "category_name": "Findings",
		"class_uid": detectionFinding, "class_name": "Detection Finding", "type_uid": detectionFinding*100 + created, "type_name": "Detection Finding: Create",
		"time": at, "severity_id": severity, "severity": capital(string(f.Severity)), "confidence_id": confidence,
		"confidence": []string{"Unknown", "Low", "Medium", "High"}[confidence], "status_id": 1, "status": "New", "is_alert": true, "message": f.Title,
		"metadata": map[string]any{
			"version": "1.3.0",
			"product": map[string]any{"name": "outsight", "vendor_name": "outsight", "version": r.Version, "url_string": homepage},
		},
		"finding_info": map[string]any{
			"uid": r.uid(f), "title": f.Title, "desc": oneLine(f.Check.Proves), "created_time": at, "types": []string{f.Check.ID},
			"analytic": map[string]any{"uid": f.Check.ID, "name": f.Check.Title, "type_id": 1, "type": "Rule"},
			"attacks":  []any{map[string]any{"version": "18", "technique": map[string]any{"uid": f.Check.Technique}}},
		},
		"evidences":   []any{evidence},
		"remediation": map[string]any{"desc": f.Next()},
		"resources":   []any{resource},
	}
}

// references are the assurances as properties.
func (r *Report) references() []map[string]any {
	all := []map[string]any{}
	for _, a := range r.Assurances {
		all = append(all, map[string]any{"subject": a.Subject, "state": a.State, "signed_by": a.Trust.By, "file": a.Trust.Where, "text": a.Text})
	}
	return all
}

// notifications are the assurances as SARIF's notes of the run.
func (r *Report) notifications() []map[string]any {
	all := []map[string]any{}
	for _, a := range r.Assurances {
		level := "note"
		if a.State == Unproven || a.State == Incomplete {
			level = "warning"
		}
		all = append(all, map[string]any{"level": level, "message": map[string]any{"text": a.Text + "."}})
	}
	return all
}

// OCSFScan writes one line of JSON that ends a run: a Scan Activity (class 6007), which says what was
// run and what that proves, also where nothing was found.
func (r *Report) OCSFScan(w io.Writer, findings int) error {
	const completed, scanActivity = 2, 6007
	var texts []string
	for _, a := range r.Assurances {
		texts = append(texts, a.Text)
	}
	return encode(w, map[string]any{
		"activity_id": completed, "activity_name": "Completed", "category_uid": 6, "category_name": "Application Activity",
		"class_uid": scanActivity, "class_name": "Scan Activity", "type_uid": scanActivity*100 + completed, "type_name": "Scan Activity: Completed",
		"time": r.At.UnixMilli(), "severity_id": 1, "severity": "Informational", "status_id": 1, "status": "Success",
		"message": strings.Join(texts, "; "), "num_detections": findings,
		"scan": map[string]any{"name": "outsight check " + r.Target, "type_id": 1, "type": "Manual"},
		"metadata": map[string]any{
			"version": "1.3.0",
			"product": map[string]any{"name": "outsight", "vendor_name": "outsight", "version": r.Version, "url_string": homepage},
		},
		"unmapped": map[string]any{"kernel": r.Release, "references": r.references()},
	}, "")
}

// capital is a word with a capital letter.
func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func evidenceTexts(f *Finding) []string {
	list := make([]string, 0, len(f.Evidence))
	for _, e := range f.Evidence {
		list = append(list, e.String())
	}
	return list
}

func encode(w io.Writer, v any, indent string) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	return e.Encode(v)
}
