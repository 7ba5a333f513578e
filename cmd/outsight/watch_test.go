package main

import (
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/trace"
)

// TestByPolling: the first line says what polling cannot see of what was asked for.
func TestByPolling(t *testing.T) {
	f := watchFlags{every: 50 * time.Millisecond}
	for _, c := range []struct {
		kinds []trace.Kind
		end   string
	}{
		{nil, "; polling cannot see unlink, code, refused"},
		{[]trace.Kind{trace.KindExec, trace.KindNewCode}, "; polling cannot see code"},
		{[]trace.Kind{trace.KindExec, trace.KindModule}, "are counted"},
	} {
		if got := f.byPolling(c.kinds); !strings.HasSuffix(got, c.end) || !strings.Contains(got, "every 50ms") {
			t.Errorf("%v: %s", c.kinds, got)
		}
	}
}
