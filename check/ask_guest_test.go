package check_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm"
)

// agentPort is the port of a guest agent. The path is relative to the guest's folder.
var agentPort = []string{
	"-device", "virtio-serial-pci", "-chardev", "socket,id=qga,path=qga,server=on,wait=off",
	"-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0",
}

// TestGuestAsked has the guest's own programs asked, through Debian's qemu-guest-agent: they
// say the truth at first. Then one after the other is made to leave something out, and it is
// named which of them does.
func TestGuestAsked(t *testing.T) {
	labtest.NeedQEMU(t)
	g := labtest.Up(t, lab.Options{Memory: 512 << 20, Files: labtest.GuestAgent(t), QEMUArgs: agentPort, Modules: []string{"loop", labtest.AgentModule}})
	labtest.Output(t, g, "modprobe loop; sleep 100000 </dev/null >/dev/null 2>&1 & (nc -lp 4444 </dev/null >/dev/null 2>&1 &); sleep 1; echo ok")
	s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	agent := s.Machine().Control.Agent
	if agent == nil {
		t.Fatal("the machine has a port for an agent, and no agent")
	}
	if _, err := agent.Run(t.Context(), "/bin/ps"); !errors.Is(err, vm.ErrBusy) || !strings.Contains(err.Error(), "qemu-guest-agent") {
		t.Errorf("before the agent runs: %v", err)
	}
	labtest.StartGuestAgent(t, g)
	for end := time.Now().Add(time.Minute); ; {
		out, err := agent.Run(t.Context(), "/bin/busybox", "uname", "-r")
		if err == nil {
			if release := strings.TrimSpace(string(out.Stdout)); release != s.Machine().Name && !strings.HasPrefix(release, lab.DefaultKernel) {
				t.Errorf("the kernel is %q", release)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	only, err := check.Select([]string{"contradicted"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ do, undo, title, seen string }{
		{"", "", "", ""},
		{
			`mv /bin/ps /bin/ps.true; printf '#!/bin/sh\n/bin/busybox ps "$@" | grep -v "sleep 100000"\n' > /bin/ps; chmod +x /bin/ps`, "mv /bin/ps.true /bin/ps",
			"(sleep) is not listed in", "and in ls -1 /proc, not in ps",
		},
		{
			`printf 'vda 1 0 - Live 0x0\n' > /fewer; mount --bind /fewer /proc/modules`, "umount /proc/modules",
			"module loop is not listed in", "in the guest's memory alone",
		},
		{
			`mv /bin/netstat /bin/netstat.true; printf '#!/bin/sh\n/bin/busybox netstat "$@" | grep -v :4444\n' > /bin/netstat; chmod +x /bin/netstat`, "mv /bin/netstat.true /bin/netstat",
			"port 4444 is not listed in", "and in cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6, not in netstat -tuln",
		},
		{
			`mv /bin/dmesg /bin/dmesg.true; printf '#!/bin/sh\n/bin/busybox dmesg "$@" | grep -v "loop: module"\n' > /bin/dmesg; chmod +x /bin/dmesg`, "mv /bin/dmesg.true /bin/dmesg",
			"messages of the kernel's log are not listed", `1 in the guest's memory alone: ["loop: module loaded"]`,
		},
		{"", "", "", ""},
	} {
		labtest.Output(t, g, c.do+"\necho ok")
		r, err := check.Run(t.Context(), s, only, check.WithAgent(agent))
		if err != nil {
			t.Fatalf("after %q: %v", c.do, err)
		}
		found := c.title == ""
		for _, f := range r.Findings {
			t.Logf("after %q: %s: %s", c.do, f.Title, f.Seen)
			if c.title == "" {
				t.Errorf("after %q: found %s", c.do, f.Title)
			}
			found = found || strings.Contains(f.Title, c.title) && strings.Contains(f.Seen, c.seen)
		}
		if !found || len(r.Gaps) > 0 {
			t.Errorf("after %q: not found; gaps %v", c.do, r.Gaps)
		}
		labtest.Output(t, g, c.undo+"\necho ok")
	}
}
