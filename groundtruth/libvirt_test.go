package groundtruth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
)

// domains are the guests that libvirt runs, by their folder.
var domains sync.Map

func isDomain(g *lab.Guest) bool {
	_, is := domains.Load(g.Dir)
	return is
}

func upDomain(t *testing.T, l *labtest.Libvirt, o labtest.Domain) *lab.Guest {
	t.Helper()
	g := l.Up(t, o)
	domains.Store(g.Dir, true)
	t.Cleanup(func() { domains.Delete(g.Dir) })
	return g
}

// withCrowd are o with what a crowd needs.
func withCrowd(t *testing.T, o lab.Options) lab.Options {
	o.Files = map[string]string{"/crowd": guests.Program(t, "crowd"), "/truth": guests.Program(t, "truth")}
	return o
}

// TestGuestLibvirt looks at domains of a real libvirtd: their monitor is the daemon's, and
// all that is asked goes through it.
func TestGuestLibvirt(t *testing.T) {
	l := labtest.StartLibvirt(t)
	t.Setenv("LIBVIRT_DEFAULT_URI", l.URI)
	traced := withCrowd(t, lab.Options{Name: "web-1", Memory: gib / 2, SMP: 2, Plugin: domainPlugin(t, l)})
	shared := upDomain(t, l, labtest.Domain{Options: traced, Slots: 2})
	hole := upDomain(t, l, labtest.Domain{Options: withCrowd(t, lab.Options{Name: "db.hole", Memory: 4 * gib, Machine: "pc", Private: true})})
	views := guests.ServerOptions(t, lab.Options{Name: "private", Memory: gib / 2, SMP: 2, Private: true})
	private := upDomain(t, l, labtest.Domain{Options: views, Devices: "<interface type='user'><model type='virtio'/></interface>"})

	sources := map[*lab.Guest]vm.Source{shared: vm.SourceShared, private: vm.SourcePrivate, hole: vm.SourcePrivate}
	t.Run("vms", func(t *testing.T) {
		for g, source := range sources {
			checkDomainListed(t, l, g, source)
		}
		defaultPlaces(t, shared)
	})
	t.Run("check", func(t *testing.T) { judgeDomain(t, shared) })
	t.Run("events", func(t *testing.T) { domainEvents(t, l, shared) })
	t.Run("trace", func(t *testing.T) { traceDomain(t, shared) })
	guests.StartCrowd(t, shared, "-count", "1") // every kind once: there is much to do on two processors
	for _, g := range []*lab.Guest{shared, hole} {
		t.Run(g.Name, func(t *testing.T) { compareDomain(t, l, g, sources[g]) })
	}
	t.Run("pause", func(t *testing.T) { pauseDomain(t, l, shared) })
	t.Run("killed", func(t *testing.T) { killPauser(t, l, hole) })
	t.Run("plugged", func(t *testing.T) { plugRAM(t, l, shared) })
	t.Run("daemon", func(t *testing.T) { withoutDaemon(t, l, hole) })
	t.Run("views", func(t *testing.T) {
		guests.StartServer(t, private)
		if os.Getenv("OUTSIGHT_SLOW") == "" && os.Getenv("OUTSIGHT_VIEWS") == "" {
			t.Setenv("OUTSIGHT_VIEWS", "cmdline,cpus,files,info,iomem,maps,modules,mounts,sockets,stacks,threads,uptime")
		}
		compareViews(t, private)
	})
}

// judgeDomain judges a domain, a clean one and one with a hidden process. The kernel's file that
// the daemon boots it with is what its text is compared with.
func judgeDomain(t *testing.T, g *lab.Guest) {
	const verified = "kernel text verified against Debian's signature"
	labtest.Output(t, g, "sleep 100000 </dev/null >/dev/null 2>&1 & echo ok")
	clean := func() {
		t.Helper()
		a := run(t, nil, "check", targetOf(g))
		if a.status != 0 || a.stdout != "" || !strings.Contains(a.stderr, verified) || !strings.Contains(a.stderr, "nothing found by") {
			t.Errorf("of a clean domain: status %d: %s%s", a.status, a.stdout, a.stderr)
		}
		t.Logf("took %v: %s", a.took, a.stderr)
	}
	clean()
	show := hideSleeper(t, g, targetOf(g))
	if a := run(t, nil, "check", targetOf(g)); a.status != 1 || !strings.Contains(a.stdout, "(sleep) is missing from the task list") || !strings.Contains(a.stderr, verified) {
		t.Errorf("with a hidden process: status %d: %s%s", a.status, a.stdout, a.stderr)
	}
	show()
	clean()
	labtest.Output(t, g, "killall sleep; echo ok")
}

