package groundtruth

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/table/text"
)

// TestGuestVolatility has Volatility 3 list the processes of dumps by the symbol file that
// export-isf makes of them: it knows of the guest only what outsight read out of its memory.
//
// The guest has 4-level paging: Volatility knows no other (its layer Intel32e, and
// "5-level paging is not yet supported" in its extensions for Linux).
func TestGuestVolatility(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("set OUTSIGHT_SLOW: it takes minutes")
	}
	volatility := needVolatility(t)
	labtest.NeedQEMU(t)
	for _, series := range []string{"5.10", "6.1", "6.12", "7.2"} {
		t.Run(series, func(t *testing.T) { byVolatility(t, volatility, series) })
	}
}

// needVolatility is how Volatility 3 is started.
func needVolatility(t *testing.T) []string {
	t.Helper()
	if path := os.Getenv("OUTSIGHT_VOLATILITY"); path != "" {
		return strings.Fields(path)
	}
	path, err := exec.LookPath("vol")
	if err != nil {
		t.Skip(`no vol on the PATH: set OUTSIGHT_VOLATILITY to what starts Volatility 3, such as "python3 volatility3/vol.py"`)
	}
	return []string{path}
}

func byVolatility(t *testing.T, volatility []string, series string) {
	g := guests.UpCrowd(t, lab.Options{Kernel: series, Memory: gib / 4, CPU: "max,la57=off"})
	monitor(t, g, order{"stop", nil})
	dir := t.TempDir()
	symbols := filepath.Join(dir, "symbols", "linux")
	if err := os.MkdirAll(symbols, 0o755); err != nil {
		t.Fatal(err)
	}
	target := "qemu:" + g.QMP()
	for _, args := range [][]string{
		{"export-isf", target, "-o", filepath.Join(symbols, "guest.json")},
		{"dump", target, "-o", filepath.Join(dir, "guest.raw")},
		{"dump", "--format", "elf", target, "-o", filepath.Join(dir, "guest.elf")},
		{"dump", "--format", "lime", target, "-o", filepath.Join(dir, "guest.lime")},
	} {
		if a := run(t, nil, args...); a.status != 0 {
			t.Fatalf("%s: %s", args[0], a.stderr)
		}
	}
	want := map[string]string{}
	for line := range strings.Lines(psOf(t, target)) {
		var p struct {
			PID        int
			PPID       int
			Comm, Task string
		}
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		// It has a mark for each byte that is not text.
		want[fmt.Sprintf("%d of %d %s", p.PID, p.PPID, p.Task)] = string([]rune(text.FromLossless(p.Comm)))
	}
	if len(want) < 50 {
		t.Fatalf("only %d processes", len(want))
	}
	if err := g.Down(); err != nil { // the other needs the processors
		t.Fatal(err)
	}
	for _, dump := range []string{"guest.raw", "guest.elf", "guest.lime"} {
		t.Run(filepath.Ext(dump)[1:], func(t *testing.T) {
			args := append(volatility[1:len(volatility):len(volatility)], "-q", "--offline", "-r", "json", "--cache-path", t.TempDir(),
				"-s", filepath.Dir(symbols), "-f", filepath.Join(dir, dump), "linux.pslist.PsList")
			agree(t, want, volatilityTasks(t, output(t, exec.CommandContext(t.Context(), volatility[0], args...))))
		})
	}
}

// volatilityTasks are the processes of its linux.pslist.
func volatilityTasks(t *testing.T, out string) map[string]string {
	t.Helper()
	var rows []struct {
		PID, PPID int
		COMM      string
		Address   uint64 `json:"OFFSET (V)"`
	}
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatalf("pslist: %v in %.500q", err, out)
	}
	tasks := map[string]string{}
	for _, r := range rows {
		const canonical = 48 // bits, which it prints
		tasks[fmt.Sprintf("%d of %d %#x", r.PID, r.PPID, uint64(int64(r.Address<<(64-canonical))>>(64-canonical)))] = r.COMM
	}
	return tasks
}
