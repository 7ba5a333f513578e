package planted_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/plant"
	"github.com/outsight-vmi/outsight/trace/planted"
)

// plantInside has a guest load the programs itself.
func plantInside(t *testing.T, g *lab.Guest, gu *guest.Guest, o planted.Options) {
	t.Helper()
	l, err := gu.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	load, err := planted.Compile(t.Context(), l, o)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := l.Linux.Types()
	if err != nil {
		t.Fatal(err)
	}
	type program struct {
		plant.Program
		Type uint32
	}
	var text struct {
		Ring     plant.Ring
		Programs []program
		Tables   int
	}
	text.Ring, text.Tables = load.Ring, load.Tables
	functions := map[string]btf.TypeID{}
	for _, p := range load.Programs {
		functions[p.Function] = 0
	}
	spec.Functions(functions)
	t.Log(load.Note)
	for _, p := range load.Programs {
		id := functions[p.Function]
		spec.ByName("btf_trace_"+p.Tracepoint, func(i btf.TypeID, _ btf.Type) bool { id = i; return false }, btf.KindTypedef)
		text.Programs = append(text.Programs, program{p, uint32(id)})
	}
	b, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	status, err := g.Exec(t.Context(), lab.Command{
		Shell: `cat >/tmp/load; VERBOSE=1 /planter </tmp/load >/tmp/planted 2>&1 & until grep -q 'READY\|FAILED\|panic' /tmp/planted; do sleep 0.2; done; cat /tmp/planted`,
		Stdin: b, Stdout: &out, Stderr: &out,
	})
	if err != nil || status != 0 || !strings.Contains(out.String(), "READY") {
		t.Fatalf("status %d, %v: %s", status, err, out.String())
	}
	t.Log(out.String())
}
