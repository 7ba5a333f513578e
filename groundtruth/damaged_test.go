package groundtruth

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/device"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/vm/local"
)

// limeRaw writes the guest's ranges of System RAM one after the other, as LiME does with
// format=raw, of which there is no module for the guest's kernel here.
func (f *formats) limeRaw(t *testing.T) {
	t.Helper()
	whole, err := os.ReadFile(f.at("whole.raw"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := local.Open(t.Context(), "qemu:"+f.guest.QMP())
	if err != nil {
		t.Fatal(err)
	}
	l, done := attach(t, m, guest.Options{Target: "qemu:" + f.guest.QMP()})
	defer done()
	var out []byte
	unaligned := false
	for r, err := range device.Resources(t.Context(), l.Linux, device.MemoryResources) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Name == "System RAM" {
			unaligned = unaligned || len(out)%phys.PageSize != 0
			out = append(out, whole[r.Start:r.End+1]...)
		}
	}
	if !unaligned {
		t.Fatal("no range ends off a page's boundary: this tests nothing")
	}
	if err := os.WriteFile(f.at("lime.raw"), out, 0o600); err != nil {
		t.Fatal(err)
	}
	// What is not System RAM, such as the first page and the firmware's, is not in it.
	f.check(t, "lime.raw", "pages", "strings")
}

// cutOff cuts a dump at 98 %: it is read as far as it goes, and called cut off.
func (f *formats) cutOff(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(f.at(name))
	if err != nil {
		t.Fatal(err)
	}
	cut := f.at("cut." + name)
	if err := os.WriteFile(cut, b[:len(b)/100*98], 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := local.Open(t.Context(), cut)
	if err != nil {
		t.Fatal(err)
	}
	if notes := strings.Join(m.Notes, "; "); phys.Lost(m.Memory) == 0 || !strings.Contains(notes, "was cut off") {
		t.Errorf("%d bytes lost, notes %q", phys.Lost(m.Memory), notes)
	}
	m.Close()
	if ps := bytes.Count(views(t, cut)["ps"], []byte("\n")); ps < 10 {
		t.Errorf("%d processes in what is left", ps)
	}
}
