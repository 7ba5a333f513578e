package groundtruth

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// microVM is the variable that names, in the KVM host, the monitor under test.
const microVM = "OUTSIGHT_MICROVM"

// microVMs are the monitors other than QEMU, and the variables that say where they are.
// No package of Debian's has them, so where they are missing there is nothing to test.
var microVMs = map[string]string{"firecracker": "OUTSIGHT_FIRECRACKER", "cloud-hypervisor": "OUTSIGHT_CLOUD_HYPERVISOR"}

// TestGuestMicroVM is TestGuestKVM for Firecracker and Cloud Hypervisor: the real monitor
// runs in a KVM host, and this very program, in there, compares its guest with what it says.
func TestGuestMicroVM(t *testing.T) {
	labtest.NeedQEMU(t)
	for vmm, variable := range microVMs {
		t.Run(vmm, func(t *testing.T) {
			path := os.Getenv(variable)
			if path == "" {
				path, _ = exec.LookPath(vmm)
			}
			if path == "" {
				t.Skipf("%s is neither on PATH nor named by %s", vmm, variable)
			}
			files := microVMFiles(t, vmm, path)
			for range 3 {
				out, err := tryMicroVM(t, vmm, files)
				if err == nil && strings.Contains(out, "--- PASS: TestInsideMicroVM") {
					t.Log(out)
					recordInside(t, out)
					return
				}
				t.Logf("another try, after %v: %s", err, out) // see TestGuestKVM
				if strings.Contains(out, "differences") {
					break
				}
			}
			t.Error("the guest of this monitor was not seen as it is")
		})
	}
}

// microVMFiles are what a KVM host needs to run the test with the monitor at path.
func microVMFiles(t *testing.T, vmm, path string) map[string]string {
	dir := t.TempDir()
	files := map[string]string{"/outsight": command(t), "/groundtruth.test": filepath.Join(dir, "groundtruth.test"), "/" + vmm: path}
	c := exec.Command("go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", files["/groundtruth.test"], ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v: %s", err, out)
	}
	if out, err := exec.Command("ldd", path).Output(); err == nil { // else it is static
		for word := range strings.FieldsSeq(string(out)) {
			if filepath.IsAbs(word) {
				files[word] = word
			}
		}
	}
	// These machines have one serial line: the agent talks on it.
	inner := lab.Options{Name: "inner", Kernel: microVMKernel, Files: map[string]string{"/crowd": guests.Program(t, "crowd"), "/truth": guests.Program(t, "truth")}}
	for guest, file := range map[string]string{"/sbin/outsight-agent": "agent", "/etc/inittab": "inittab"} {
		b, err := os.ReadFile("../lab/rootfs/" + file)
		if err != nil {
			t.Fatal(err)
		}
		inner.Files[guest] = filepath.Join(dir, file)
		if err := os.WriteFile(inner.Files[guest], []byte(strings.ReplaceAll(string(b), "ttyS1", "ttyS0")), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getenv("OUTSIGHT_KVM") == "all" {
		inner.Files["/server"], inner.Modules = guests.Program(t, "server"), guests.ServerModules
	}
	vmlinuz, initrd, err := lab.BootFiles(t.Context(), inner, dir)
	if err != nil {
		t.Fatal(err)
	}
	files["/vmlinuz"], files["/initrd"] = vmlinuz, initrd
	return files
}

// microVMKernel is the series of the inner guests' kernel.
const microVMKernel = "6.12"

func tryMicroVM(t *testing.T, vmm string, files map[string]string) (string, error) {
	patience := 25 * time.Minute
	if os.Getenv("OUTSIGHT_KVM") == "all" {
		patience = time.Hour
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	host, err := lab.Up(ctx, lab.Options{Name: "gt-microvm-host", KVMHost: true, Kernel: "6.12", Memory: 2 * gib, Files: maps.Clone(files)})
	if err != nil {
		return "", err
	}
	defer host.Down()
	out, err := host.Output(ctx, `export HOME=/root; cd /
export `+microVM+`=`+vmm+` OUTSIGHT_WITNESS_KERNEL=`+microVMKernel+`
export OUTSIGHT_KVM=`+os.Getenv("OUTSIGHT_KVM")+` OUTSIGHT_VIEWS=`+os.Getenv("OUTSIGHT_VIEWS")+` OUTSIGHT_COMMAND=/outsight OUTSIGHT_RESULTS=/results
/groundtruth.test -test.v -test.timeout 0 -test.run '^TestInsideMicroVM$' 2>&1
status=$?; echo '`+resultsBegin+`'; cat /results; exit $status`)
	return string(out), err
}

// targetOf is how outsight is told of a guest.
func targetOf(g *lab.Guest) string {
	if os.Getenv(microVM) != "" {
		return fmt.Sprintf("pid:%d", g.PID())
	}
	if isDomain(g) {
		return "libvirt:" + g.Name
	}
	return "qemu:" + g.QMP()
}