// askDomain asks a domain's own programs, through the agent that the daemon passes on.
func askDomain(t *testing.T, g *lab.Guest) {
	ask := func() answer { return run(t, nil, "check", targetOf(g), "--only", "contradicted", "--ask") }
	if a := ask(); a.status == 0 || !strings.Contains(a.stderr, "see whether qemu-guest-agent is installed") {
		t.Errorf("before the agent runs: status %d: %s", a.status, a.stderr)
	}
	labtest.StartGuestAgent(t, g)
	a := ask()
	for end := time.Now().Add(time.Minute); a.status != 0 && time.Now().Before(end); a = ask() {
		time.Sleep(time.Second)
	}
	if a.status != 0 || !strings.Contains(a.stderr, "nothing found by 1 check\n") {
		t.Errorf("status %d: %s%s", a.status, a.stdout, a.stderr)
	}
}

// TestGuestLibvirtSession does so for the daemon of a user's session.
func TestGuestLibvirtSession(t *testing.T) {
	l := labtest.StartLibvirtSession(t)
	t.Setenv("LIBVIRT_DEFAULT_URI", l.URI)
	g := upDomain(t, l, labtest.Domain{
		Options: lab.Options{Name: "web-1", Memory: gib / 4, Private: true, Files: labtest.GuestAgent(t), Modules: []string{labtest.AgentModule}},
		Devices: "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>",
	})
	checkDomainListed(t, l, g, vm.SourcePrivate)
	judgeDomain(t, g)
	askDomain(t, g)
	if a := run(t, nil, "ps", "libvirt:web-1", "--pause"); a.status != 0 || a.stderr != "" || !strings.Contains(a.stdout, "kthreadd") {
		t.Errorf("status %d: %s", a.status, a.stderr)
	}
	if state := l.Virsh(t, "domstate", g.Name); state != "running" {
		t.Errorf("after a pause it is %s", state)
	}
	if os.Geteuid() != 0 {
		return
	}
	// By the user whose session it is: the socket is where the session has it.
	t.Setenv("LIBVIRT_DEFAULT_URI", "")
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(l.Dir, "run"))
	own := run(t, &syscall.Credential{Uid: uint32(l.UID), Gid: uint32(l.UID)}, "vms", "-o", "json", "--where", fmt.Sprintf("pid == %d", g.PID()), "--columns", "state,source,missing")
	if own.status != 0 || own.stdout != `{"state":"running","source":"private","missing":null}`+"\n" {
		t.Errorf("status %d: %s%s", own.status, own.stdout, own.stderr)
	}
	// Any other user can neither ask nor read, and is told both.
	other := run(t, &syscall.Credential{Uid: uint32(l.UID) - 7, Gid: uint32(l.UID) - 7}, "ps", "libvirt:web-1")
	refused(t, other, "may not read its memory", "run as root")
}

// checkDomainListed: outsight vms shows a domain as virsh does.
func checkDomainListed(t *testing.T, l *labtest.Libvirt, g *lab.Guest, source vm.Source) {
	t.Helper()
	a := run(t, nil, "vms", "-o", "json", "--where", fmt.Sprintf("pid == %d", g.PID()))
	var row map[string]any
	if err := json.Unmarshal([]byte(a.stdout), &row); err != nil || a.status != 0 {
		t.Fatalf("status %d: %v: %s", a.status, err, a.stderr)
	}
	want := map[string]any{
		"pid": float64(g.PID()), "name": g.Name, "state": "running", "source": string(source), "missing": nil, "accel": "tcg",
		"uuid": l.Virsh(t, "domuuid", g.Name), "manager": "libvirt", "ram": float64(g.Memory), "cpus": float64(g.SMP), "uid": float64(l.UID),
	}
	for column, value := range want {
		if row[column] != value {
			t.Errorf("%s: %s is %v, not %v", g.Name, column, row[column], value)
		}
	}
}

