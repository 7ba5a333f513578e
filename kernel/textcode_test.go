package kernel

import (
	"encoding/binary"
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// TestFollowCode: functions as GCC 12 compiled them for 6.12 lead to the variables that they
// read.
func TestFollowCode(t *testing.T) {
	g := synth.New(synth.Options{FunctionsOnly: true})
	k := find(t, g.Memory, Options{Warn: func(error) {}})
	field := func(structure, path string) virt.Addr {
		f, err := k.Field(structure, path)
		if err != nil {
			t.Fatal(err)
		}
		return virt.Addr(f.Offset)
	}
	at := virt.Addr(g.Text) + 0x1000
	put := func(name string, code ...byte) {
		k.defineAt(name, at)
		g.Put(uint64(at), code)
		at += 64
	}
	// relative is an instruction with the distance from its end to a variable.
	relative := func(variable virt.Addr, before int, op ...byte) []byte {
		return binary.LittleEndian.AppendUint32(op, uint32(variable-at-virt.Addr(before+len(op)+4)))
	}
	le32 := func(v virt.Addr) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(v)) }

	timekeeper := virt.Addr(g.Address("tk_core")) + field("tk_data", "timekeeper")
	put("ktime_get_real_seconds", append(append([]byte{0xf3, 0x0f, 0x1e, 0xfa}, // endbr64
		relative(timekeeper+field("timekeeper", "xtime_sec"), 4, 0x48, 0x8b, 0x05)...), 0xc3)...)
	areas := virt.Addr(g.Address("__per_cpu_offset"))
	put("nr_iowait_cpu", append(append([]byte{
		0x48, 0x63, 0xff, // movslq %edi,%rdi
		0x48, 0xc7, 0xc0, 0x40, 0x09, 0x02, 0x00, // mov $0x20940,%rax
		0x48, 0x03, 0x04, 0xfd,
	}, // add areas(,%rdi,8),%rax
		le32(areas)...), 0x8b, 0x80, 0xa8, 0x09, 0, 0, 0xc3)...)
	commandLine := virt.Addr(g.Address("saved_command_line"))
	put("cmdline_proc_show", append([]byte{0x55, 0x48, 0x89, 0xe5}, append(relative(commandLine, 4, 0x48, 0x8b, 0x35), 0xc3)...)...)
	put("syslog_print", 0x0f, 0xff) // no code
	k.followCode()
	for name, want := range map[string]virt.Addr{
		"tk_core": virt.Addr(g.Address("tk_core")), "__per_cpu_offset": areas, "saved_command_line": commandLine,
	} {
		if got, ok := k.Address(name); !ok || got != want {
			t.Errorf("%s at %#x, %v; want %#x", name, uint64(got), ok, uint64(want))
		}
	}
	if s, ok := k.Symbol("runqueues"); !ok || !s.Percpu || s.Rel != 0x20940 {
		t.Errorf("runqueues: %+v, %v", s, ok)
	}
	if a, ok := k.Address("prb"); ok {
		t.Errorf("a log at %#x, which no function leads to", uint64(a))
	}
	if _, err := k.Clock(); err != nil {
		t.Error(err)
	}
}

// TestNumberedBanner: the banner of the build's last step counts, not the first that was
// linked.
func TestNumberedBanner(t *testing.T) {
	g := synth.New(synth.Options{FunctionsOnly: true})
	whole := g.Banner()
	page := g.TextPA + 2<<20 // where synth has read-only data
	early := []byte("Linux version " + g.Release + " (x) # SMP \n\x00")
	g.Memory.Bytes(page, early...)
	g.Memory.CString(page+0x2f00, whole+"\n")
	k := find(t, g.Memory, Options{Warn: func(error) {}})
	if k.Banner != whole {
		t.Errorf("banner %q, want %q", k.Banner, whole)
	}
}
