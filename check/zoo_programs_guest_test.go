package check_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux/network"
)

// programTrick is one that a program inside the guest does (groundtruth/guests/tricks).
type programTrick struct {
	name    string
	command string   // starts it, and prints "ready" when it is done
	undo    string   // what is left to do after all that it started has ended
	want    []string // the checks that must find it; none of a healthy thing that looks like a trick
	// outside is done to what the program left, from outside.
	outside func(z *zoo)
}

var programTricks = []programTrick{
	{name: "program in a memfd", command: "/tricks memfd payload kworker/0:1", want: []string{"fileless-program", "masquerade"}},
	{name: "argument in brackets", command: "/tricks memfd payload [kworker/3:1]", want: []string{"fileless-program", "masquerade"}},
	{name: "named as a worker of the kernel", command: "printf kworker/u9:3 >/proc/self/comm; echo ready; while :; do sleep 100; done", want: []string{"masquerade"}},
	{name: "memfd named as runc's, by another", command: "/tricks memfd runc_cloned:/proc/self/exe sh", want: []string{"fileless-program"}},
	{name: "memfd named as runc's, by a process of that name", command: "mkdir -p /usr/bin; cp /bin/busybox /usr/bin/runc; /tricks memfd runc_cloned:/proc/self/exe runc", undo: "rm -f /usr/bin/runc", want: []string{"fileless-program"}},
	{name: "script in a memfd", command: "/tricks memfd-script", want: []string{"fileless-program"}},
	{name: "deleted in /dev/shm", command: "/tricks deleted /dev/shm/kdmtmpflush", want: []string{"fileless-program"}},
	{name: "deleted in /var/lib", command: "mkdir -p /var/lib/x; /tricks deleted /var/lib/x/agent", want: []string{"fileless-program"}},
	{name: "program in /dev/shm", command: "mkdir -p /dev/shm; cp /bin/busybox /dev/shm/busybox; echo ready; exec /dev/shm/busybox sleep 1000", undo: "rm -f /dev/shm/busybox", want: []string{"strange-program"}},
	{name: "program in a hidden folder", command: "mkdir -p /tmp/.x; cp /bin/busybox /tmp/.x/busybox; echo ready; exec /tmp/.x/busybox sleep 1000", undo: "rm -rf /tmp/.x", want: []string{"strange-program"}},
	{name: "program in a folder named as an AppImage's", command: "mkdir -p /tmp/.mount_x; cp /bin/busybox /tmp/.mount_x/busybox; echo ready; exec /tmp/.mount_x/busybox sleep 1000", undo: "rm -rf /tmp/.mount_x", want: []string{"strange-program"}},
	{name: "program in /run", command: "mkdir -p /run/t; mount -t tmpfs none /run/t; cp /bin/busybox /run/t/busybox; echo ready; exec /run/t/busybox sleep 1000", undo: "umount -l /run/t", want: []string{"strange-program"}},
	{name: "program in a hidden folder of /usr", command: "mkdir -p /usr/lib/.x; cp /bin/busybox /usr/lib/.x/busybox; echo ready; exec /usr/lib/.x/busybox sleep 1000", undo: "rm -rf /usr/lib/.x", want: []string{"strange-program"}},
	{name: "script in /dev/shm", command: "mkdir -p /dev/shm; printf \"#!/bin/sh\\necho ready; while :; do sleep 1000; done\\n\" >/dev/shm/x; chmod 755 /dev/shm/x; exec /dev/shm/x", undo: "rm -f /dev/shm/x", want: []string{"strange-program"}},
	{name: "script in /dev/shm, by a relative path", command: "mkdir -p /dev/shm; cd /dev/shm; printf \"#!/bin/sh\\necho ready; while :; do sleep 1000; done\\n\" >x; exec sh x", undo: "rm -f /dev/shm/x", want: []string{"strange-program"}},
	{name: "script in /dev/shm, that its arguments do not name", command: "mkdir -p /dev/shm; cd /; printf \"#!/bin/sh\\necho ready; while :; do sleep 1000; done\\n\" >/dev/shm/x; /tricks script /dev/shm/x", undo: "rm -f /dev/shm/x", want: []string{"strange-program"}},
	{name: "healthy: script elsewhere", command: "mkdir -p /usr/lib/x; printf \"#!/bin/sh\\necho ready; while :; do sleep 1000; done\\n\" >/usr/lib/x/y; cd /dev; exec sh /usr/lib/x/y /dev/shm/data", undo: "rm -rf /usr/lib/x"},
	{name: "another namespace's /proc in place of /proc", command: "mkdir -p /run/other; unshare -p -f sh -c \"mount -t proc proc /run/other; sleep 1000\" & sleep 1; umount -l /proc; mount -o bind /run/other /proc; echo ready; wait", undo: "umount -l /proc; mount -t proc proc /proc; umount -l /run/other", want: []string{"covered-process"}},
	{name: "mount over a process in /proc", command: "mkdir -p /run/empty; sleep 1000 & mount -o bind /run/empty /proc/$!; echo ready; wait", undo: "grep /proc/[0-9] /proc/mounts | cut -d\" \" -f2 | xargs -r umount -l", want: []string{"covered-process"}},
	{name: "mount over a file of a process in /proc", command: "sleep 1000 & mount -o bind /dev/null /proc/$!/cmdline; echo ready; wait", undo: "grep /proc/[0-9] /proc/mounts | cut -d\" \" -f2 | xargs -r umount -l", want: []string{"covered-process"}},
	{name: "healthy: mounts over files of /proc", command: "mount -o bind /dev/null /proc/kallsyms; mount -t tmpfs none /proc/fs; echo ready", undo: "umount /proc/kallsyms /proc/fs"},
	{name: "program in a file system that was unmounted", command: "mkdir -p /mnt/t; mount -t tmpfs none /mnt/t; cp /tricks /mnt/t/agent; /mnt/t/agent then umount -l /mnt/t", want: []string{"detached-program"}},
	{name: "healthy: program in a file system that is mounted elsewhere", command: "mkdir -p /mnt/t /mnt/u; mount -t tmpfs none /mnt/t; mount -o bind /mnt/t /mnt/u; cp /tricks /mnt/t/agent; /mnt/t/agent then umount -l /mnt/t", undo: "umount -l /mnt/u"},
	{name: "setuid shell in /tmp", command: "mkdir -p /tmp; cp /bin/busybox /tmp/x; chmod 4755 /tmp/x; echo ready", undo: "rm -f /tmp/x", want: []string{"planted-setuid"}},
	{name: "setuid shell in /dev/shm", command: "mkdir -p /dev/shm; cp /bin/busybox /dev/shm/x; chmod 4755 /dev/shm/x; echo ready", undo: "rm -f /dev/shm/x", want: []string{"planted-setuid"}},
	{name: "setuid program that runs where others may write", command: "mkdir -p /var/www; chmod 777 /var/www; cp /tricks /var/www/x; chmod 4755 /var/www/x; /tricks as-user /var/www/x", undo: "rm -rf /var/www", want: []string{"planted-setuid"}},
	{name: "capabilities of a file in /tmp", command: "mkdir -p /tmp/t; mount -t tmpfs none /tmp/t; /tricks capable /tmp/t/x; /tricks as-user /tmp/t/x", undo: "umount -l /tmp/t", want: []string{"planted-setuid"}},
	{name: "healthy: setuid program of the system", command: "mkdir -p /usr/bin; cp /tricks /usr/bin/tricks; chmod 4755 /usr/bin/tricks; /tricks as-user /usr/bin/tricks", undo: "rm -f /usr/bin/tricks"},
	{name: "healthy: tree of a system in /tmp", command: "mkdir -p /tmp/root/usr/bin; cp /bin/busybox /tmp/root/usr/bin/su; chmod 4755 /tmp/root/usr/bin/su; echo ready", undo: "rm -rf /tmp/root"},
	{name: "modprobe in /opt", command: "cat /proc/sys/kernel/modprobe >/run/modprobe; echo /opt/x >/proc/sys/kernel/modprobe; echo ready", undo: "cat /run/modprobe >/proc/sys/kernel/modprobe", want: []string{"helper-path"}},
	{name: "healthy: upgraded", command: "mkdir -p /usr/sbin; /tricks upgraded /usr/sbin/daemon", undo: "rm -f /usr/sbin/daemon"},
	{name: "shell on a connection", command: "/tricks shell", want: []string{"shell-on-socket"}},
	{name: "filter with magic", command: "/tricks filter-magic", want: []string{"packet-filter-backdoor"}},
	{name: "filter by window", command: "/tricks filter-window", want: []string{"packet-filter-backdoor"}},
	{name: "filter of packets that runs something else", command: "/tricks filter-dhcp", want: []string{"bpf-tampering"}, outside: func(z *zoo) {
		for k, err := range z.look.Sockets(z.Context()) {
			if err == nil && k.Protocol == "packet" && k.Filter != nil {
				filter := z.ptr(k.Addr + z.offset("sock", "sk_filter"))
				z.put(z.ptr(filter+z.offset("sk_filter", "prog"))+z.offset("bpf_prog", "bpf_func"), uint64(z.symbol("__x64_sys_getpid")))
				return
			}
		}
		z.Fatal("no socket has a filter")
	}},
	{name: "healthy: filter of DHCP", command: "/tricks filter-dhcp"},
	{name: "healthy: sniffer", command: "/tricks sniff dummy0"},
	{name: "promiscuous by flag", command: "ip link set dummy0 promisc on; echo ready", undo: "ip link set dummy0 promisc off", want: []string{"promiscuous"}},
	{name: "other file over the code", command: "/tricks hollow-file /tmp/other", undo: "rm -f /tmp/other", want: []string{"hollowed-process"}},
	{name: "memory over the code", command: "/tricks hollow-memory changed", want: []string{"hollowed-process", "injected-code"}},
	{name: "code overwritten by /proc/PID/mem", command: "sleep 1000 & p=$!; sleep 0.5; a=$(grep r-xp /proc/$p/maps | head -n 1 | cut -d- -f1); printf AAAAAAAAAAAA | dd of=/proc/$p/mem bs=1 seek=$((0x$a + 64)) conv=notrunc || echo denied; echo ready; wait", want: []string{"patched-program"}},
	{name: "healthy: code moved to other pages", command: "/tricks hollow-memory"},
	{name: "shellcode in a system call", command: "GODEBUG=asyncpreemptoff=1 /tricks shellcode", want: []string{"injected-code"}},
	{name: "shellcode in a file of data", command: "mkdir -p /usr/share; GODEBUG=asyncpreemptoff=1 /tricks shellcode-file /usr/share/x.dat", undo: "rm -f /usr/share/x.dat", want: []string{"injected-code"}},
	{name: "shellcode in a program with a compiler", command: "mkdir -p /usr/lib; GODEBUG=asyncpreemptoff=1 /tricks shellcode /usr/lib/libjvm.so", undo: "rm -f /usr/lib/libjvm.so", want: []string{"injected-code"}},
	{name: "code that rests", command: "/tricks code bare", want: []string{"injected-code"}},
	{name: "code that rests beside PCRE2", command: "mkdir -p /usr/lib; /tricks code bare /usr/lib/libpcre2-8.so.0", undo: "rm -f /usr/lib/libpcre*", want: []string{"injected-code"}},
	{name: "code that rests behind small words", command: "mkdir -p /usr/lib; /tricks code words /usr/lib/libpcre2-8.so.0", undo: "rm -f /usr/lib/libpcre*", want: []string{"injected-code"}},
	{name: "code that rests in a program named node", command: "cp /tricks /tmp/node; /tmp/node code bare", undo: "rm -f /tmp/node", want: []string{"injected-code"}},
	{name: "code that rests in a program that a user put there", command: "mkdir -p /root/own; cp /tricks /root/own/node; /root/own/node code bare", undo: "rm -rf /root/own", want: []string{"injected-code"}},
	{name: "code that rests in a program with the name of a compiler in front", command: "mkdir -p /usr/bin; cp /tricks /usr/bin/rrdcached; /usr/bin/rrdcached code bare", undo: "rm -f /usr/bin/rrdcached", want: []string{"injected-code"}},
	{name: "short code that rests", command: "/tricks code short", want: []string{"injected-code"}},
	{name: "code that rests in shared memory", command: "/tricks code shared", want: []string{"injected-code"}},
	{name: "code that rests in a memfd, mapped twice", command: "/tricks code memfd", want: []string{"injected-code"}},
	{name: "code of the program made writable", command: "/tricks writable", want: []string{"patched-program"}},
	{name: "library loaded by hand", command: "/tricks reflective", want: []string{"injected-code"}},
	{name: "library in a memfd", command: "/tricks library memfd:lib", want: []string{"injected-code"}},
	{name: "executable heap", command: "/tricks heap", want: []string{"injected-code"}},
	{name: "executable stack", command: "/tricks stack", want: []string{"injected-code"}},
	{name: "healthy: compiler", command: "mkdir -p /usr/lib /usr/bin; cp /tricks /usr/bin/tricks; /usr/bin/tricks code bare /usr/lib/libjvm.so", undo: "rm -f /usr/lib/libjvm.so /usr/bin/tricks"},
	{name: "code that rests beside the library of a compiler", command: "mkdir -p /usr/lib; cp /tricks /tmp/tricks; /tmp/tricks code bare /usr/lib/libjvm.so", undo: "rm -f /usr/lib/libjvm.so /tmp/tricks", want: []string{"injected-code"}},
	{name: "healthy: PCRE2", command: "mkdir -p /usr/lib; /tricks code sljit /usr/lib/libpcre2-8.so.0", undo: "rm -f /usr/lib/libpcre*"},
	{name: "preload in the environment", command: "/tricks preload /dev/shm/.x.so", want: []string{"preload"}},
	{name: "healthy: preload of a package's", command: "/tricks preload /usr/lib/libjemalloc.so.2"},
	{name: "ld.so.preload", command: "mkdir -p /etc; echo /lib/libselinux.so.3 >/etc/ld.so.preload; echo ready", undo: "rm -f /etc/ld.so.preload", want: []string{"preload"}},
	{name: "library of nearly all, out of sight", command: "mkdir -p /lib64; /tricks libraries /lib64/ld-linux-x86-64.so.2 /dev/shm/libx.so", undo: "rm -f /lib64/ld-linux* /dev/shm/libx.so", want: []string{"preload", "?strange-program"}},
	{name: "library of nearly all, unasked", command: "mkdir -p /lib64; /tricks libraries /lib64/ld-linux-x86-64.so.2 /lib64/libx.so.3", undo: "rm -f /lib64/*", want: []string{"preload"}},
	{name: "healthy: library of the workers of one program", command: "mkdir -p /lib64; /tricks workers /lib64/ld-linux-x86-64.so.2 /lib64/libx.so.3", undo: "rm -f /lib64/*"},
	{name: "connection off its table", command: "/tricks connection", want: []string{"hidden-socket"}, outside: func(z *zoo) {
		node := z.connection().Addr + z.offset("sock_common", "skc_nulls_node")
		next, prev := z.ptr(node), z.ptr(node+8)
		z.put(prev, uint64(next))
		if next&1 == 0 { // else it ends the chain
			z.put(next+8, uint64(prev))
		}
	}},
	{name: "process with a connection off the list", command: "/tricks connection", want: []string{"hidden-process", "hidden-socket"}, outside: func(z *zoo) {
		of := z.connection().PIDs[0]
		for p, err := range z.look.Processes(z.Context()) {
			if err == nil && p.PID == of {
				z.unlink(p.Task.Addr + z.offset("task_struct", "tasks"))
				return
			}
		}
	}},
	{name: "promiscuous without a request", command: "echo ready", want: []string{"promiscuous"}, outside: func(z *zoo) {
		owners, err := z.look.Linux.Owners()
		if err != nil {
			z.Fatal(err)
		}
		for d, err := range network.Devices(z.Context(), z.look.Linux, owners) {
			if err == nil && d.Name == "dummy0" {
				z.write(d.Addr+z.offset("net_device", "promiscuity"), []byte{1, 0, 0, 0})
			}
		}
	}},
}

