package check_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// moduleTricks are what the modules in testdata/modules do, by MODE, and the checks that must
// find it.
var moduleTricks = []struct {
	name string
	want []string
}{
	{"a thread of a module that hides", []string{"code-pointer", "hidden-code", "hidden-module"}},
	{"a packet hook of a module that hides", []string{"code-pointer", "hidden-code", "hidden-module"}},
	{"a probe of a module that hides", []string{"code-pointer", "hidden-code", "hidden-module"}},
	{"a traced function of a module that hides", []string{"code-pointer", "hidden-code", "hidden-module"}},
	{"a system call in the table", []string{"module-hook", "system-call-function"}},
	{"a jump in a function", []string{"kernel-text", "text-branch"}},
	{"credentials written", []string{"stolen-credentials"}},
	{"credentials borrowed", []string{"stolen-credentials"}},
	{"a process off the list", []string{"hidden-process"}},
	{"what the kernel runs", []string{"helper-path"}},
	{"a probe of a module that does not hide", []string{"module-hook"}},
	{"credentials that a module had made", []string{"stolen-credentials"}},
	{"interrupt table of one processor copied", []string{"processor-state"}},
	{"write protection left off", []string{"processor-state"}},
	{"breakpoint in a debug register", []string{"processor-state"}},
	{"function of a neighbour table in a module", []string{"data-pointer"}},
	{"function of routes in a module", []string{"data-pointer"}},
	{"function of a clock in a module, where it has none", []string{"data-pointer"}},
	{"soft interrupt in a module", []string{"data-pointer"}},
	{"function of a console in a module", []string{"data-pointer"}},
	{"headers of a network device copied into a module", []string{"operations-table"}},
	{"names of a folder compared by a module", []string{"operations-table"}},
	{"pages of a file by a table in a module", []string{"operations-table"}},
	{"breakpoint that a module registered", []string{"module-hook"}},
	{"a thread of a module that is named as a worker", []string{"masquerade"}},
	{"memory of a process served by a table in a module", []string{"operations-table"}},
	{"a module's function after a signal", []string{"operations-table"}},
	{"message of rtnetlink answered by a module", []string{"operations-table"}},
	{"sockets for packets made by a table in a module", []string{"operations-table"}},
	{"misc device by a table in a module", []string{"operations-table"}},
	{"keys to the notifier of a module", []string{"module-hook"}},
	{"keys to the input handler of a module", []string{"module-hook"}},
	{"interrupts of the keyboard to a module too", []string{"module-hook"}},
	{"a function probed by fprobe", []string{"module-hook"}},
	{"programs that start shown to a module first", []string{"module-hook"}},
	{"a tracepoint of a module", []string{"module-hook"}},
	{"a program probed by a module", []string{"module-hook"}},
	{"a terminal by a copied table", []string{"operations-table"}},
}

// TestGuestZooModules loads modules that do in the guest what rootkits do.
func TestGuestZooModules(t *testing.T) {
	labtest.NeedQEMU(t)
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("OUTSIGHT_SLOW is not set: it makes a Debian with a compiler for each kernel")
	}
	labtest.NeedTool(t, "mmdebstrap")
	header, err := os.ReadFile("testdata/modules/trick.h")
	if err != nil {
		t.Fatal(err)
	}
	for _, kernel := range zooKernels() {
		t.Run(kernel, func(t *testing.T) {
			dir := t.TempDir()
			sources, files := map[string]string{"trick.h": string(header)}, map[string]string{}
			for i := range moduleTricks {
				name := fmt.Sprintf("trick%d", i+1)
				sources[name+".c"] = fmt.Sprintf("#define MODE %d\n#include \"trick.h\"\n", i+1)
				files["/"+name+".ko"] = filepath.Join(dir, name+".ko")
			}
			if err := lab.BuildModules(t.Context(), kernel, dir, sources, t.Output()); err != nil {
				t.Fatal(err)
			}
			g := labtest.Up(t, lab.Options{Kernel: kernel, Memory: 512 << 20, SMP: 2, Files: files})
			s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			silent(t, s)
			known := map[string]bool{}
			for i, k := range moduleTricks {
				t.Run(k.name, func(t *testing.T) { performModule(t, g, s, i+1, k.name, k.want, known) })
			}
		})
	}
}

// performModule loads the module of one trick: what is found that was not known before must be
// by the checks that are named.
func performModule(t *testing.T, g *lab.Guest, s *guest.Guest, mode int, name string, want []string, known map[string]bool) {
	labtest.Output(t, g, `su -s /bin/sh daemon -c "exec sleep 100000" </dev/null >/dev/null 2>&1 & echo $! >/victim; sleep 0.5; echo ok`)
	h := &check.History{} // what credentials were before
	if _, err := check.Run(t.Context(), s, check.All(), check.Remember(h)); err != nil {
		t.Fatal(err)
	}
	const load = `insmod /trick%d.ko victim=$(cat /victim) 2>&1 | grep -v 'temporarily unavailable'; sleep 0.2; echo loaded`
	if out := labtest.Output(t, g, fmt.Sprintf(load, mode)); strings.Contains(out, "not supported") {
		t.Skip("this kernel has nothing for it")
	} else if strings.TrimSpace(out) != "loaded" {
		t.Fatal(out)
	}
	r, err := check.Run(t.Context(), s, check.All(), check.Remember(h))
	if err != nil {
		t.Fatal(err)
	}
	fired := map[string]bool{}
	for _, f := range r.Findings {
		// Since 6.13 modules share large pages: the code of one that hides is found with that of
		// the one before it, as one piece that has grown.
		key := f.Key() + f.Seen
		if known[key] {
			continue
		}
		known[key], fired[f.Check.ID] = true, true
		t.Logf("%s: %s", f.Check.ID, f.Title)
	}
	recordZoo(t, name, fired, want)
	for _, id := range want {
		if !fired[id] {
			t.Errorf("%s did not find it, but %v; gaps %v", id, slices.Sorted(maps.Keys(fired)), r.Gaps)
		}
	}
}
