package groundtruth

import (
	"encoding/json"
	"fmt"
	"math"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

func init() {
	register(viewCase{
		view: "pages", subset: true,
		// Who writes it stays, so that what is its own still is when the guest reports it.
		prepare: func(t *testing.T, g *lab.Guest) {
			labtest.Output(t, g, `echo 4 >/proc/sys/vm/nr_hugepages; tail -c +1 -f /proc/kpageflags >/tmp/kpageflags 2>/dev/null </dev/null & echo $! >/tmp/kpageflags.pid; sleep 2`)
		},
		undo: func(t *testing.T, g *lab.Guest) {
			labtest.Output(t, g, `echo 0 >/proc/sys/vm/nr_hugepages; kill $(cat /tmp/kpageflags.pid); rm /tmp/kpageflags`)
		},
		// The others come and go, or are not told.
		blur: func(row map[string]any) {
			flags, _ := row["flags"].([]any)
			row["flags"] = slices.DeleteFunc(flags, func(f any) bool {
				return !slices.Contains([]any{"uptodate", "lru", "reserved", "head", "swapbacked", "unevictable", "mlocked"}, f)
			})
		},
	})
}

func numberOf(t *testing.T, v any) float64 {
	t.Helper()
	n, ok := v.(json.Number)
	f, err := n.Float64()
	if !ok || err != nil {
		t.Fatalf("%v is no number", v)
	}
	return f
}

// TestGuestPages compares sums over all struct pages with those that the kernel keeps, and
// what lies at an address with what the guest, or another view, says of it.
func TestGuestPages(t *testing.T) {
	labtest.NeedQEMU(t)
	for _, kernel := range []string{"5.10", "6.1", "6.12", "7.2"} {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			g := labtest.Up(t, lab.Options{Name: "pages-" + kernel, Kernel: kernel, Memory: gib / 4})
			target := "qemu:" + g.QMP()
			// Processors add what they counted to the sums now and then.
			const near = 512 << 10
			for use, name := range map[string]string{"free": "MemFree", "table": "PageTables", "anonymous": "AnonPages", "file": "Cached"} {
				row := rowsOf(t, "query", "--pause", target, "select sum(p.size) pages, max(m.size) counted from pages p, meminfo m where p.use = '"+use+"' and m.name = '"+name+"'")[0]
				pages, counted := numberOf(t, row["pages"]), numberOf(t, row["counted"])
				if math.Abs(pages-counted) > near || counted == 0 {
					t.Errorf("%s: %.0f bytes of pages; %s has %.0f", use, pages, name, counted)
				}
			}
			tasks := rowsOf(t, "ps", target, "--columns", "pid,task")
			for _, task := range tasks[:min(len(tasks), 10)] {
				at, _ := task["task"].(string)
				got := rowsOf(t, "whatis", target, at)[0]
				if got["cache"] != "task_struct" || got["object"] != at || got["object_offset"] != "0x0" || got["region"] != "direct map" {
					t.Errorf("task_struct of %v: %v", task["pid"], got)
				}
			}
			// Any address of a block leads to what the view says of it.
			blocks := rowsOf(t, "pages", target)
			for i := 0; i < len(blocks); i += max(1, len(blocks)/40) {
				block := blocks[i]
				var at uint64
				if _, err := fmt.Sscanf(block["physical"].(string), "0x%x", &at); err != nil {
					t.Fatal(err)
				}
				inside := fmt.Sprintf("%#x", at+uint64(numberOf(t, block["size"]))/2+8)
				got := rowsOf(t, "whatis", target, "--physical", inside)[0]
				if stable := []any{"free", "reserved", "slab", "hugetlb"}; slices.Contains(stable, block["use"]) && (got["use"] != block["use"] || got["block"] != block["physical"]) {
					again := rowsOf(t, "pages", target, "--where", `physical == "`+block["physical"].(string)+`"`)
					if len(again) == 1 && again[0]["use"] == block["use"] {
						t.Errorf("%s: %v; pages says %v", inside, got, block)
					}
				}
			}
			line := strings.Fields(labtest.Output(t, g, "grep r-xp /proc/1/maps | head -1"))
			start, _, _ := strings.Cut(line[0], "-")
			if got := rowsOf(t, "whatis", target, "--pid", "1", "0x"+start)[0]; got["area_path"] != line[5] || got["path"] != line[5] || got["use"] != "file" || got["region"] != "process" {
				t.Errorf("code of process 1, of %s: %v", line[5], got)
			}
			if got := rowsOf(t, "whatis", target, "linux_banner+4")[0]; got["symbol"] != "linux_banner+0x4" || got["owner"] != "kernel" {
				t.Errorf("linux_banner: %v", got)
			}
			// The first processes hang on init_task's list.
			words, err := exec.Command(command(t), "read", target, "--words", "init_task", "4096").Output()
			if err != nil || !strings.Contains(string(words), "  {task_struct+0x") || !strings.Contains(string(words), "  init_task+0x") {
				t.Errorf("words of init_task: %v: %s", err, words)
			}
		})
	}
}

// TestGuestPagesLimited shows what a guest does with its memory whose command line leaves
// most of it out.
func TestGuestPagesLimited(t *testing.T) {
	labtest.NeedQEMU(t)
	for _, kernel := range []string{"5.10", "7.2"} {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			const limit = 200 << 20
			g := labtest.Up(t, lab.Options{Name: "limited-" + kernel, Kernel: kernel, Memory: gib / 2, Append: "mem=200M"})
			target := "qemu:" + g.QMP()
			sums := map[any]float64{}
			all := 0.0
			for _, row := range rowsOf(t, "query", "--pause", target, "select use, sum(size) size, min(physical) first from pages group by use") {
				sums[row["use"]] = numberOf(t, row["size"])
				all += sums[row["use"]]
			}
			if want := float64(gib/2 - limit); sums["unmanaged"] != want {
				t.Errorf("unmanaged: %.0f bytes, want %.0f; all: %v", sums["unmanaged"], want, sums)
			}
			// Free blocks and folios are counted once, so that all of it adds up.
			const near = 64 << 10
			if math.Abs(all-gib/2) > near {
				t.Errorf("all uses have %.0f bytes, the guest %d: %v", all, gib/2, sums)
			}
			if a := run(t, nil, "pages", target, "--where", `use == "unmanaged"`, "-o", "json"); a.status != 0 || strings.Contains(a.stderr, "unreadable") {
				t.Errorf("pages: status %d: %s", a.status, a.stderr)
			}
			if got := rowsOf(t, "whatis", target, "--physical", "0x18000000"); len(got) != 1 || got[0]["use"] != "unmanaged" {
				t.Errorf("whatis beyond the limit: %v", got)
			}
			if got := rowsOf(t, "whatis", target, "--physical", "0xc700000"); len(got) != 1 || got[0]["use"] == "unmanaged" {
				t.Errorf("whatis below the limit: %v", got)
			}
		})
	}
}
