package check_test

import (
	"os"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// runtimePackages are programs of Debian that do for good reasons what intruders do.
var runtimePackages = []string{"podman", "crun", "nodejs", "openjdk-21-jre-headless", "luajit", "php8.4-cli", "php8.4-opcache", "runsc", "criu", "uidmap"}

// runtimes starts them. What a guest cannot do (nested sandboxes, CRIU without its kernel options) is
// said in /run/runtimes.log; each has a word there when it runs.
const runtimes = `exec >/run/runtimes.log 2>&1 </dev/null
useradd -m -s /bin/bash user
echo user:100000:65536 >/etc/subuid; cp /etc/subuid /etc/subgid
loop='setInterval(() => { let s = 0; for (let i = 0; i < 1e6; i++) s += i % 7 }, 500)'
setsid node -e "$loop" & echo node
setsid java -m jdk.httpserver -p 9000 & echo java
setsid luajit -e 'local ffi = require("ffi"); ffi.cdef("int usleep(unsigned)"); while true do local s = 0; for i = 1, 1e6 do s = s + i % 7 end; ffi.C.usleep(500000) end' & echo luajit
setsid php -d opcache.enable_cli=1 -d opcache.jit=tracing -d opcache.jit_buffer_size=16M -r 'for (;;) { $s = 0; for ($i = 0; $i < 300000; $i++) $s += $i % 7; preg_match("/(a+)+b/", "aaab"); usleep(500000); }' & echo php
su - user -c 'setsid podman unshare sleep 100000' & echo unshare
mkdir -p /var/lib/box/bin /var/lib/box/tmp; cp /usr/bin/busybox /var/lib/box/bin/
podman run -d --network none --cgroups disabled --rootfs /var/lib/box /bin/busybox sleep 100000 && echo podman
setsid runsc --network=none --ignore-cgroups --platform=systrap do sleep 100000 & echo runsc
setsid sleep 100001 & restored=$!
sleep 1
mkdir -p /var/lib/images
criu dump -t $restored -D /var/lib/images --shell-job && criu restore -d -D /var/lib/images --shell-job && echo criu
su - user -c "mkdir -p .nvm/bin; cp /usr/bin/node .nvm/bin/node; setsid .nvm/bin/node -e '$loop'" & echo users
sleep 20
`

// TestGuestRuntimes: compilers at run time, starters of containers, sandboxes and restored processes are
// legal where only root can have put them, and no name makes them so.
func TestGuestRuntimes(t *testing.T) {
	labtest.NeedQEMU(t)
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("set OUTSIGHT_SLOW: it fetches Debian's compilers and sandboxes")
	}
	labtest.NeedTool(t, "mmdebstrap")
	g := labtest.Up(t, lab.Options{
		Kernel: os.Getenv("OUTSIGHT_KERNEL"), Userland: lab.Debian, Packages: runtimePackages, Memory: 2 << 30, SMP: 2,
		Modules: []string{"overlay", "veth", "bridge", "tun", "unix_diag", "tcp_diag", "udp_diag", "inet_diag", "netlink_diag", "af_packet_diag", "nfnetlink", "nf_tables"},
	})
	labtest.Output(t, g, "cat >/run/start <<'END'\n"+runtimes+"END\nsh /run/start")
	t.Logf("what was started:\n%s", labtest.Output(t, g, "cat /run/runtimes.log; ps axfo pid,user,args | grep -v '\\[' | tail -60"))
	s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	judge := func() (fs []*check.Finding) {
		r, err := check.Run(t.Context(), s, check.All())
		if err != nil {
			t.Fatal(err)
		}
		for _, gap := range r.Gaps {
			t.Logf("not checked: %v", gap)
		}
		return r.Findings
	}
	of := 0
	for _, f := range judge() {
		if f.Check.ID == "injected-code" && f.Severity == check.Low && strings.Contains(f.Title, "/.nvm/bin/node") {
			of++
			continue
		}
		t.Errorf("%s %s: %s; seen %s; %v", f.Check.ID, f.Severity, f.Title, f.Seen, f.Evidence)
	}
	if of != 1 {
		t.Errorf("%d findings about a compiler that a user has in a folder of theirs", of)
	}
	labtest.Output(t, g, "cp /usr/bin/node /tmp/node; setsid /tmp/node -e 'setInterval(() => { let s = 0; for (let i = 0; i < 1e6; i++) s += i % 7 }, 500)' </dev/null >/dev/null 2>&1 & sleep 8")
	of = 0
	for _, f := range judge() {
		if f.Check.ID == "injected-code" && f.Severity == check.High {
			of++
		}
	}
	if of == 0 {
		t.Error("a program that was named node and put into /tmp may execute what it likes")
	}
}
