package groundtruth

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// innerMemory is the RAM of a guest in the KVM host, in MiB.
const innerMemory = 256

// variant is a way to run a monitor.
type variant struct {
	name   string
	args   []string // with API for the path of the API's socket, and DIR for a folder
	api    bool
	source vm.Source
	views  bool // compare views too
}

const innerArgs = "console=ttyS0 quiet loglevel=0 reboot=k panic=-1 outsight.name=inner"

// variants are those of each monitor. The program is always that in the root folder.
var variants = map[string][]variant{
	"firecracker": {
		{"with an API", []string{"--id", "inner", "--api-sock", "API", "--config-file", "DIR/vm.json"}, true, vm.SourcePrivate, true},
		{"without an API", []string{"--id", "inner", "--no-api", "--config-file", "DIR/vm.json"}, false, vm.SourcePrivate, false},
	},
	"cloud-hypervisor": {
		{"shared", []string{"--api-socket", "API", "--memory", fmt.Sprintf("size=%dM,shared=on", innerMemory)}, true, vm.SourceShared, true},
		{"private, without an API", []string{"--memory", fmt.Sprintf("size=%dM", innerMemory)}, false, vm.SourcePrivate, false},
	},
}

// TestInsideMicroVM is what TestGuestMicroVM runs inside its KVM host.
func TestInsideMicroVM(t *testing.T) {
	vmm := os.Getenv(microVM)
	if vmm == "" {
		t.Skip("runs inside the guest of TestGuestMicroVM")
	}
	for _, v := range variants[vmm] {
		t.Run(v.name, func(t *testing.T) {
			g := startMicroVM(t, vmm, v)
			target := targetOf(g)
			checkListed(t, g, vmm, v)
			all := os.Getenv("OUTSIGHT_KVM") == "all" && v.views
			if all { // both are too much for one small guest
				guests.StartServer(t, g)
			} else {
				guests.StartCrowd(t, g, "-count", "1")
			}
			w := witness{t: t, g: g, few: true}
			w.agree("live", func() seen { return look(t, target, vm.Options{}, v.source, false) })
			if v.source == vm.SourceShared {
				w.agree("copied", func() seen { return look(t, target, vm.Options{NoMap: true}, vm.SourcePrivate, false) })
			}
			checkPause(t, g, v)
			w.before = nil
			w.agree("after a pause", func() seen { return look(t, target, vm.Options{NoQMP: true}, v.source, false) })
			if v.views {
				if !all && os.Getenv("OUTSIGHT_VIEWS") == "" {
					t.Setenv("OUTSIGHT_VIEWS", "cmdline,cpus,info,iomem,modules,mounts,uptime")
				}
				compareViews(t, g)
			}
		})
	}
}

// startMicroVM starts a guest, and waits until its agent answers.
func startMicroVM(t *testing.T, vmm string, v variant) *lab.Guest {
	dir := t.TempDir()
	config := map[string]any{
		"boot-source":    map[string]any{"kernel_image_path": "/vmlinuz", "initrd_path": "/initrd", "boot_args": innerArgs},
		"drives":         []any{},
		"machine-config": map[string]any{"vcpu_count": 1, "mem_size_mib": innerMemory},
	}
	b, err := json.Marshal(config)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "vm.json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, a := range v.args {
		args = append(args, strings.NewReplacer("API", dir+"/api", "DIR", dir).Replace(a))
	}
	if vmm == "cloud-hypervisor" {
		args = append(args, "--kernel", "/vmlinuz", "--initramfs", "/initrd", "--cmdline", innerArgs, "--cpus", "boot=1", "--serial", "tty", "--console", "off")
	}
	c := exec.Command("/"+vmm, args...)
	g := serve(t, c, dir)
	// What is sent before the agent is there would only fill the line.
	for end := time.Now().Add(10 * time.Minute); ; time.Sleep(time.Second) {
		text, err := os.ReadFile(g.Console())
		if strings.Contains(string(text), "OLAB boot") {
			return g
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("the guest does not boot: %v: %q", err, text[max(0, len(text)-3000):])
		}
	}
}

// serve starts a monitor whose guest has its agent on the monitor's standard input and
// output, and makes of it what the lab calls a guest.
func serve(t *testing.T, c *exec.Cmd, dir string) *lab.Guest {
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "console.log"))
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = log
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "agent"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var host net.Conn // who talks to the agent now
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			host = conn
			mu.Unlock()
			_, _ = io.Copy(in, conn)
			mu.Lock()
			host = nil
			mu.Unlock()
			conn.Close()
		}
	})
	done.Go(func() {
		b := make([]byte, 64<<10)
		for {
			n, err := out.Read(b)
			_, _ = log.Write(b[:n])
			mu.Lock()
			if host != nil {
				_, _ = host.Write(b[:n])
			}
			mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		_ = c.Process.Kill()
		l.Close()
		done.Wait()
		_ = c.Wait() // it was killed
		lock.Close()
		log.Close()
	})
	return &lab.Guest{Name: "inner", Dir: dir, Userland: lab.Busybox, Memory: innerMemory << 20, SMP: 1, Accel: lab.KVM, Private: true, Process: c.Process.Pid}
}

// checkListed: outsight vms shows the machine as it is.
func checkListed(t *testing.T, g *lab.Guest, vmm string, v variant) {
	t.Helper()
	infos, err := local.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if i.PID != g.PID() {
			continue
		}
		state, name := vm.StateUnknown, ""
		if v.api {
			state = vm.StateRunning
		}
		if vmm == "firecracker" {
			name = "inner"
		}
		if i.VMM != vmm || i.Name != name || i.CPUs != 1 || i.RAM != innerMemory<<20 || i.Source != v.source || i.State != state || (i.Missing == "") != v.api {
			t.Errorf("listed as %+v", i)
		}
		return
	}
	t.Errorf("process %d is not listed in %+v", g.PID(), infos)
}

// checkPause: a paused guest stands still, and goes on afterwards.
func checkPause(t *testing.T, g *lab.Guest, v variant) {
	t.Helper()
	m, err := local.Open(t.Context(), targetOf(g))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	p := m.Control.Pauser
	if p == nil {
		t.Fatal("it cannot be paused")
	}
	resume, err := p.Pause(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The guest's clock, read twice.
	clock := func() string {
		a := run(t, nil, "uptime", targetOf(g), "-o", "json")
		if a.status != 0 {
			t.Errorf("uptime: status %d: %s", a.status, a.stderr)
		}
		return a.stdout
	}
	first := clock()
	time.Sleep(3 * time.Second)
	if second := clock(); first != second {
		t.Errorf("a paused guest went on: %s, then %s", first, second)
	}
	if stopped, err := proc.Stopped(g.PID()); stopped == v.api || err != nil {
		t.Errorf("its process is stopped: %v (%v), with an API: %v", stopped, err, v.api)
	}
	if v.api {
		if state, err := m.Control.Stater.State(t.Context()); state != vm.StatePaused {
			t.Errorf("paused, its state is %q (%v)", state, err)
		}
	}
	if err := resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stopped, err := proc.Stopped(g.PID()); stopped || err != nil {
		t.Errorf("after resuming its process is stopped: %v (%v)", stopped, err)
	}
	if _, err := g.Output(t.Context(), "true"); err != nil { // it has something to do, so its clock goes on
		t.Errorf("after resuming: %v", err)
	}
	if third := clock(); third == first {
		t.Errorf("it does not go on: %s", third)
	}
}
