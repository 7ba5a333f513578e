package tcg_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// acts is what the guest does.
const acts = `
mkdir -p /var/log/app /tmp/home /tmp/elsewhere/log
mkdir /tmp/mine; mount -t tmpfs mine /tmp/mine; mkdir /tmp/bound; mount -o bind /tmp/home /tmp/bound
echo in its own file system >/tmp/mine/.bash_history; rm /tmp/mine/.bash_history
umount /tmp/bound; umount /tmp/mine
insmod /lib/modules/dummy.ko numdummies=0; rmmod dummy
echo 0123456789 >/var/log/syslog; echo 0123456789 >/var/log/app/a.log; echo x >/var/log/wtmp; echo x >/tmp/home/.bash_history
echo 0123456789 >/tmp/elsewhere/log/no.log; echo x >/tmp/plain; echo new >/var/new
/acts cut /var/log/app/a.log
: >/var/log/syslog
: >/var/log/syslog # it is empty already
mv /var/log/syslog /var/log/syslog.1
mv /var/new /var/log/wtmp
rm /var/log/app/a.log /var/log/syslog.1 /tmp/home/.bash_history /tmp/elsewhere/log/no.log /tmp/plain
/acts drop; echo "dropped $?"
cp /acts /risen; chmod 4755 /risen; /acts rise
/acts memfd; /acts udp; /acts packet; /acts code; echo "code $?"; /acts refused; echo "refused $?"
mount -t tmpfs logs /var/log; mkdir /var/log/audit; mount -t tmpfs audit /var/log/audit
echo 0123456789 >/var/log/auth.log; echo x >/var/log/audit/audit.log; rm /var/log/auth.log; rm /var/log/audit/audit.log
umount /var/log/audit; umount /var/log
/acts tree; echo "tree $?"
mkdir /tmp/nothing; mount -o bind /tmp/nothing /proc/1; umount /proc/1
nc -l -p 4711 </dev/null >/dev/null & n=$!
i=0; while [ $i -lt 50 ] && ! netstat -ltn | grep -q :4711; do i=$((i+1)); done
nc 127.0.0.1 4711 </dev/null; kill -9 $n; wait $n
sh -c 'exit 3'
i=0; while [ $i -lt 300 ]; do /bin/echo "number $i" >/tmp/many.$i; rm /tmp/many.$i; i=$((i+1)); done
echo done
`

// TestGuestDoors compares what the plugin sees at the kernel's functions with what the guest did: each thing once, in its order,
// with its process, of processes too that are gone when it is looked at; and nothing that it did not do.
func TestGuestDoors(t *testing.T) {
	labtest.NeedQEMU(t)
	labtest.NeedTool(t, "gcc")
	kernels := []string{lab.DefaultKernel}
	if os.Getenv("OUTSIGHT_SLOW") != "" {
		kernels = lab.KernelNames()
	}
	program := filepath.Join(t.TempDir(), "acts")
	if out, err := exec.Command("gcc", "-static", "-O1", "-o", program, "testdata/acts.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	for _, k := range kernels {
		t.Run(k, func(t *testing.T) {
			g := traced(t, lab.Options{Name: "doors-" + k, Kernel: k, SMP: 2, Modules: []string{"dummy"}, Files: map[string]string{"/acts": program}})
			labtest.Output(t, g, "rmmod dummy")
			answersOnlyRead(t, g)
			stop := watch(t, g, tcg.Options{Calls: []string{}, Kinds: tcg.Kinds()})
			tree := "0"
			if k == "5.10" {
				tree = "100" // without mount_setattr
			}
			if said := labtest.Output(t, g, acts); !strings.HasSuffix(said, "dropped 7\ncode 0\nrefused 0\ntree "+tree+"\ndone\n") {
				t.Errorf("the guest says %q", said)
			}
			compareDoors(t, stop(), tree == "0")
		})
	}
}

// answersOnlyRead: what [tcg.Options.Answers] watches can be read, and not had in another way that it would have to watch, too. A file of
// which one of them works is there to see that they are tried.
func answersOnlyRead(t *testing.T, g *lab.Guest) {
	t.Helper()
	said := labtest.Output(t, g, "/acts told /acts /proc/modules /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 /proc/net/raw /proc/net/raw6 /proc/net/unix /proc/net/packet /proc/net/dev")
	said = strings.Replace(said, "copy_file_range /acts\n", "", 1) // within one file system only
	if want := "sendfile /acts\nsplice /acts\nmmap /acts\n"; said != want {
		t.Errorf("in other ways than by read the guest gets:\n%swant:\n%s", said, want)
	}
}

// inSpace is the mount namespace of an event, which has another number each time.
var inSpace = regexp.MustCompile(` in mount namespace \d+`)

