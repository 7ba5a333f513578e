package groundtruth

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

//go:embed testdata/selinux/policy.conf
var selinuxPolicy string

// TestGuestSELinux compares the labels of processes on kernels with SELinux, before and
// after a policy is loaded, and after enough contexts that their table has a second level.
func TestGuestSELinux(t *testing.T) {
	labtest.NeedQEMU(t)
	labtest.NeedTool(t, "checkpolicy")
	kernels := []string{"6.12"}
	if os.Getenv("OUTSIGHT_SLOW") != "" {
		kernels = lab.KernelNames()
	}
	policy := compilePolicy(t)
	for _, kernel := range kernels {
		t.Run(kernel, func(t *testing.T) { selinuxLabels(t, kernel, policy) })
	}
}

func selinuxLabels(t *testing.T, kernel, policy string) {
	g := labtest.Up(t, lab.Options{Kernel: kernel, Memory: gib / 2, Append: "security=selinux selinux=1 enforcing=0", Files: map[string]string{
		"/truth": guests.Program(t, "truth"), "/policy": policy,
	}})
	c := viewCases["creds"]
	labels := func() map[string]int {
		count := map[string]int{}
		for _, row := range c.inside(t, g) {
			count[fmt.Sprint(row["label"])]++
		}
		return count
	}
	if got := labels(); len(got) != 1 || got["kernel"] < 20 {
		t.Errorf("the guest says before a policy is loaded: %v", got)
	}
	c.compare(t, g)
	labtest.Output(t, g, `mkdir -p /run/selinux && mount -t selinuxfs selinuxfs /run/selinux && cat /policy >/run/selinux/load`)
	want := []string{
		"base_u:base_r:other_t:s0",
		"base_u:base_r:other_t:s0:c0",
		"base_u:base_r:other_t:s0-s1",
		"base_u:base_r:base_t:s0:c1,c2",
		"base_u:base_r:base_t:s0:c1.c3,c5,c7.c9",
		"base_u:base_r:other_t:s0:c199-s1:c0.c199",
		"base_u:base_r:base_t:s0:c0.c63-s1:c0.c64,c127.c129,c190",
	}
	var script strings.Builder
	for _, label := range want {
		fmt.Fprintf(&script, "sh -c 'printf %s >/proc/self/attr/current && exec sleep 1000' &\n", label)
	}
	script.WriteString("sleep 1\n")
	// A page has room for some 39 contexts: the rest makes the table deeper.
	script.WriteString("i=0; while [ $i -lt 150 ]; do printf base_u:base_r:base_t:s1:c$i >/run/selinux/context; i=$((i+1)); done\n")
	script.WriteString("sh -c 'printf base_u:base_r:other_t:s1:c150,c151 >/proc/self/attr/current && exec sleep 1000' &\nsleep 1\n")
	labtest.Output(t, g, script.String())
	got := labels()
	for _, label := range append(want, "base_u:base_r:base_t:s0", "base_u:base_r:other_t:s1:c150,c151") {
		if got[label] == 0 {
			t.Errorf("the guest has no process labelled %s: %v", label, got)
		}
	}
	c.compare(t, g)
}

// compilePolicy makes the binary policy that kernels load.
func compilePolicy(t *testing.T) string {
	t.Helper()
	var categories strings.Builder
	for i := range 200 {
		fmt.Fprintf(&categories, "category c%d;\n", i)
	}
	dir := t.TempDir()
	source, policy := filepath.Join(dir, "policy.conf"), filepath.Join(dir, "policy")
	if err := os.WriteFile(source, []byte(strings.Replace(selinuxPolicy, "CATEGORIES\n", categories.String(), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	// What it does not name is allowed; 5.10 reads version 31 and others below 34.
	if out, err := exec.Command("checkpolicy", "-M", "-U", "allow", "-c", "31", "-o", policy, source).CombinedOutput(); err != nil {
		t.Fatalf("checkpolicy: %v: %s", err, out)
	}
	return policy
}