// defaultPlaces: in the daemon's own mount namespace its socket is where libvirt has it,
// and nobody has to name it.
func defaultPlaces(t *testing.T, g *lab.Guest) {
	c := exec.Command("nsenter", "--mount=/proc/"+strconv.Itoa(g.PID())+"/ns/mnt", command(t), "vms", "-o", "csv", "--no-header", "--where", fmt.Sprintf("pid == %d", g.PID()), "--columns", "name,state")
	c.Env = append(os.Environ(), "LIBVIRT_DEFAULT_URI=")
	if out, err := c.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != g.Name+",running" {
		t.Errorf("%v: %s", err, out)
	}
}

// compareDomain compares processes, by every name that the domain has.
func compareDomain(t *testing.T, l *labtest.Libvirt, g *lab.Guest, source vm.Source) {
	w := witness{t: t, g: g, few: true}
	targets := []string{"libvirt:" + g.Name, "libvirt:" + l.Virsh(t, "domuuid", g.Name), g.Name, fmt.Sprintf("pid:%d", g.PID())}
	if g.Memory > gib { // in which nothing else is different
		targets = targets[:1]
	}
	for _, target := range targets {
		w.agree(target, func() seen { return look(t, target, vm.Options{}, source, false) })
	}
	w.compare("command", func() (int, verdict) {
		rows := printed(t, targetOf(g))
		return len(rows), func(before, after account) []string { return printedDifferences(rows, before, after) }
	})
	row := rowsOf(t, "info", targetOf(g))[0]
	ranges := 1
	if g.Memory > 2*gib {
		ranges = 2
	}
	if row["map_from"] != "the monitor" || row["run_state"] != "running" || len(strings.Fields(fmt.Sprint(row["memory_map"]))) != ranges {
		t.Errorf("map_from %v, run_state %v, memory_map %v", row["map_from"], row["run_state"], row["memory_map"])
	}
	a := run(t, nil, "top", targetOf(g), "--batch", "-n", "2", "--interval", "300ms")
	if a.status != 0 || strings.Count(a.stdout, "kthreadd") == 0 {
		t.Errorf("top: status %d: %s%.300s", a.status, a.stderr, a.stdout)
	}
}

// pauseDomain: a dump of a paused domain is what the guest was, and the domain is left as
// it was.
func pauseDomain(t *testing.T, l *labtest.Libvirt, g *lab.Guest) {
	w := witness{t: t, g: g, few: true}
	w.agree("dump", func() seen {
		path := filepath.Join(t.TempDir(), "memory.elf")
		a := run(t, nil, "dump", targetOf(g), "-o", path, "--pause", "--format", "elf")
		if a.status != 0 {
			t.Fatalf("status %d: %s", a.status, a.stderr)
		}
		defer os.Remove(path)
		if state := l.Virsh(t, "domstate", "--reason", g.Name); state != "running (unpaused)" {
			t.Errorf("after a pause it is %s", state)
		}
		return look(t, path, vm.Options{}, vm.SourceDump, false)
	})
	// One that its operator has suspended stays so.
	l.Virsh(t, "suspend", g.Name)
	a := run(t, nil, "ps", targetOf(g), "--pause")
	if state := l.Virsh(t, "domstate", g.Name); state != "paused" || a.status != 0 {
		t.Errorf("status %d (%s), and it is %s", a.status, a.stderr, state)
	}
	row := rowsOf(t, "vms", "--where", fmt.Sprintf("pid == %d", g.PID()))[0]
	if row["state"] != "paused" || row["missing"] != nil {
		t.Errorf("listed as %v, missing %v", row["state"], row["missing"])
	}
	l.Virsh(t, "resume", g.Name)
}

// killPauser kills commands that have paused a domain, at any moment: it runs on.
func killPauser(t *testing.T, l *labtest.Libvirt, g *lab.Guest) {
	m, err := local.Open(t.Context(), targetOf(g))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	events, err := m.Control.Events.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cut := 0 // commands that were killed after they had paused it
	for try := range 30 {
		c := exec.Command(command(t), "dump", targetOf(g), "-o", filepath.Join(t.TempDir(), "memory"), "--pause")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(try) * 15 * time.Millisecond)
		_ = c.Process.Kill()
		_ = c.Wait()
		status, _ := c.ProcessState.Sys().(syscall.WaitStatus)
		for end := time.Now().Add(20 * time.Second); l.Virsh(t, "domstate", g.Name) != "running"; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("it stays paused after the command was killed")
			}
		}
		for stopped := false; !stopped; {
			select {
			case e := <-events:
				if stopped = e.Kind == vm.EventStop; stopped && status.Signaled() {
					cut++
				}
			case <-time.After(20 * time.Millisecond):
				stopped = true // not yet
			}
		}
	}
	t.Logf("%d commands were killed after they had paused it", cut)
	if cut == 0 {
		t.Error("no command was killed after it had paused the domain")
	}
}

