package groundtruth

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/lab"
)

// row is what the guest says of one process or thread: the fields of
// groundtruth/guests/truth that the view has too.
type row struct {
	Kind         string            `json:"kind"`
	PID          int               `json:"pid"`
	TID          int               `json:"tid"`
	PPID         int               `json:"ppid"`
	NSPID        []int             `json:"ns_pid"`
	UIDs         []uint32          `json:"uids"`
	GIDs         []uint32          `json:"gids"`
	State        string            `json:"state"`
	Threads      int               `json:"threads"`
	StartTicks   uint64            `json:"start_ticks"`
	UserTicks    uint64            `json:"utime_ticks"`
	SystemTicks  uint64            `json:"stime_ticks"`
	VSize        uint64            `json:"vsize"`
	RSSStatus    *int64            `json:"rss_status_kb"`
	RSSRollup    *int64            `json:"rss_rollup_kb"`
	TTY          int               `json:"tty_nr"`
	KernelThread bool              `json:"kernel_thread"`
	Comm         []byte            `json:"comm_b64"`
	Exe          []byte            `json:"exe_b64"`
	Cmdline      []byte            `json:"cmdline_b64"`
	Cgroup       []string          `json:"cgroup"`
	NS           map[string]string `json:"ns"`
}

// account is one answer of the guest.
type account struct {
	system struct {
		Kind      string `json:"kind"`
		Release   string `json:"release"`
		Version   string `json:"version"`
		Hostname  string `json:"hostname"`
		BootTime  int64  `json:"btime"`
		BootClock int64  `json:"boottime"` // ns since boot when it began
		RealClock int64  `json:"realtime"` // ns since 1970 then
		CPUs      int    `json:"cpus"`
		Self      int    `json:"self"`
	}
	end  int64 // ns since boot when it ended
	rows map[key]row
}

// key names a task for ever: numbers are used again, start times with them are not.
type key struct {
	tid   int
	start uint64 // in ticks since boot
}

// ask asks the guest what its /proc says.
func ask(t *testing.T, g *lab.Guest, threads bool) account {
	t.Helper()
	command := "/truth"
	if threads {
		command += " -threads"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	out, err := g.Output(ctx, command)
	if err != nil {
		t.Fatalf("truth: %v", err)
	}
	a := account{rows: map[key]row{}}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<24)
	for n := 0; lines.Scan(); n++ {
		var r row
		if n == 0 {
			if err := json.Unmarshal(lines.Bytes(), &a.system); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("truth: %v in %.200q", err, lines.Bytes())
		}
		if r.Kind == "end" {
			var end struct {
				BootClock int64 `json:"boottime"`
			}
			if err := json.Unmarshal(lines.Bytes(), &end); err != nil {
				t.Fatal(err)
			}
			a.end = end.BootClock
			continue
		}
		a.rows[key{r.TID, r.StartTicks}] = r
	}
	if a.end == 0 || len(a.rows) == 0 {
		t.Fatalf("truth: %d processes, ended at %d", len(a.rows), a.end)
	}
	return a
}
