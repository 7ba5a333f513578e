package groundtruth

import (
	"context"
	"encoding/json"
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
	"github.com/outsight-vmi/outsight/vm"
)

// TestGuestKVM shows on KVM what is claimed for KVM. A guest under TCG is a KVM
// host itself: in it, outsight's own lab boots an unmodified guest with kvm_amd,
// and this very test program, in there, compares that guest with what it says.
// With OUTSIGHT_KVM=all it does so for every kernel, and for every view.
func TestGuestKVM(t *testing.T) {
	labtest.NeedQEMU(t)
	dir := t.TempDir()
	tests := filepath.Join(dir, "groundtruth.test")
	c := exec.Command("go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", tests, ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v: %s", err, out)
	}
	files := map[string]string{"/outsight": command(t), "/groundtruth.test": tests}
	o := lab.Options{Name: "inner", Files: map[string]string{"/crowd": guests.Program(t, "crowd"), "/truth": guests.Program(t, "truth")}}
	inner := []innerGuest{{"6.12", vm.SourceShared}, {"7.2", vm.SourcePrivate}}
	if os.Getenv("OUTSIGHT_KVM") == "all" {
		o = guests.ServerOptions(t, lab.Options{Name: "inner"})
		inner = []innerGuest{
			{"5.10", vm.SourceShared},
			{"5.10", vm.SourcePrivate},
			{"6.1", vm.SourceShared},
			{"6.1", vm.SourcePrivate},
			{"6.12", vm.SourceShared},
			{"6.12", vm.SourcePrivate},
			{"7.2", vm.SourceShared},
			{"7.2", vm.SourcePrivate},
		}
	}
	for _, i := range inner {
		t.Run(i.kernel+"-"+string(i.ram), func(t *testing.T) {
			vmlinuz, initrd, err := lab.BootFiles(t.Context(), i.options(o), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			files := maps.Clone(files)
			files["/vmlinuz"], files["/initrd"] = vmlinuz, initrd
			for range 3 {
				out, err := i.try(t, files, o.Files["/server"] != "")
				if err == nil && strings.Contains(out, "--- PASS: TestInside") && strings.Contains(out, "kvm") {
					t.Log(out)
					recordInside(t, out)
					return
				}
				// SVM as QEMU emulates it loses a guest's processor now and then, with
				// heavy use: then either guest hangs or restarts.
				t.Logf("another try, after %v: %s", err, out)
				if strings.Contains(out, "differences") {
					recordInside(t, out)
					break
				}
			}
			t.Error("this guest on KVM was not seen as it is")
		})
	}
}

type innerGuest struct {
	kernel string
	ram    vm.Source
}

func (i innerGuest) options(o lab.Options) lab.Options {
	o.Kernel = i.kernel
	return o
}

// recordInside records what was found in the KVM host.
func recordInside(t *testing.T, out string) {
	t.Helper()
	_, results, _ := strings.Cut(out, "\n"+resultsBegin+"\n")
	for line := range strings.Lines(results) {
		var f fact
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		record(t, f)
	}
}

const resultsBegin = "== results"

// try boots a KVM host, a guest in it, and compares that one in there.
func (i innerGuest) try(t *testing.T, files map[string]string, views bool) (string, error) {
	patience := 8 * time.Minute
	if views {
		patience = 40 * time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	host, err := lab.Up(ctx, lab.Options{Name: "gt-kvm-host", KVMHost: true, Kernel: "6.12", Memory: 2 * gib, Files: files})
	if err != nil {
		return "", err
	}
	defer host.Down()
	flag := ""
	if i.ram == vm.SourcePrivate {
		flag = "--private"
	}
	out, err := host.Output(ctx, `export HOME=/root; cd /
/outsight lab up --accel kvm --kernel /vmlinuz --initrd /initrd --memory 320M --name inner `+flag+` >&2 || exit 1
/outsight vms
export OUTSIGHT_WITNESS=inner OUTSIGHT_WITNESS_RAM=`+string(i.ram)+` OUTSIGHT_WITNESS_KERNEL=`+i.kernel+`
export OUTSIGHT_KVM=`+os.Getenv("OUTSIGHT_KVM")+` OUTSIGHT_COMMAND=/outsight OUTSIGHT_RESULTS=/results
/groundtruth.test -test.v -test.timeout 0 -test.run '^TestInside$' 2>&1
status=$?; echo '`+resultsBegin+`'; cat /results; exit $status`)
	return string(out), err
}

// TestInside is what TestGuestKVM runs inside its KVM host.
func TestInside(t *testing.T) {
	name := os.Getenv("OUTSIGHT_WITNESS")
	if name == "" {
		t.Skip("runs inside the guest of TestGuestKVM")
	}
	g, err := lab.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	all := os.Getenv("OUTSIGHT_KVM") == "all"
	if all {
		guests.StartServer(t, g)
	} else {
		guests.StartCrowd(t, g, "-count", "1") // every kind once: it is slow in here
	}
	w := witness{t: t, g: g, few: true}
	w.agree("live", func() seen {
		return look(t, "qemu:"+g.QMP(), vm.Options{}, vm.Source(os.Getenv("OUTSIGHT_WITNESS_RAM")), false)
	})
	if all {
		compareViews(t, g)
	}
}
