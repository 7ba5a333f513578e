package check

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/vm"
)

func TestTold(t *testing.T) {
	at := time.Unix(1e9, 0)
	for what, c := range map[string]struct {
		text string
		want func(*Word) bool
	}{
		"ps -e":         {"    PID TTY          TIME CMD\n      1 ?        00:00:01 systemd\n      2 ?        00:00:00 kthreadd\n", func(t *Word) bool { return t.PIDs[1] && t.PIDs[2] && len(t.PIDs) == 2 }},
		"ps aux":        {"USER PID %CPU COMMAND\nroot 1 0.0 init 7\nroot 77 0.0 PID 5\n", func(t *Word) bool { return t.PIDs[1] && t.PIDs[77] && len(t.PIDs) == 2 }},
		"busybox ps":    {"PID   USER     TIME  COMMAND\n    1 root      0:00 {init} /bin/sh\n", func(t *Word) bool { return t.PIDs[1] && len(t.PIDs) == 1 }},
		"lsmod":         {"Module                  Size  Used by\nloop                   40960  0\nveth 1 0\n", func(t *Word) bool { return t.Modules["loop"] && t.Modules["veth"] && len(t.Modules) == 2 }},
		"no modules":    {"Module                  Size  Used by\n", func(t *Word) bool { return t.Modules != nil && len(t.Modules) == 0 }},
		"/proc/modules": {"loop 40960 0 - Live 0xffffffffc03a4000\nveth 49152 0 - Live 0x0\n", func(t *Word) bool { return t.Modules["loop"] && t.Modules["veth"] }},
		"ss -tuln": {
			"Netid State  Recv-Q Send-Q Local Address:Port Peer Address:Port\nudp UNCONN 0 0 0.0.0.0:68 0.0.0.0:*\ntcp LISTEN 0 128 [::]:22 [::]:*\n",
			func(t *Word) bool {
				return t.Listening[Port{"udp", 68}] && t.Listening[Port{"tcp", 22}] && len(t.Listening) == 2
			},
		},
		"ss -tl": {"State  Recv-Q Send-Q Local Address:Port Peer Address:Port\nLISTEN 0 128 *:ssh *:*\n", func(t *Word) bool { return t.Listening[Port{"tcp", 22}] && len(t.Listening) == 1 }},
		"netstat -tuln": {
			"Active Internet connections (only servers)\nProto Recv-Q Send-Q Local Address           Foreign Address         State\ntcp        0      0 127.0.0.1:631           0.0.0.0:*               LISTEN\nudp6 0 0 :::5353 :::*\n",
			func(t *Word) bool {
				return t.Listening[Port{"tcp", 631}] && t.Listening[Port{"udp", 5353}] && len(t.Listening) == 2
			},
		},
		"ls /proc": {"1\n2\n77\nacpi\nself\n", func(t *Word) bool { return t.PIDs[1] && t.PIDs[77] && len(t.PIDs) == 3 }},
		"dmesg": {
			"[    0.000000] Linux version 6.12\n[    0.000000] Command line: quiet\n[   12.500001] loop: module loaded\n[12345.000009] [drm] x] y\n",
			func(t *Word) bool {
				return len(t.Log) == 3 && len(t.Log[0]) == 2 && t.Log[12_500_001][0] == "loop: module loaded" && t.Log[12_345_000_009][0] == "[drm] x] y"
			},
		},
		"/proc/net": {
			"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
				"   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 15\n" +
				"   1: 0100007F:1F90 0100007F:0016 01 00000000:00000000 00:00000000 00000000 0 0 16\n" +
				"  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
				"   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 0 0 0 0 0 17\n" +
				"   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n" +
				"  12: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 18 2 0000000000000000 0\n",
			func(t *Word) bool {
				return t.Listening[Port{"tcp", 22}] && t.Listening[Port{"tcp", 443}] && t.Listening[Port{"udp", 68}] && len(t.Listening) == 3 &&
					t.Covers["tcp"] && t.Covers["tcp6"] && t.Covers["udp"] && !t.Covers["udp6"]
			},
		},
	} {
		told := &Told{}
		if err := told.Read(what, strings.NewReader(c.text), at); err != nil || len(told.Words) != 1 || !c.want(told.Words[0]) || !told.Words[0].At.Equal(at) {
			t.Errorf("%s: %+v, %v", what, told, err)
		}
	}
	for text, want := range map[string]string{
		"":                           "is empty",
		"hello\n":                    `begins with "hello"`,
		"PID CMD\n 100 bash\n":       "process 1",
		strings.Repeat("\nword", 20): "not the output",
	} {
		if err := (&Told{}).Read("x", strings.NewReader(text), at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

func FuzzTold(f *testing.F) {
	f.Add("PID CMD\n1 init\n")
	f.Add("Module Size Used by\nloop 1 0\n")
	f.Add("Netid State Recv-Q Send-Q Local Address:Port Peer Address:Port\nudp UNCONN 0 0 0.0.0.0:68 0.0.0.0:*\n")
	f.Fuzz(func(t *testing.T, text string) {
		told := &Told{}
		if err := told.Read("x", strings.NewReader(text), time.Time{}); err == nil && (told.Words[0].PIDs == nil && told.Words[0].Modules == nil && told.Words[0].Listening == nil && told.Words[0].Log == nil) {
			t.Error("nothing was said, and no error")
		}
	})
}

// guestAgent is an agent with programs of its own.
type guestAgent map[string]string

func (a guestAgent) Run(_ context.Context, program string, args ...string) (vm.AgentOutput, error) {
	line := strings.Join(append([]string{program}, args...), " ")
	out, ok := a[line]
	switch {
	case !ok:
		return vm.AgentOutput{}, fmt.Errorf("no program %s", line)
	case out == "cut":
		return vm.AgentOutput{Truncated: true}, nil
	}
	return vm.AgentOutput{Stdout: []byte(out)}, nil
}

func TestAsk(t *testing.T) {
	a := guestAgent{
		"/bin/ps -e":                 "cut",
		"/bin/ps":                    "PID CMD\n1 init\n",
		"/bin/ls -1 /proc":           "1\n7\nself\n",
		"/sbin/lsmod":                "Module Size Used by\nloop 1 0\n",
		"/usr/bin/netstat -tuln":     "Proto Recv-Q Send-Q Local Address Foreign Address State\n",
		"/usr/bin/cat /proc/modules": "gibberish\n",
	}
	told, err := Ask(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	var from []string
	for _, w := range told.Words {
		from = append(from, w.From)
		if w.Listening != nil && len(w.Covers) != 4 {
			t.Errorf("%s: covers %v", w.From, w.Covers)
		}
	}
	if got := strings.Join(from, ", "); got != "ps, ls -1 /proc, lsmod, netstat -tuln" {
		t.Errorf("asked %s", got)
	}
	if _, err := Ask(t.Context(), guestAgent{}); err == nil || !strings.Contains(err.Error(), "no program /sbin/ps") {
		t.Errorf("of a guest without programs: %v", err)
	}
}

func TestUntold(t *testing.T) {
	words := &Told{Words: []*Word{{From: "ps", PIDs: map[int32]bool{1: true}}, {From: "ls /proc", PIDs: map[int32]bool{1: true, 7: true}}}}
	s := &Subject{Told: words}
	asked := func(w *Word) bool { return w.PIDs != nil }
	for pid, want := range map[int32]string{1: "", 7: "in the guest's memory and in ls /proc, not in ps", 9: "in the guest's memory alone"} {
		f := s.untold(Object{Kind: "process"}, "process", "", asked, func(w *Word) bool { return w.PIDs[pid] })
		if want == "" && f != nil || want != "" && (f == nil || f.Seen != want) {
			t.Errorf("process %d: %+v", pid, f)
		}
	}
}

func TestWordString(t *testing.T) {
	w := &Word{From: "ps.txt", PIDs: map[int32]bool{1: true, 2: true}, At: time.Unix(1e9, 0)}
	if got := w.String(); got != "ps.txt (2 processes, as of 2001-09-09T01:46:40Z)" {
		t.Error(got)
	}
	w = &Word{From: "lsmod", Modules: map[string]bool{"loop": true}, Listening: map[Port]bool{}}
	if got := w.String(); got != "lsmod (1 module, 0 ports)" {
		t.Error(got)
	}
	w = &Word{From: "ls", PIDs: map[int32]bool{1: true}}
	if got := w.String(); got != "ls (1 process)" {
		t.Error(got)
	}
}

func TestProcessList(t *testing.T) {
	at := time.Unix(1e9, 0)
	var all []*linux.Process
	for pid := range int32(40) {
		all = append(all, &linux.Process{PID: pid + 1, Started: at.Add(time.Duration(pid) * time.Second)})
	}
	w := &Word{PIDs: map[int32]bool{1: true, 5: true, 99: true}, At: at.Add(time.Minute)}
	if l := w.processList(all); l.has != 2 || l.lacks != 38 || !l.newest.Equal(at.Add(4*time.Second)) || !l.ofOthers() {
		t.Errorf("a container's: %+v", l)
	}
	w.At = at.Add(8 * time.Second) // less than two seconds after the seventh began
	if l := w.processList(all); l.lacks != 4 || l.ofOthers() {
		t.Errorf("one that lacks four: %+v", l)
	}
}
