package check

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux"
)

// TestWritableTwin: sljit maps each chunk twice, by one file that is open, and writes by the other mapping.
func TestWritableTwin(t *testing.T) {
	code := &linux.Mapping{Start: 0x10000, End: 0x20000, File: 1, Offset: 0x1000, Flags: linux.VMExec}
	for what, c := range map[string]struct {
		other *linux.Mapping
		want  bool
	}{
		"the same part, writable":  {&linux.Mapping{Start: 0x30000, End: 0x40000, File: 1, Offset: 0x1000, Flags: linux.VMWrite}, true},
		"the same part, read only": {&linux.Mapping{Start: 0x30000, End: 0x40000, File: 1, Offset: 0x1000}, false},
		"another part":             {&linux.Mapping{Start: 0x30000, End: 0x40000, File: 1, Flags: linux.VMWrite}, false},
		"less of it":               {&linux.Mapping{Start: 0x30000, End: 0x31000, File: 1, Offset: 0x1000, Flags: linux.VMWrite}, false},
		"another file":             {&linux.Mapping{Start: 0x30000, End: 0x40000, File: 2, Offset: 0x1000, Flags: linux.VMWrite}, false},
	} {
		j := &injection{p: &program{maps: []*linux.Mapping{code, c.other}}}
		if got := j.writableTwin(code); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	anonymous := &linux.Mapping{Start: 0x10000, End: 0x20000, Flags: linux.VMExec | linux.VMWrite}
	if j := (&injection{p: &program{maps: []*linux.Mapping{anonymous}}}); j.writableTwin(anonymous) {
		t.Error("memory without a file has a twin")
	}
}
