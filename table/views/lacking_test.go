package views_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/table"
)

// TestLackingKernel: of a kernel that has little more than processes, with and without the
// names of its variables, each view has rows or says which symbol or type is missing.
func TestLackingKernel(t *testing.T) {
	empty := []string{"env", "files", "ftrace", "ftrace_functions", "history", "ttys"} // the guest has none
	for _, functionsOnly := range []bool{false, true} {
		g := synth.New(synth.Options{FunctionsOnly: functionsOnly})
		g.Add(synth.Process{PID: 1, Comm: "init", Exe: "/sbin/init", Args: []string{"init"}})
		s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range table.All() {
			if v.Name() == "info" || v.Name() == "vms" {
				continue // they read the machine and the host, not the kernel
			}
			var rep table.Report
			n := 0
			for range table.Rows(t.Context(), v, &guest.Look{Linux: s}, table.Request{}, &rep) {
				n++
			}
			if n > 0 && rep.Err == nil {
				continue // what is missing of a row is said in its cells
			}
			said := rep.First
			if rep.Err != nil {
				said = rep.Err
			}
			if said == nil {
				if !slices.Contains(empty, v.Name()) {
					t.Errorf("%s (functions only: %v): no rows, and no word why", v.Name(), functionsOnly)
				}
				continue
			}
			names := func(word string) bool { return strings.Contains(said.Error(), word) }
			// The list of modules' types is there, and empty.
			if !names("symbol") && !names("struct ") && !names("type information") && !names("types of modules") {
				t.Errorf("%s (functions only: %v): it does not say what is missing: %v", v.Name(), functionsOnly, said)
			}
			if names("struct module:") && !names("CONFIG_MODULES") {
				t.Errorf("%s: no option: %v", v.Name(), said)
			}
		}
	}
}