// connection is an end of a TCP connection that a process has.
func (z *zoo) connection() *network.Socket {
	z.Helper()
	for k, err := range z.look.Sockets(z.Context()) {
		if err == nil && k.Protocol == "tcp" && k.StateName() == "ESTABLISHED" && len(k.PIDs) > 0 {
			return k
		}
	}
	z.Fatal("no process has a connection")
	return nil
}

// TestGuestZooPrograms has programs in guests do what intruders do.
func TestGuestZooPrograms(t *testing.T) {
	labtest.NeedQEMU(t)
	for _, kernel := range zooKernels("6.12") {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			g := labtest.Up(t, lab.Options{
				Kernel: kernel, Memory: 512 << 20, SMP: 2, Modules: []string{"dummy numdummies=1"},
				Files: map[string]string{"/tricks": guests.Program(t, "tricks")},
			})
			s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			silent(t, s)
			for _, k := range slices.Concat(programTricks, confinementTricks) {
				t.Run(k.name, func(t *testing.T) { performInside(t, g, s, k) })
			}
			silent(t, s)
		})
	}
}

func performInside(t *testing.T, g *lab.Guest, s *guest.Guest, k programTrick) {
	const start = `mkdir -p /run; rm -f /run/trick.log
setsid sh -c '%s' >/run/trick.log 2>&1 </dev/null & echo $!
for try in $(seq 100); do grep -qx ready /run/trick.log && exit 0; sleep 0.1; done
cat /run/trick.log >&2; exit 1`
	pid := strings.TrimSpace(labtest.Output(t, g, fmt.Sprintf(start, k.command)))
	// The next trick must not find what this one leaves behind: where time is short, a killed process stays for a while.
	defer labtest.Output(t, g, fmt.Sprintf("kill -9 -%[1]s 2>/dev/null; %[2]s\nfor try in $(seq 100); do kill -0 -%[1]s 2>/dev/null || break; sleep 0.1; done; :", pid, k.undo))
	if strings.Contains(labtest.Output(t, g, "cat /run/trick.log"), "denied\n") {
		t.Skip("this kernel denies it") // writing to read-only memory, since 6.12 with proc_mem.force_override
	}
	if k.outside != nil {
		look, err := s.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer look.Close()
		z := &zoo{T: t, ram: labtest.OpenRAM(t, g), look: look, session: s}
		defer z.restore()
		k.outside(z)
	}
	r, err := check.Run(t.Context(), s, check.All(), check.Again(1), remember(s))
	if err != nil {
		t.Fatal(err)
	}
	judge(t, r, k.name, k.want)
}

// TestGuestServerSilent: nothing is found on guests that are busy in every odd and legal way.
func TestGuestServerSilent(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("set OUTSIGHT_SLOW: it takes minutes")
	}
	for _, kernel := range zooKernels("6.12") {
		t.Run(kernel, func(t *testing.T) { silentServer(t, lab.Options{Kernel: kernel, SMP: 2}) })
	}
	t.Run("debian", func(t *testing.T) { silentServer(t, lab.Options{Userland: lab.Debian, SMP: 2, Memory: 1 << 30}) })
}

func silentServer(t *testing.T, o lab.Options) {
	g := guests.UpServer(t, o)
	s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	silent(t, s)
}
