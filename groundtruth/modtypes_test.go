package groundtruth

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	oracle "github.com/cilium/ebpf/btf"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/vm/local"
)

// TestGuestModuleTypes compares the types that the kernel keeps of its modules: their
// bytes with those in the guest's /sys/kernel/btf, and where every member of every
// structure lies with what cilium's reader makes of the same bytes.
func TestGuestModuleTypes(t *testing.T) {
	labtest.NeedQEMU(t)
	for _, guest := range viewGuests {
		t.Run(guest.name, func(t *testing.T) {
			t.Parallel()
			o := guest.o
			o.Modules = []string{"nf_tables", "nft_ct", "veth", "tun", "vsock", "cls_bpf", "overlay", "bridge", "loop"}
			g := labtest.Up(t, o)
			machine, err := local.Open(t.Context(), "qemu:"+g.QMP())
			if err != nil {
				t.Fatal(err)
			}
			defer machine.Close()
			s, err := linux.Open(t.Context(), machine.Memory, kernel.Options{})
			if err != nil {
				t.Fatal(err)
			}
			told := toldTypes(t, g)
			if len(told) == 0 {
				for m, err := range s.ModuleTypes(t.Context()) {
					if !errors.Is(err, linux.ErrNoModuleTypes) {
						t.Errorf("the guest has none; seen %v, %v", m, err)
					}
				}
				return
			}
			compareModuleTypes(t, s, told)
		})
	}
}

// toldTypes are the digests of the files in /sys/kernel/btf, by module.
func toldTypes(t *testing.T, g *lab.Guest) map[string]string {
	t.Helper()
	told := map[string]string{}
	for line := range strings.Lines(labtest.Output(t, g, "cd /sys/kernel/btf && sha256sum *")) {
		if f := strings.Fields(line); len(f) == 2 && f[1] != "vmlinux" {
			told[f[1]] = f[0]
		}
	}
	return told
}

func compareModuleTypes(t *testing.T, s *linux.System, told map[string]string) {
	base, err := s.Types()
	if err != nil {
		t.Fatal(err)
	}
	oracleBase, err := oracle.LoadSpecFromReader(bytes.NewReader(base.Raw()))
	if err != nil {
		t.Fatal(err)
	}
	modules, members := 0, 0
	for m, err := range s.ModuleTypes(t.Context()) {
		if err != nil {
			t.Error(err)
			continue
		}
		modules++
		spec, err := s.TypesOf(m)
		if err != nil {
			t.Error(err)
			continue
		}
		if sum := fmt.Sprintf("%x", sha256.Sum256(spec.Raw())); sum != told[m.Module] {
			t.Errorf("types of module %s have digest %s; the guest says %q", m.Module, sum, told[m.Module])
		}
		delete(told, m.Module)
		theirs, err := oracle.LoadSplitSpecFromReader(bytes.NewReader(spec.Raw()), oracleBase)
		if err != nil {
			t.Error(err)
			continue
		}
		members += compareMembers(t, m.Module, spec, theirs)
	}
	for name := range told {
		t.Errorf("the guest has types of module %s; not seen", name)
	}
	if members < 1000 {
		t.Errorf("only %d members compared", members)
	}
	t.Logf("%d modules, %d members equal", modules, members)
}

// compareMembers compares every direct member of every structure that is the module's
// own, by the number of its type.
func compareMembers(t *testing.T, module string, spec *btf.Spec, theirs *oracle.Spec) (n int) {
	for id := btf.TypeID(spec.Len() - spec.Own() + 1); int(id) <= spec.Len(); id++ {
		typ, err := theirs.TypeByID(oracle.TypeID(id))
		if err != nil {
			t.Errorf("%s: type %d: %v", module, id, err)
			return n
		}
		// Tags are named by what they say, for which cilium's have another place.
		if own, _ := spec.Type(id); own.Kind() != btf.KindDeclTag && own.Kind() != btf.KindTypeTag {
			if name := spec.Name(id); name != typ.TypeName() {
				t.Errorf("%s: type %d is named %q, want %q", module, id, name, typ.TypeName())
			}
		}
		var want []oracle.Member
		switch c := typ.(type) {
		case *oracle.Struct:
			want = c.Members
		case *oracle.Union:
			want = c.Members
		default:
			continue
		}
		own, _ := spec.Type(id)
		got := spec.Members(own)
		if len(got) != len(want) {
			t.Errorf("%s: type %d (%s) has %d members, want %d", module, id, typ.TypeName(), len(got), len(want))
			continue
		}
		for i, m := range want {
			n++
			size, sizeErr := oracle.Sizeof(m.Type)
			ours, ok := spec.Sizeof(got[i].Type)
			if got[i].Name != m.Name || got[i].BitOff != uint32(m.Offset) || got[i].BitSize != uint32(m.BitfieldSize) ||
				ok != (sizeErr == nil) || ok && int(ours) != size {
				t.Errorf("%s: %s.%s is %+v of %d bytes, want %+v of %d", module, typ.TypeName(), m.Name, got[i], ours, m, size)
			}
		}
	}
	return n
}
