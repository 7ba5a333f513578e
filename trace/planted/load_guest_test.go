package planted_test

import (
	"os"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/trace/planted"
)

func up(t *testing.T, o lab.Options) (*lab.Guest, *guest.Guest) {
	t.Helper()
	labtest.NeedQEMU(t)
	if o.Files == nil {
		o.Files = map[string]string{}
	}
	o.Files["/planter"] = guests.Program(t, "planter")
	g := labtest.Up(t, o)
	gu, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { gu.Close() })
	return g, gu
}

// kernels are those that the programs are verified by.
func kernels() []string {
	if k := os.Getenv("OUTSIGHT_KERNELS"); k != "" {
		return strings.Split(k, ",")
	}
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		return []string{"6.12"}
	}
	return []string{"6.12", "7.2", "6.1"}
}

// TestGuestVerifier has kernels verify all programs.
func TestGuestVerifier(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("OUTSIGHT_SLOW is not set")
	}
	for _, k := range kernels() {
		t.Run(k, func(t *testing.T) {
			g, gu := up(t, lab.Options{Name: "verify-" + k, Kernel: k, SMP: 2})
			plantInside(t, g, gu, planted.Options{})
			labtest.Output(t, g, "kill $(pidof planter); while pidof planter; do sleep 0.1; done; true")
			plantInside(t, g, gu, planted.Options{All: true})
		})
	}
}
