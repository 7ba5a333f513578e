package hooks

import (
	"encoding/binary"
	"reflect"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// miscEntry registers an entry in the list at head.
func miscEntry(g *synth.Guest, head, flags uint64, offset uint32, magic, mask, interpreter, name string) uint64 {
	a := g.Alloc(96, 8)
	g.Put64(a+miscFlags, flags)
	g.Put64(a+miscOffset, uint64(offset)|uint64(len(magic))<<32)
	for at, text := range map[uint64]string{miscMagic: magic, miscMask: mask, miscInterpreter: interpreter, miscName: name} {
		if text != "" {
			g.Put64(a+at, g.CString(text))
		}
	}
	g.ListAdd(head, a)
	return a
}

func TestMiscFormats(t *testing.T) {
	g := synth.New(synth.Options{})
	task := g.Add(synth.Process{PID: 1, Comm: "init"})
	ns := g.Get(g.Get(task, "task_struct", "real_cred"), "cred", "user_ns")
	misc := g.Object("binfmt_misc")
	head := misc + g.Member("binfmt_misc", "entries")
	g.Put64(head, head)
	g.Put64(head+8, head)
	g.Set(misc, "binfmt_misc", "enabled", 1)
	g.Set(ns, "user_namespace", "binfmt_misc", misc)
	magic := miscEntry(g, head, 3|1<<31|1<<29, 4, "OUTS", "\xff\xff\xff\xf0", "/bin/i", "magic")
	extension := miscEntry(g, head, 0, 0, "lab", "", "/bin/e", "ext")
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	formats := func() (all []MiscFormat, errs []error) {
		for f, err := range MiscFormats(t.Context(), s) {
			if err != nil {
				errs = append(errs, err)
				continue
			}
			all = append(all, *f)
		}
		return all, errs
	}
	want := []MiscFormat{
		{
			Addr: virt.Addr(magic), Namespace: synth.InumUser, Name: "magic", Enabled: true, Active: true, Interpreter: "/bin/i",
			Flags: "PC", Magic: []byte("OUTS"), Mask: []byte("\xff\xff\xff\xf0"), Offset: 4,
		},
		{Addr: virt.Addr(extension), Namespace: synth.InumUser, Name: "ext", Interpreter: "/bin/e", Extension: "lab"},
	}
	if got, errs := formats(); len(errs) > 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, errs)
	}
	g.Set(misc, "binfmt_misc", "enabled", 0)
	if got, _ := formats(); len(got) != 2 || got[0].Active || !got[0].Enabled {
		t.Errorf("all off: %+v", got)
	}
	// An entry that cannot be is an error, and the others are there.
	g.Put64(magic+miscOffset, 0xffff_ffff<<32)
	if got, errs := formats(); len(got) != 1 || len(errs) != 1 {
		t.Errorf("a huge magic: %+v, %v", got, errs)
	}
	g.Set(ns, "user_namespace", "binfmt_misc", 0x4141_4141)
	if got, errs := formats(); len(got) != 0 || len(errs) == 0 {
		t.Errorf("no list: %+v, %v", got, errs)
	}
}

func FuzzParseMiscNode(f *testing.F) {
	f.Add(make([]byte, miscNodeSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < miscNodeSize {
			return
		}
		m := parseMiscNode(b)
		if m.Enabled != (b[miscFlags]&1 != 0) || len(m.Flags) > 7 || b[miscFlags]&2 == 0 && m.Offset != 0 {
			t.Errorf("%+v of % x", m, binary.LittleEndian.Uint64(b[miscFlags:]))
		}
	})
}