// domainEvents: what happens to a domain arrives, whoever did it.
func domainEvents(t *testing.T, l *labtest.Libvirt, g *lab.Guest) {
	m, err := local.Open(t.Context(), targetOf(g))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	events, err := m.Control.Events.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	l.Virsh(t, "suspend", g.Name)
	l.Virsh(t, "resume", g.Name)
	for _, want := range []vm.EventKind{vm.EventStop, vm.EventResume} {
		if e := <-events; e.Kind != want || time.Since(e.Time).Abs() > time.Minute {
			t.Errorf("%+v, not %s", e, want)
		}
	}
	cancel()
	for range events { // it is closed
	}
	if regs, err := m.Control.Registers.Registers(t.Context()); err != nil || len(regs) != g.SMP {
		t.Errorf("%d CPUs: %v", len(regs), err)
	}
	if s, err := m.Control.Stater.State(t.Context()); s != vm.StateRunning || err != nil {
		t.Errorf("%q: %v", s, err)
	}
}

// plugRAM: RAM that is plugged in is in the map of whoever opens the domain afterwards.
func plugRAM(t *testing.T, l *labtest.Libvirt, g *lab.Guest) {
	path := filepath.Join(t.TempDir(), "dimm.xml")
	if err := os.WriteFile(path, []byte("<memory model='dimm'><target><size unit='MiB'>256</size><node>0</node></target></memory>"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.Virsh(t, "attach-device", g.Name, path)
	row := rowsOf(t, "info", targetOf(g))[0]
	if row["memory"] != json.Number(strconv.FormatUint(g.Memory+gib/4, 10)) || row["map_from"] != "the monitor" {
		t.Errorf("memory %v, map %v from %v", row["memory"], row["memory_map"], row["map_from"])
	}
	w := witness{t: t, g: g, few: true}
	w.agree("with more RAM", func() seen { return look(t, targetOf(g), vm.Options{}, vm.SourceShared, false) })
}

// withoutDaemon: a daemon that hangs, or is gone, costs what goes through it and nothing
// else, and one that is back is asked again.
func withoutDaemon(t *testing.T, l *labtest.Libvirt, g *lab.Guest) {
	m, err := local.Open(t.Context(), targetOf(g))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	read := func(why string) {
		t.Helper()
		command(t) // or building it would count
		began := time.Now()
		row := rowsOf(t, "vms", "--where", fmt.Sprintf("pid == %d", g.PID()))[0]
		if text := fmt.Sprint(row["missing"]); row["state"] != nil || !strings.Contains(text, why) || row["source"] != "private" {
			t.Errorf("listed as %v, missing %v", row["state"], text)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the list took %v", took)
		}
		a := run(t, nil, "ps", targetOf(g))
		if a.status != 0 || !strings.Contains(a.stderr, why) || !strings.Contains(a.stderr, "guess") || !strings.Contains(a.stdout, "kthreadd") {
			t.Errorf("status %d: %s", a.status, a.stderr)
		}
		a = run(t, nil, "ps", targetOf(g), "--pause")
		if a.status != 3 || a.stdout != "" || !strings.Contains(a.stderr, "outsight: pause the domain: ") || strings.Count(a.stderr, why) != 2 {
			t.Errorf("status %d: %s", a.status, a.stderr)
		}
	}
	resume := l.Pause(t)
	read("does not answer")
	resume()
	l.Stop(t)
	read("neither libvirtd nor virtqemud is running")
	if _, err := m.Control.Stater.State(t.Context()); !errors.Is(err, vm.ErrGone) {
		t.Errorf("a machine that was open: %v", err)
	}
	l.Start(t)
	if s, err := m.Control.Stater.State(t.Context()); s != vm.StateRunning || err != nil {
		t.Errorf("with the daemon back: %q, %v", s, err)
	}
	checkDomainListed(t, l, g, vm.SourcePrivate)
}