func compareDoors(t *testing.T, all []trace.Event, attributes bool) {
	t.Helper()
	got := map[trace.Kind][]string{}
	running, born := map[int32]bool{}, map[int32]bool{}
	var statuses, numbers []string
	sensors := trace.NewSensors()
	for _, e := range all {
		if e.Process == nil || e.Process.PID <= 0 || e.Process.Comm == "" || e.TID <= 0 || e.Note != "" && e.Kind != trace.KindModule && e.Kind != trace.KindCreds && e.Kind != trace.KindRefused {
			t.Errorf("%s %+v", e.AppendLine(nil, e.Time.Location()), e.Process)
			continue
		}
		pid := e.Process.PID
		what := e.What()
		switch e.Kind {
		case trace.KindFork:
			if running[pid] {
				t.Errorf("process %d is born while it is there", pid)
			}
			running[pid], born[pid] = true, true
			continue
		case trace.KindExec:
			if number, ok := strings.CutPrefix(e.Args, "/bin/echo 'number "); ok {
				numbers = append(numbers, strings.TrimSuffix(number, "'"))
				if e.Process.Exe != "/bin/busybox" || e.Process.Comm != "echo" || e.Object != "/bin/busybox" {
					t.Errorf("%s runs %s (%s): %s", e.Process.Comm, e.Process.Exe, e.Object, e.Args)
				}
			}
			if e.Process.Exe == "/acts" || e.Process.Exe == "/risen" || strings.HasPrefix(e.Process.Exe, "/memfd:") {
				got[e.Kind] = append(got[e.Kind], e.Object+": "+e.Args)
			}
			if born[pid] && !running[pid] {
				t.Errorf("process %d runs %s after its end", pid, e.Args)
			}
			continue
		case trace.KindExit:
			if born[pid] && !running[pid] {
				t.Errorf("process %d ends twice", pid)
			}
			delete(running, pid)
			if e.Result != "status 0" {
				statuses = append(statuses, e.Process.Comm+" "+e.Result)
			}
			continue
		case trace.KindCreds:
			what = e.Process.Comm + " " + e.Args + " by " + strings.TrimLeft(e.Name, "_")
			if e.Note != "" {
				what += ": " + e.Note
			}
		case trace.KindConnect, trace.KindAccept: // one end is any port
			from, to, _ := strings.Cut(e.Object, "->")
			end := to
			if e.Kind == trace.KindAccept {
				end = from
			}
			what = e.Name + " " + end[strings.LastIndexByte(end, ':'):]
		case trace.KindModule:
			what = e.Object
		case trace.KindNewCode:
			sensors.Mark(&e)
			_, size, _ := strings.Cut(e.Args, ", ")
			what = e.Object + " " + size + ": " + e.Note
		case trace.KindRefused:
			if e.Name == "bpf" || e.Name == "perf_event_open" {
				what = e.Name + " = " + e.Result
			}
			if e.Note != "" {
				what += "  # " + e.Note
			}
		case trace.KindMount, trace.KindUnmount:
			if e.Name == "mount_setattr" {
				what += " of " + e.Object
			}
			what = inSpace.ReplaceAllString(what, " in mount namespace N")
			if sensors.Mark(&e); e.Note != "" {
				what += ": " + e.Note
			}
		case trace.KindListen:
			what = strings.ReplaceAll(strings.ReplaceAll(what, "[::]", "any"), "0.0.0.0", "any")
		}
		got[e.Kind] = append(got[e.Kind], what)
	}
	mounted := []string{
		"mine on /tmp/mine type tmpfs", "bind /tmp/home on /tmp/bound",
		"logs on /var/log type tmpfs: hides the logs that lie there", "audit on /var/log/audit type tmpfs: hides the logs that lie there",
		"new on /tmp/tree type tmpfs", "bind /tmp/tree/part on /tmp/twin",
		`mount_setattr(AT_FDCWD, "tree", 0, {attr_set=MOUNT_ATTR_RDONLY, attr_clr=0, propagation=0 /* MS_??? */, userns_fd=0}, 32) of /tmp/tree`,
		`mount_setattr(4, "", AT_EMPTY_PATH, {attr_set=MOUNT_ATTR_RDONLY, attr_clr=0, propagation=0 /* MS_??? */, userns_fd=0}, 32) of /tmp/tree`,
		"remount /tmp/tree", "remount /tmp/tree", "bind /tmp/tree on /tmp/third", "move /tmp/third on /tmp/fourth",
		"jail on /tmp/tree type tmpfs in mount namespace N", "root on /tmp/tree/in type tmpfs in mount namespace N",
		"pivot_root to /tmp/tree/in, the old root is at /tmp/tree/in/old in mount namespace N",
		"bind /tmp/nothing on /proc/1: hides process 1 from what reads /proc",
	}
	if !attributes {
		mounted = slices.DeleteFunc(mounted, func(m string) bool { return strings.HasPrefix(m, "mount_setattr") })
	}
	for kind, want := range map[trace.Kind][]string{
		trace.KindExec: {
			"/acts: /acts cut /var/log/app/a.log", "/acts: /acts drop", "/acts: /acts rise", "/risen: risen cut /none", "/acts: /acts memfd", "/memfd:payload (deleted): busybox true 'in memory'", "/acts: /acts udp", "/acts: /acts packet", "/acts: /acts code", "/acts: /acts refused", "/acts: /acts tree",
		},
		trace.KindCreds: {
			"acts gid 0 → 1000, egid 0 → 1000, sgid 0 → 1000, fsgid 0 → 1000 by sys_setresgid",
			"acts uid 0 → 1000, euid 0 → 1000, suid 0 → 1000, fsuid 0 → 1000, effective -41 capabilities, permitted -41 capabilities by sys_setresuid",
			"acts uid 0 → 1000, euid 0 → 1000, suid 0 → 1000, fsuid 0 → 1000, effective -41 capabilities, permitted -41 capabilities by sys_setresuid",
			"risen euid 1000 → 0, suid 1000 → 0, fsuid 1000 → 0, effective +41 capabilities, permitted +41 capabilities by begin_new_exec: became root, by running a program that is set-user-ID or has capabilities",
			"acts gid 0 → 1000, egid 0 → 1000, sgid 0 → 1000, fsgid 0 → 1000 by sys_setresgid",
			"acts uid 0 → 1000, euid 0 → 1000, suid 0 → 1000, fsuid 0 → 1000, effective -41 capabilities, permitted -41 capabilities by sys_setresuid",
		},
		trace.KindNewCode: {
			"[anon] 4096 bytes, r-xp: can run code that no file holds", "/memfd:code (deleted) 4096 bytes, r-xs: can run memory that no file holds (memfd code)",
			"/bin/busybox 4096 bytes, r-xp: can run code that it has changed in memory", "[heap] 4096 bytes, rwxp: can run its heap, as exploits do, and programs linked with an executable stack",
			"[stack] 4096 bytes, rwxp: can run its stack, as exploits do, and programs linked with an executable stack",
		},
		trace.KindRefused: {
			"setuid(0) = -1 EPERM (Operation not permitted)", "setuid(0) = -1 EPERM (Operation not permitted)", "setresgid(-1, 0, -1) = -1 EPERM (Operation not permitted)",
			`finit_module(3, "numdummies=0", 0) = -1 EPERM (Operation not permitted)`, "ptrace(PTRACE_ATTACH, 1) = -1 EPERM (Operation not permitted)",
			`mount("no", "/tmp", "tmpfs", 0, NULL) = -1 EPERM (Operation not permitted)`, `umount2("/proc", MNT_DETACH) = -1 EPERM (Operation not permitted)`,
			"bpf = -1 EPERM (Operation not permitted)", `chroot("/tmp") = -1 EPERM (Operation not permitted)`, "unshare(CLONE_NEWNET) = -1 EPERM (Operation not permitted)",
			"pidfd_getfd(4, 0, 0) = -1 EPERM (Operation not permitted)", "perf_event_open = -1 EACCES (Permission denied)",
			"setns(3, CLONE_NEWPID) = -1 EPERM (Operation not permitted)  # by seccomp",
		},
		trace.KindModule:  {"dummy"},
		trace.KindUnload:  {"dummy"},
		trace.KindMount:   mounted,
		trace.KindUnmount: {"/tmp/bound", "/tmp/mine", "/var/log/audit", "/var/log", "/tmp/fourth", "/tmp/twin", "/tmp/tree", "/tmp/tree/old in mount namespace N", "/proc/1"},
		trace.KindListen:  {"udp 127.0.0.1:5300", "packet 0x0003", "raw 1", "tcp any:4711"},
		trace.KindConnect: {"udp :53", "tcp :4711"},
		trace.KindAccept:  {"tcp :4711"},
		trace.KindUnlink: {
			"/tmp/mine/.bash_history deleted, 23 bytes",
			"/var/log/app/a.log cut from 11 to 5 bytes", "/var/log/syslog emptied, 11 bytes", "/var/log/syslog renamed to /var/log/syslog.1",
			"/var/log/wtmp replaced by /var/new", "/var/log/app/a.log deleted, 5 bytes", "/var/log/syslog.1 deleted, 0 bytes", "/tmp/home/.bash_history deleted, 2 bytes",
			"/var/log/auth.log deleted, 11 bytes", "/var/log/audit/audit.log deleted, 2 bytes",
		},
	} {
		if !slices.Equal(got[kind], want) {
			t.Errorf("%s:\n got %q\nwant %q", kind, got[kind], want)
		}
	}
	if len(numbers) != 300 || !slices.IsSortedFunc(numbers, func(a, b string) int { var x, y int; fmt.Sscan(a, &x); fmt.Sscan(b, &y); return x - y }) {
		t.Errorf("%d of 300 short processes, or not in their order: %v", len(numbers), numbers)
	}
	for _, want := range []string{"sh status 3", "acts status 7"} {
		if !slices.Contains(statuses, want) {
			t.Errorf("no end with %s: %v", want, statuses)
		}
	}
}
