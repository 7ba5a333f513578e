package labtest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/lab"
)

// Libvirt is a libvirt daemon of a test's own, with the domains that the test starts. It
// sees and changes nothing of the host's.
type Libvirt struct {
	Dir    string // where its files are; short enough for sockets
	Socket string
	URI    string // for virsh, and as LIBVIRT_DEFAULT_URI
	UID    int    // user of the daemon of a session, else 0

	daemon  *exec.Cmd
	start   func() *exec.Cmd
	domains []*domain
}

// domain is a guest, and what belongs to it.
type domain struct {
	*lab.Guest
	lock *os.File
}

// sessionUser runs the daemon of a session where the tests run as root.
const sessionUser = 65534

// systemScript puts folders of the test's own in the place of the system's, whose paths the
// daemon has built in, and has the user that it insists on.
const systemScript = `set -e
mkdir -p "$0/etc" "$0/lib" "$0/log" "$0/cache" "$0/run"
(cat /etc/passwd; echo 'libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin') >"$0/passwd"
(cat /etc/group; echo 'libvirt-qemu:x:64055:') >"$0/group"
mount --bind "$0/passwd" /etc/passwd
mount --bind "$0/group" /etc/group
for d in etc:/etc/libvirt lib:/var/lib/libvirt log:/var/log/libvirt cache:/var/cache/libvirt run:/run/libvirt; do
	mkdir -p "${d#*:}"
	mount --bind "$0/${d%%:*}" "${d#*:}"
done
exec libvirtd -f "$0/libvirtd.conf" -p "$0/pid"`

const (
	daemonConfig = "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n"
	qemuConfig   = "security_driver = \"none\"\nstdio_handler = \"file\"\n"
	systemConfig = "user = \"root\"\ngroup = \"root\"\nremember_owner = 0\nnamespaces = []\ncgroup_controllers = []\n"
)

// StartLibvirt starts a daemon as the system has one, in a mount namespace, which needs
// root. It ends with the test, and its domains with it.
func StartLibvirt(t testing.TB) *Libvirt {
	t.Helper()
	needLibvirt(t)
	if os.Geteuid() != 0 {
		Need(t, "not root: libvirt's system daemon needs a mount namespace")
	}
	l := newLibvirt(t)
	l.Socket = filepath.Join(l.Dir, "run", "libvirt-sock")
	l.URI = "qemu+unix:///system?socket=" + l.Socket
	write(t, filepath.Join(l.Dir, "libvirtd.conf"), daemonConfig+"unix_sock_group = \"root\"\n")
	write(t, filepath.Join(l.Dir, "etc", "qemu.conf"), qemuConfig+systemConfig)
	l.start = func() *exec.Cmd {
		return exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", systemScript, l.Dir)
	}
	l.Start(t)
	return l
}

// StartLibvirtSession starts the daemon of a user's session: of another user, where the
// tests run as root.
func StartLibvirtSession(t testing.TB) *Libvirt {
	t.Helper()
	needLibvirt(t)
	l := newLibvirt(t)
	l.UID = os.Geteuid()
	if l.UID == 0 {
		l.UID = sessionUser
	}
	env := []string{"PATH=" + os.Getenv("PATH")}
	for variable, dir := range map[string]string{"HOME": "home", "XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache"} {
		path := filepath.Join(l.Dir, dir)
		if err := errors.Join(os.MkdirAll(path, 0o700), os.Chown(path, l.UID, l.UID)); err != nil {
			t.Fatal(err)
		}
		env = append(env, variable+"="+path)
	}
	write(t, filepath.Join(l.Dir, "config", "libvirt", "qemu.conf"), qemuConfig)
	if err := os.Chown(filepath.Join(l.Dir, "config", "libvirt"), l.UID, l.UID); err != nil {
		t.Fatal(err)
	}
	l.Socket = filepath.Join(l.Dir, "run", "libvirt", "libvirt-sock")
	l.URI = "qemu+unix:///session?socket=" + l.Socket
	l.start = func() *exec.Cmd {
		c := exec.Command("libvirtd")
		c.Env = env
		if os.Geteuid() == 0 {
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(l.UID), Gid: uint32(l.UID)}}
		}
		return c
	}
	l.Start(t)
	return l
}

func needLibvirt(t testing.TB) {
	t.Helper()
	for _, program := range []string{"libvirtd", "virsh"} {
		NeedTool(t, program)
	}
	NeedQEMU(t)
}

