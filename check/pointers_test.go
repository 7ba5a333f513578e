package check

import (
	"testing"

	"github.com/outsight-vmi/outsight/table"
	_ "github.com/outsight-vmi/outsight/table/views"
)

// TestCodeColumns: what is called is judged; who once asked for memory is not, for that may be code that a module was started by, which is freed.
func TestCodeColumns(t *testing.T) {
	for name, want := range map[string]bool{"syscalls": true, "notifiers": true, "timers": true, "vmalloc": false, "ps": false} {
		v, ok := table.Lookup(name)
		if !ok {
			t.Fatalf("there is no view %s", name)
		}
		if got := len(codeColumns(v)) > 0; got != want {
			t.Errorf("%s: functions of it are judged: %t", name, got)
		}
	}
}
