package groundtruth

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/vm/local"
)

// TestGuestSignatures compares the signatures of system calls with what the guest's own tracing says of them.
func TestGuestSignatures(t *testing.T) {
	labtest.NeedQEMU(t)
	for _, name := range lab.KernelNames() {
		if name != lab.DefaultKernel && os.Getenv("OUTSIGHT_SLOW") == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			g := labtest.Up(t, lab.Options{Kernel: name, Memory: gib / 4})
			want := toldSignatures(t, g)
			machine, err := local.Open(t.Context(), "qemu:"+g.QMP())
			if err != nil {
				t.Fatal(err)
			}
			defer machine.Close()
			s, err := linux.Open(t.Context(), machine.Memory, kernel.Options{})
			if err != nil {
				t.Fatal(err)
			}
			all, err := hooks.Signatures(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			table := syscall.Table(syscall.ABI64)
			for _, m := range all {
				if m == nil {
					continue
				}
				got[m.Name] = signatureText(m.Types, m.Args)
				if m.Number >= len(table) || table[m.Number] == nil {
					t.Logf("%d %s is not in the table here", m.Number, m.Name)
				} else if c := table[m.Number]; c.Described() && c.Stack == nil && len(c.Args) > len(m.Args) {
					t.Errorf("%s: the table has %d arguments, and the kernel %d: %q", m.Name, len(c.Args), len(m.Args), m.Args)
				}
			}
			for name, w := range want {
				if got[name] != w {
					t.Errorf("%s: %q, and the guest says %q", name, got[name], w)
				}
			}
			if len(want) < 300 || len(got) < len(want) {
				t.Errorf("%d signatures, and the guest says %d", len(got), len(want))
			}
			t.Logf("%d signatures, %d of them told by the guest", len(got), len(want))
		})
	}
}

var formatField = regexp.MustCompile(`field:(.*?)(\w+);\s*offset:(\d+);`)

// toldSignatures are signatures by name, from the formats of the events sys_enter_NAME.
func toldSignatures(t *testing.T, g *lab.Guest) map[string]string {
	t.Helper()
	out := labtest.Output(t, g, `[ -e /sys/kernel/tracing/events ] || mount -t tracefs t /sys/kernel/tracing
cd /sys/kernel/tracing/events/syscalls && for d in sys_enter_*; do echo "= $d"; cat $d/format; done`)
	all := map[string]string{}
	for part := range strings.SplitSeq(out, "= sys_enter_") {
		name, format, ok := strings.Cut(part, "\n")
		if !ok || name == "" {
			continue
		}
		var types, args []string
		for _, m := range formatField.FindAllStringSubmatch(format, -1) {
			if at, _ := strconv.Atoi(m[3]); at < 16 || strings.HasPrefix(m[2], "__") { // what every event has; copies of what arguments lead to (since 6.18)
				continue
			}
			types, args = append(types, strings.TrimSpace(m[1])), append(args, m[2])
		}
		all[name] = signatureText(types, args)
	}
	return all
}

func signatureText(types, args []string) string {
	all := make([]string, len(args))
	for i := range args {
		all[i] = fmt.Sprintf("%s %s", types[i], args[i])
	}
	return strings.Join(all, ", ")
}
