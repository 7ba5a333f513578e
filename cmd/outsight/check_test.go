package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/check"
)

// TestConclusion: what was left out because it is known or allowed is said, and "nothing" is not claimed of what is there.
func TestConclusion(t *testing.T) {
	for _, c := range []struct {
		shown, passed, knew int
		want                string
		err                 error
	}{
		{want: "outsight: nothing found by 42 checks\n"},
		{knew: 1, want: "outsight: nothing new found by 42 checks; 1 finding is in the baseline\n"},
		{passed: 1, knew: 2, want: "outsight: nothing new found by 42 checks; 1 finding allowed; 2 findings are in the baseline\n"},
		{passed: 1, want: "outsight: nothing found by 42 checks; 1 finding allowed\n"},
		{shown: 2, knew: 1, want: "outsight: 2 findings by 42 checks; 1 finding is in the baseline\n", err: errFound},
	} {
		var b strings.Builder
		r := &checkRun{flags: &checkFlags{}, stderr: &b, last: &check.Result{Ran: 42}, shown: c.shown, passed: c.passed, knew: c.knew}
		err := r.conclude()
		if lines := strings.SplitAfter(b.String(), "\n"); !errors.Is(err, c.err) || len(lines) < 2 || lines[len(lines)-2] != c.want {
			t.Errorf("%+v: %v: %s", c, err, b.String())
		}
	}
}
