package check

import (
	"strings"
	"testing"
	"time"
)

func TestTold(t *testing.T) {
	at := time.Unix(1e9, 0)
	for what, c := range map[string]struct {
		text string
		want func(*Told) bool
	}{
		"ps -e":         {"    PID TTY          TIME CMD\n      1 ?        00:00:01 systemd\n      2 ?        00:00:00 kthreadd\n", func(t *Told) bool { return t.PIDs[1] && t.PIDs[2] && len(t.PIDs) == 2 }},
		"ps aux":        {"USER PID %CPU COMMAND\nroot 1 0.0 init 7\nroot 77 0.0 PID 5\n", func(t *Told) bool { return t.PIDs[1] && t.PIDs[77] && len(t.PIDs) == 2 }},
		"busybox ps":    {"PID   USER     TIME  COMMAND\n    1 root      0:00 {init} /bin/sh\n", func(t *Told) bool { return t.PIDs[1] && len(t.PIDs) == 1 }},
		"lsmod":         {"Module                  Size  Used by\nloop                   40960  0\nveth 1 0\n", func(t *Told) bool { return t.Modules["loop"] && t.Modules["veth"] && len(t.Modules) == 2 }},
		"no modules":    {"Module                  Size  Used by\n", func(t *Told) bool { return t.Modules != nil && len(t.Modules) == 0 }},
		"/proc/modules": {"loop 40960 0 - Live 0xffffffffc03a4000\nveth 49152 0 - Live 0x0\n", func(t *Told) bool { return t.Modules["loop"] && t.Modules["veth"] }},
		"ss -tuln": {
			"Netid State  Recv-Q Send-Q Local Address:Port Peer Address:Port\nudp UNCONN 0 0 0.0.0.0:68 0.0.0.0:*\ntcp LISTEN 0 128 [::]:22 [::]:*\n",
			func(t *Told) bool {
				return t.Listening[Port{"udp", 68}] && t.Listening[Port{"tcp", 22}] && len(t.Listening) == 2
			},
		},
		"ss -tl": {"State  Recv-Q Send-Q Local Address:Port Peer Address:Port\nLISTEN 0 128 *:ssh *:*\n", func(t *Told) bool { return t.Listening[Port{"tcp", 22}] && len(t.Listening) == 1 }},
		"netstat -tuln": {
			"Active Internet connections (only servers)\nProto Recv-Q Send-Q Local Address           Foreign Address         State\ntcp        0      0 127.0.0.1:631           0.0.0.0:*               LISTEN\nudp6 0 0 :::5353 :::*\n",
			func(t *Told) bool {
				return t.Listening[Port{"tcp", 631}] && t.Listening[Port{"udp", 5353}] && len(t.Listening) == 2
			},
		},
	} {
		told := &Told{}
		if err := told.Read(what, strings.NewReader(c.text), at); err != nil || !c.want(told) || !told.At.Equal(at) {
			t.Errorf("%s: %+v, %v", what, told, err)
		}
	}
	for text, want := range map[string]string{
		"":                           "not the output",
		"hello\n":                    "not the output",
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
		if err := told.Read("x", strings.NewReader(text), time.Time{}); err == nil && told.PIDs == nil && told.Modules == nil && told.Listening == nil {
			t.Error("nothing was said, and no error")
		}
	})
}