func newLibvirt(t testing.TB) *Libvirt {
	t.Helper()
	dir, err := os.MkdirTemp("", "lv")
	if err == nil {
		err = os.Chmod(dir, 0o755) // another user's daemon has its folders in it
	}
	if err != nil {
		t.Fatal(err)
	}
	l := &Libvirt{Dir: dir}
	t.Cleanup(func() { l.end(t) })
	return l
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// Start starts the daemon, and waits until it answers.
func (l *Libvirt) Start(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(l.Dir, "daemon.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	l.daemon = l.start()
	l.daemon.Stdout, l.daemon.Stderr = log, log
	if err := l.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if exec.Command("virsh", "-q", "-c", l.URI, "list").Run() == nil {
			return
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("libvirtd does not answer; it logged:\n%s", text)
		}
	}
}

// Stop ends the daemon. Its domains go on.
func (l *Libvirt) Stop(t testing.TB) {
	t.Helper()
	if l.daemon == nil {
		return
	}
	if err := l.daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	_ = l.daemon.Wait() // whatever its status
	l.daemon = nil
}

// Pause stops the process of the daemon until resume is called: a daemon that hangs.
func (l *Libvirt) Pause(t testing.TB) (resume func()) {
	t.Helper()
	if err := l.daemon.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	return func() { _ = l.daemon.Process.Signal(syscall.SIGCONT) }
}

// Virsh runs virsh, which must succeed, and gives its output.
func (l *Libvirt) Virsh(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("virsh", append([]string{"-q", "-c", l.URI}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("virsh %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// end ends everything and removes it.
func (l *Libvirt) end(t testing.TB) {
	if t.Failed() {
		t.Logf("libvirtd logged:\n%s", end(filepath.Join(l.Dir, "daemon.log"), 3000))
	}
	for _, d := range l.domains {
		if t.Failed() {
			t.Logf("QEMU of domain %s logged:\n%s\nits console ends:\n%s", d.Name, l.monitorLog(d.Name), end(d.Console(), 2000))
		}
		_ = unix.Kill(d.Process, unix.SIGKILL) // our own, and it runs until here
		d.lock.Close()
	}
	l.Stop(t)
	if err := os.RemoveAll(l.Dir); err != nil {
		t.Error(err)
	}
}

// Domain says what a domain has beside what a guest of the lab has.
type Domain struct {
	lab.Options        // without a disk, firmware or arguments for QEMU
	Slots       int    // for RAM that is plugged in
	Devices     string // more devices, in XML
}

// Up boots a domain of the daemon's: a guest like those of [Up], with a kernel and an
// initramfs.
func (l *Libvirt) Up(t testing.TB, o Domain) *lab.Guest {
	t.Helper()
	if o.Kernel == "" {
		o.Kernel = lab.DefaultKernel
	}
	if o.Progress == nil {
		o.Progress = t.Output()
	}
	dir := filepath.Join(l.Dir, o.Name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	vmlinuz, initrd, err := lab.BootFiles(t.Context(), o.Options, dir)
	if err != nil {
		t.Fatal(err)
	}
	// QEMU may run as another user, and the cache of kernels is this user's own.
	kernel := filepath.Join(dir, "vmlinuz")
	if err := exec.Command("cp", vmlinuz, kernel).Run(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, kernel, initrd} {
		if err := os.Chown(path, l.UID, l.UID); l.UID != 0 && os.Geteuid() == 0 && err != nil {
			t.Fatal(err)
		}
	}
	lock, err := os.Create(filepath.Join(dir, "lock")) // see lab.Guest.Running
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := &domain{lock: lock, Guest: &lab.Guest{
		Name: o.Name, Dir: dir, Kernel: lab.Kernel{Name: o.Kernel}, Userland: lab.Busybox, Memory: o.Memory, SMP: max(o.SMP, 1),
		Accel: lab.TCG, Private: o.Private, Started: time.Now(),
	}}
	description := filepath.Join(dir, "domain.xml")
	write(t, description, domainXML(o, dir, kernel, initrd))
	l.domains = append(l.domains, d)
	l.create(t, d, description)
	if err := awaitAgent(t, d.Guest); err != nil {
		// Seen once in several hundred boots: QEMU ended by itself while the guest found its
		// devices. What is tested begins later; its log is shown, and it is booted again.
		if !l.gone(t, o.Name) {
			t.Fatalf("domain %s did not come up: %v; its console ends:\n%s", o.Name, err, end(d.Console(), 2000))
		}
		t.Logf("the QEMU of domain %s has ended (%v); it is booted again. It logged:\n%s", o.Name, err, l.monitorLog(o.Name))
		l.create(t, d, description)
		if err := awaitAgent(t, d.Guest); err != nil {
			t.Fatalf("domain %s did not come up: %v; QEMU logged:\n%s\nits console ends:\n%s", o.Name, err, l.monitorLog(o.Name), end(d.Console(), 2000))
		}
	}
	return d.Guest
}

// create starts a domain, and learns which process is its QEMU.
func (l *Libvirt) create(t testing.TB, d *domain, description string) {
	t.Helper()
	l.Virsh(t, "create", description)
	var pid []byte
	for _, run := range []string{"run/qemu", "run/libvirt/qemu/run"} {
		if text, err := os.ReadFile(filepath.Join(l.Dir, run, d.Name+".pid")); err == nil {
			pid = text
		}
	}
	if _, err := fmt.Sscan(string(pid), &d.Process); err != nil {
		t.Fatalf("the process of domain %s: %v", d.Name, err)
	}
}

// gone reports whether the daemon has noticed that a domain ended, for which it gets time.
func (l *Libvirt) gone(t testing.TB, name string) bool {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if !slices.Contains(strings.Fields(l.Virsh(t, "list", "--all", "--name")), name) {
			return true
		}
	}
	return false
}

// monitorLog is the end of what the QEMU of a domain logged.
func (l *Libvirt) monitorLog(name string) (text string) {
	_ = filepath.WalkDir(l.Dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == name+".log" && e.Type().IsRegular() {
			text += end(path, 2000)
		}
		return nil
	})
	return text
}

// end is the end of a file, n bytes at most.
func end(path string, n int) string {
	text, _ := os.ReadFile(path)
	return string(text[max(0, len(text)-n):])
}

// awaitAgent waits for the agent's first word.
func awaitAgent(t testing.TB, g *lab.Guest) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(g.Dir, "agent"))
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "OLAB boot") {
			return nil
		}
	}
	return cmp.Or(lines.Err(), io.ErrUnexpectedEOF)
}

