package groundtruth

import (
	"encoding/json"
	"math"
	"testing"
	"time"
)

func init() {
	// In an idle guest the last tick of the clock is seconds ago.
	register(viewCase{view: "uptime", near: map[string]float64{"uptime": 5, "clock": 5, "booted": 1}})
	register(viewCase{view: "cmdline"})
}

// close reports whether two cells, numbers or times, differ by no more than the seconds
// that near allows.
func (c viewCase) close(column string, a, b map[string]any) bool {
	limit, ok := c.near[column]
	if c.exact != nil && c.exact(a) {
		return false
	}
	x, ok1 := seconds(a[column])
	y, ok2 := seconds(b[column])
	return ok && ok1 && ok2 && math.Abs(x-y) <= limit
}

func seconds(cell any) (float64, bool) {
	switch v := cell.(type) {
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	case string:
		t, err := time.Parse(time.RFC3339Nano, v)
		return float64(t.UnixMicro()) / 1e6, err == nil
	}
	return 0, false
}

// What may differ does so within its limit only, and nothing else may.
func TestNear(t *testing.T) {
	c := viewCase{near: map[string]float64{"at": 2}}
	row := func(at, other string) map[string]map[string]any {
		return map[string]map[string]any{"": {"at": at, "other": other}}
	}
	inside := row("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z")
	for at, differences := range map[string]int{"2026-01-02T03:04:06.5Z": 0, "2026-01-02T03:04:03.5Z": 0, "2026-01-02T03:04:08Z": 1, "now": 1} {
		if d := c.differences(row(at, "2026-01-02T03:04:05Z"), inside, inside); len(d) != differences {
			t.Errorf("%s: %q", at, d)
		}
	}
	if d := c.differences(row("2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z"), inside, inside); len(d) != 1 {
		t.Errorf("another column: %q", d)
	}
}
