// Package guests boots guests with something to see in them, for tests: a crowd of processes, or a server
// that is busy in every way. The folders beneath it are the programs that run inside.
//
//	func TestGuestSomething(t *testing.T) {
//		g := guests.UpCrowd(t, lab.Options{Kernel: "6.12"})
//		out := labtest.Output(t, g, "/truth")
//		…
//	}
package guests

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// Program builds one of the programs beneath this package ("crowd", "truth") for use in a guest.
func Program(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/outsight-vmi/outsight/groundtruth/guests/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return path
}

// UpCrowd boots a guest full of processes of every kind (see groundtruth/guests/crowd), and with
// /truth in it (see groundtruth/guests/truth).
func UpCrowd(t testing.TB, o lab.Options) *lab.Guest {
	t.Helper()
	labtest.NeedQEMU(t)
	o.Files = maps.Clone(o.Files)
	if o.Files == nil {
		o.Files = map[string]string{}
	}
	o.Files["/crowd"], o.Files["/truth"] = Program(t, "crowd"), Program(t, "truth")
	g := labtest.Up(t, o)
	StartCrowd(t, g)
	return g
}

// StartCrowd starts the crowd in a guest that has it, with further arguments for it, and
// waits until all are there.
func StartCrowd(t testing.TB, g *lab.Guest, args ...string) {
	t.Helper()
	start := "/crowd " + strings.Join(args, " ") + ` >/run/crowd.log 2>&1 &
until grep -q READY /run/crowd.log; do
	kill -0 $! || { cat /run/crowd.log >&2; exit 1; }
	sleep 0.2
done`
	if _, err := g.Output(t.Context(), start); err != nil {
		t.Fatal(errors.Join(errors.New("the crowd did not come together"), err))
	}
}