// domainXML describes a domain with what the lab's guests have.
func domainXML(o Domain, dir, kernel, initrd string) string {
	machine, memory, cells, plugin := o.Machine, "", "", ""
	if machine == "" {
		machine = "q35"
	}
	if !o.Private {
		memory = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
	}
	if o.Slots > 0 {
		memory += fmt.Sprintf("<maxMemory slots='%d' unit='b'>%d</maxMemory>", o.Slots, 4*o.Memory)
		cells = fmt.Sprintf("<numa><cell id='0' cpus='0-%d' memory='%d' unit='b'/></numa>", max(o.SMP, 1)-1, o.Memory)
	}
	text := func(s string) string {
		var b bytes.Buffer
		_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
		return b.String()
	}
	if o.Plugin != "" {
		plugin = fmt.Sprintf("<qemu:commandline><qemu:arg value='-plugin'/><qemu:arg value='%s,socket=%s'/></qemu:commandline>",
			text(o.Plugin), text(filepath.Join(dir, "trace")))
	}
	return fmt.Sprintf(`<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
	<name>%s</name>
	<memory unit='b'>%d</memory>%s
	<vcpu>%d</vcpu>
	<os>
		<type arch='x86_64' machine='%s'>hvm</type>
		<kernel>%s</kernel>
		<initrd>%s</initrd>
		<cmdline>console=ttyS0 panic=-1 outsight.name=%s %s</cmdline>
	</os>
	<features><acpi/><apic/></features>
	<cpu mode='maximum'>%s</cpu>
	<devices>
		<controller type='usb' model='none'/>
		<memballoon model='none'/>
		<serial type='file'><source path='%s'/></serial>
		<serial type='unix'><source mode='bind' path='%s'/></serial>
		%s
	</devices>
	%s
</domain>
`, text(o.Name), o.Memory, memory, max(o.SMP, 1), text(machine), text(kernel), text(initrd), text(o.Name), text(o.Append), cells,
		text(filepath.Join(dir, "console.log")), text(filepath.Join(dir, "agent")), o.Devices, plugin)
}
