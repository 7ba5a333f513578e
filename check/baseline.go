package check

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
)

// Baseline are findings that were known before, by their keys.
type Baseline map[string]bool

// ReadBaseline reads what "outsight check -o json" wrote at another time.
func ReadBaseline(r io.Reader) (Baseline, error) {
	const longest = 1 << 20
	b := Baseline{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, longest)
	for n := 1; lines.Scan(); n++ {
		var row struct{ Key string }
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil || row.Key == "" {
			return nil, fmt.Errorf("line %d is not a finding as outsight check -o json writes it, with all its columns", n)
		}
		b[row.Key] = true
	}
	return b, lines.Err()
}

// New are the findings that were not known before.
func (b Baseline) New(findings []*Finding) (fresh []*Finding) {
	for _, f := range findings {
		if !b[f.Key()] {
			fresh = append(fresh, f)
		}
	}
	return fresh
}
