package groundtruth

import (
	"encoding/base64"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux/network"
)

func init() {
	register(viewCase{
		view:      "sockets",
		keys:      []string{"protocol", "family", "net_ns", "inode", "local", "local_port", "remote", "remote_port"},
		blur:      forgotten,
		translate: disassembled,
		prepare:   waiting,
	})
}

// forgotten takes the peer of a TCP socket that is closed: the guest reports it of those alone
// that are still bound, from 6.8 on.
func forgotten(row map[string]any) {
	if row["protocol"] == "tcp" && row["state"] == "CLOSE" {
		row["remote"], row["remote_port"] = nil, nil
	}
}

// waiting has the server make connections in TIME_WAIT again: they last a minute.
func waiting(t *testing.T, g *lab.Guest) {
	t.Helper()
	labtest.Output(t, g, `for p in /proc/[0-9]*; do [ "$(tr '\0' ' ' <$p/cmdline)" = "/server " ] && kill -USR1 ${p#/proc/}; done; sleep 1`)
}

// disassembled makes the text of a socket's filter from the code that the guest reads back:
// which text that is has tests of its own.
func disassembled(t *testing.T, row map[string]any) {
	t.Helper()
	code, ok := row["filter_code"].(string)
	if !ok {
		return
	}
	delete(row, "filter_code")
	b, err := base64.StdEncoding.DecodeString(code)
	if err != nil {
		t.Fatalf("truth: %v", err)
	}
	row["filter"] = nil
	if lines := network.DisassembleClassic(b); len(lines) > 0 {
		list := make([]any, len(lines))
		for i, line := range lines {
			list[i] = line
		}
		row["filter"] = list
	}
}
