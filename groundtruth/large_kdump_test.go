package groundtruth

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/kdump"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/vm/local"
)

// TestGuestLargeKdump opens a packed dump of 4 GiB and lists its processes: of its million
// pages only those are unpacked that were asked for.
func TestGuestLargeKdump(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes 4 GiB")
	}
	labtest.NeedQEMU(t)
	// Private, since QEMU touches every page: of a memfd, that allocates it.
	g := labtest.Up(t, lab.Options{Kernel: "6.12", Memory: 4 * gib, Private: true})
	// Half a GiB that packs like no zeros, and processes to look for.
	labtest.Output(t, g, "mkdir -p /filled && mount -t tmpfs -o size=600m filled /filled && dd if=/dev/urandom of=/filled/first bs=1M count=32 2>/dev/null; "+
		"for i in $(seq 15); do cp /filled/first /filled/$i; done; for i in $(seq 50); do sleep 100000 </dev/null >/dev/null 2>&1 & done")
	monitor(t, g, order{"stop", nil})
	view, ok := table.Lookup("ps")
	if !ok {
		t.Fatal("there is no ps")
	}
	want := psOf(t, "qemu:"+g.QMP())
	if n := strings.Count(want, "sleep"); n < 50 {
		t.Fatalf("the guest has %d processes sleep:\n%s", n, want)
	}
	for _, format := range []string{"kdump-raw-zlib", "kdump-zlib"} {
		path := filepath.Join(t.TempDir(), format)
		err := tryMonitor(t, g, order{"dump-guest-memory", map[string]any{"paging": false, "protocol": "file:" + path, "format": format}})
		if err != nil && format == "kdump-raw-zlib" { // since QEMU 8.2
			t.Logf("no %s: %v", format, err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		m, err := local.Open(t.Context(), path)
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		opened := time.Since(start)
		defer m.Close()
		dump, ok := phys.As[*kdump.Memory](m.Memory)
		if !ok {
			t.Fatalf("%s: it is %s", format, m.Format)
		}
		const few = 3 // of the first, to learn how they are packed
		if n := dump.Unpacked(); n > few {
			t.Errorf("%s: opening unpacked %d pages", format, n)
		}
		got := psOf(t, path)
		if got != want {
			t.Errorf("%s: ps differs from the paused guest:\n%s", format, firstDifference([]byte(want), []byte(got)))
		}
		// Finding the kernel looks at one page of every 2 MiB that is not zeros.
		ps, done := attach(t, m, guest.Options{Target: path})
		found := dump.Unpacked()
		rows := 0
		for range table.Rows(t.Context(), view, ps, table.Request{}, &table.Report{}) {
			rows++
		}
		pages := uint64(4*gib) / phys.PageSize
		t.Logf("%s: opened in %v; of %d pages, %d were unpacked to find the kernel and %d to list %d processes", format, opened, pages, found, dump.Unpacked()-found, rows)
		if n := dump.Unpacked(); rows < 50 || n > pages/100 {
			t.Errorf("%s: %d of %d pages were unpacked for %d processes", format, n, pages, rows)
		}
		done()
	}
}

// psOf is ps of a target, as JSON.
func psOf(t *testing.T, target string) string {
	t.Helper()
	a := run(t, nil, "ps", target, "-o", "json")
	if a.status != 0 {
		t.Fatalf("ps %s: %s", target, a.stderr)
	}
	return a.stdout
}
