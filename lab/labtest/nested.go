package labtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/lab"
)

// Nested runs a test of the calling package on real KVM: a guest under TCG is a KVM host
// itself, and in it outsight's own lab boots an unmodified guest with kvm_amd, which that test
// looks at from in there. It opens the guest by [NestedGuest].
type Nested struct {
	Command  string            // the outsight command of this machine
	Run      string            // the test, a regular expression
	Guest    lab.Options       // a busybox guest
	Private  bool              // its RAM is private, else a shared memfd
	Files    map[string]string // of the KVM host, besides
	Env      []string          // of the test
	After    string            // shell commands in the KVM host, after the test
	Patience time.Duration     // for all of it
}

const nestedName = "inner"

// NestedGuest opens the guest that [Nested] booted, in a test that runs in its KVM host; any
// other run of it is skipped.
func NestedGuest(t testing.TB) *lab.Guest {
	t.Helper()
	if os.Getenv("OUTSIGHT_NESTED") == "" {
		t.Skip("runs inside a KVM host")
	}
	g, err := lab.Open(nestedName)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// Binary compiles the tests of the calling package, for the Files of a guest.
func Binary(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "package.test")
	c := exec.Command("go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", path, ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v: %s", err, out)
	}
	return path
}

// Try boots both guests and runs the test. It passed if err is nil. SVM as QEMU emulates it
// loses a guest's processor now and then, with heavy use: then either guest hangs or
// restarts, and the caller tries again.
func (n Nested) Try(t testing.TB, binary string) (out string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), n.Patience)
	defer cancel()
	o := n.Guest
	o.Name = nestedName
	vmlinuz, initrd, err := lab.BootFiles(ctx, o, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"/outsight": n.Command, "/package.test": binary, "/vmlinuz": vmlinuz, "/initrd": initrd}
	maps.Copy(files, n.Files)
	host, err := lab.Up(ctx, lab.Options{KVMHost: true, Kernel: "6.12", Memory: 2 << 30, Files: files})
	if err != nil {
		return "", err
	}
	defer func() { _ = host.Down() }() // what it leaves is removed with the lab's folder
	flags := ""
	if n.Private {
		flags = "--private"
	}
	text, err := host.Output(ctx, fmt.Sprintf(`export HOME=/root; cd /
/outsight lab up --accel kvm --kernel /vmlinuz --initrd /initrd --memory 320M --name %s %s >&2 || exit 1
/outsight vms
export OUTSIGHT_NESTED=yes OUTSIGHT_COMMAND=/outsight %s
/package.test -test.v -test.timeout 0 -test.run '%s' 2>&1
status=$?; %s
exit $status`, nestedName, flags, strings.Join(n.Env, " "), n.Run, n.After))
	out = string(text)
	if err == nil && (!strings.Contains(out, "--- PASS: ") || !strings.Contains(out, "kvm")) {
		err = errors.New("no test passed on KVM")
	}
	return out, err
}
