package lvm_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/lvm"
)

// pv is a physical volume: what LVM 2.03.16 wrote at its start, and behind it, in each 8 bytes, where they are.
type pv struct {
	number byte
	head   []byte
	size   int64
}

const (
	extent    = 1 << 20
	dataStart = 1 << 20
)

func (p *pv) Size() int64 { return p.size }

func (p *pv) ReadAt(b []byte, offset int64) (int, error) {
	n := 0
	for ; n < len(b) && offset+int64(n) < p.size; n++ {
		at := offset + int64(n)
		if at < int64(len(p.head)) {
			b[n] = p.head[at]
			continue
		}
		b[n] = byte((uint64(p.number)<<56 | uint64(at)>>3) >> (at & 7 * 8))
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// load gives the three physical volumes of the group that testdata has. Volumes that need no device mapper were made by lvcreate, and the
// others by vgcfgrestore from a text, which it checks.
func load(t testing.TB) []*pv {
	t.Helper()
	var all []*pv
	for n := range 3 {
		f, err := os.Open(fmt.Sprintf("testdata/pv%d.gz", n))
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		head, err := io.ReadAll(z)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		all = append(all, &pv{byte(n), head, 24 << 20})
	}
	return all
}

func devices(all []*pv) []disk.Device {
	var out []disk.Device
	for _, p := range all {
		out = append(out, p)
	}
	return out
}

func group(t testing.TB, all []disk.Device) *lvm.Group {
	t.Helper()
	groups, err := lvm.Groups(all)
	if err != nil || len(groups) != 1 {
		t.Fatalf("groups %v, %v", groups, err)
	}
	return groups[0]
}

func volume(t testing.TB, g *lvm.Group, name string) lvm.Volume {
	t.Helper()
	n := slices.IndexFunc(g.Volumes, func(v lvm.Volume) bool { return v.Name == name })
	if n < 0 {
		t.Fatalf("no volume %q", name)
	}
	return g.Volumes[n]
}

// ranges is what lvs -o seg_pe_ranges said of a volume: extents on physical volumes; of stripes: how many, and of what size.
type ranges struct {
	pv          byte
	first, last int64
}

func expect(all []*pv, stripe int64, runs ...ranges) []byte {
	var parts [][]byte
	for _, r := range runs {
		b := make([]byte, (r.last-r.first+1)*extent)
		if _, err := all[r.pv].ReadAt(b, dataStart+r.first*extent); err != nil {
			panic(err)
		}
		parts = append(parts, b)
	}
	if stripe == 0 {
		return bytes.Join(parts, nil)
	}
	var out []byte
	for at := int64(0); at < int64(len(parts[0])); at += stripe {
		for _, p := range parts {
			out = append(out, p[at:at+stripe]...)
		}
	}
	return out
}

func TestVolumes(t *testing.T) {
	all := load(t)
	g := group(t, devices(all))
	if g.Name != "vgx" || g.UUID != "hHivEV-a3G3-0vXq-NEnH-WnCH-0gaI-dyv2WY" || g.ExtentSize != extent || len(g.Missing)+len(g.Notes) != 0 || len(g.Volumes) != 18 {
		t.Errorf("group %+v", g)
	}
	for _, c := range []struct {
		name, kind string
		visible    bool
		want       []byte
	}{
		{"lin", "linear", true, expect(all, 0, ranges{0, 0, 2}, ranges{0, 9, 10})},
		{"span", "linear", true, expect(all, 0, ranges{1, 2, 22}, ranges{0, 5, 8})},
		{"str", "striped", true, expect(all, 64<<10, ranges{0, 3, 4}, ranges{1, 0, 1}, ranges{2, 0, 1})},
		{"r1", "raid1", true, expect(all, 0, ranges{0, 12, 13})},
		{"mir", "mirror", true, expect(all, 0, ranges{0, 14, 15})},
		{"mir_mimage_1", "linear", false, expect(all, 0, ranges{2, 5, 6})},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := volume(t, g, c.name)
			if v.Kind != c.kind || v.Visible != c.visible || v.Size != int64(len(c.want)) || v.Created.Unix() != 1796037066 || v.Host != "vm" || v.Group != "vgx" {
				t.Errorf("volume %+v", v)
			}
			d, err := v.Device()
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, d.Size()+1)
			if n, err := d.ReadAt(b, 0); n != len(c.want) || !errors.Is(err, io.EOF) || !bytes.Equal(b[:n], c.want) {
				t.Errorf("read %d bytes, %v: equal %v", n, err, bytes.Equal(b[:n], c.want))
			}
			for offset := int64(1); offset < d.Size(); offset = offset*3 + 12345 {
				b := make([]byte, min(200_000, d.Size()-offset))
				if n, err := d.ReadAt(b, offset); n != len(b) || !bytes.Equal(b, c.want[offset:][:n]) {
					t.Errorf("read at %#x: %d bytes, %v", offset, n, err)
				}
			}
		})
	}
	if tags := volume(t, g, "r1").Tags; !slices.Contains(tags, "backup") {
		t.Errorf("tags %q", tags)
	}
}

func TestRefusedByName(t *testing.T) {
	g := group(t, devices(load(t)))
	for name, want := range map[string]string{"thin": `type "thin"`, "pool": `type "thin-pool"`, "snap": "it is a snapshot", "snapshot0": `type "snapshot"`} {
		if d, err := volume(t, g, name).Device(); d != nil || !errors.Is(err, disk.ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if k := volume(t, g, "snap").Kind; k != "snapshot" {
		t.Errorf("the kind of a snapshot is %q", k)
	}
}

func TestMissing(t *testing.T) {
	all := load(t)
	g := group(t, []disk.Device{all[1], strings.NewReader("no physical volume"), all[2]})
	if len(g.Missing) != 1 || !strings.Contains(g.Missing[0], "/dev/loop0") {
		t.Errorf("missing %q", g.Missing)
	}
	for _, name := range []string{"lin", "str", "span"} {
		if _, err := volume(t, g, name).Device(); !errors.Is(err, lvm.ErrMissing) || !strings.Contains(err.Error(), "/dev/loop0") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, extents := range map[string]ranges{"r1": {2, 3, 4}, "mir": {2, 5, 6}} { // the other leg
		d, err := volume(t, g, name).Device()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := expect(all, 0, extents)
		b := make([]byte, len(want))
		if _, err := d.ReadAt(b, 0); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// state writes what dm-raid keeps of a leg at the start of its metadata volume.
func state(p *pv, firstExtent int64, events, failed, recovered uint64) *pv {
	at := dataStart + firstExtent*extent
	head := make([]byte, at+4096)
	_, _ = p.ReadAt(head, 0)
	le := binary.LittleEndian
	le.PutUint32(head[at:], 0x64526d44)
	le.PutUint64(head[at+16:], events)
	le.PutUint64(head[at+24:], failed)
	le.PutUint64(head[at+32:], recovered)
	return &pv{p.number, head, p.size}
}

func TestLegOfRAID1(t *testing.T) {
	const whole = ^uint64(0)
	all := load(t)
	first, second := ranges{0, 12, 13}, ranges{2, 3, 4}
	for _, c := range []struct {
		name string
		a, b *pv
		want ranges
		err  string
	}{
		{"both are in order", state(all[0], 11, 7, 0, whole), state(all[2], 2, 7, 0, whole), first, ""},
		{"the second was written last", state(all[0], 11, 7, 0, whole), state(all[2], 2, 9, 0, whole), second, ""},
		{"the first failed", state(all[0], 11, 7, 0, whole), state(all[2], 2, 9, 1, whole), second, ""},
		{"the first is being rebuilt", state(all[0], 11, 9, 0, 100), state(all[2], 2, 9, 0, whole), second, ""},
		{"nothing is in order", state(all[0], 11, 9, 2, 100), state(all[2], 2, 8, 0, whole), first, "was being rebuilt"},
	} {
		d, err := volume(t, group(t, []disk.Device{c.a, all[1], c.b}), "r1").Device()
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		b := make([]byte, 2*extent)
		if _, err := d.ReadAt(b, 0); err != nil || !bytes.Equal(b, expect(all, 0, c.want)) {
			t.Errorf("%s: the other leg was read (%v)", c.name, err)
		}
	}
}

func TestDamage(t *testing.T) {
	change := func(n int, at int64) []*pv {
		all := load(t)
		all[n].head[at]++
		return all
	}
	area := int64(4096)
	text := area + int64(binary.LittleEndian.Uint64(load(t)[0].head[area+40:]))
	for name, all := range map[string][]*pv{"metadata": change(1, text+100), "area": change(1, area+30)} {
		groups, err := lvm.Groups(devices(all))
		var broken *disk.CorruptError
		if !errors.As(err, &broken) || len(groups) != 1 || len(groups[0].Missing) != 0 || !strings.Contains(strings.Join(groups[0].Notes, "\n"), "is damaged") {
			t.Errorf("%s: groups %v, %v", name, groups, err)
		}
	}
	groups, err := lvm.Groups(devices(change(1, 512+60))) // the label
	if err == nil || len(groups) != 1 || len(groups[0].Missing) != 1 {
		t.Errorf("label: groups %v, %v", groups, err)
	}
	all := load(t)
	for _, p := range all {
		p.head[text+100]++
	}
	if groups, err := lvm.Groups(devices(all)); err == nil || len(groups) != 0 || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("metadata everywhere: groups %v, %v", groups, err)
	}
	twice := load(t)
	if g := group(t, devices(append(twice, twice[2]))); !strings.Contains(strings.Join(g.Notes, "\n"), "is there twice") {
		t.Errorf("a disk that is there twice: notes %q", g.Notes)
	}
	short := load(t)
	short[1].size = 10 << 20
	if _, err := volume(t, group(t, devices(short)), "span").Device(); err == nil || !strings.Contains(err.Error(), "was cut off") {
		t.Errorf("a disk that was cut off: %v", err)
	}
}

func TestOldMetadata(t *testing.T) {
	all := load(t)
	text := string(metadata(all[0].head))
	all[0].head = rewrite(all[0].head, strings.Replace(strings.Replace(text, "seqno = ", "seqno = 1", 1), "lin {", "newer {", 1))
	g := group(t, devices(all))
	if volume(t, g, "newer").Size != 5*extent || len(g.Notes) != 2 || !strings.Contains(g.Notes[0], "is older") {
		t.Errorf("notes %q", g.Notes)
	}
}

func metadata(head []byte) []byte {
	le := binary.LittleEndian
	return head[4096+le.Uint64(head[4096+40:]):][:le.Uint64(head[4096+48:])]
}

func crc(b []byte) uint32 { return ^crc32.Update(^uint32(0xf597a6cf), crc32.IEEETable, b) }

// rewrite puts other metadata on a physical volume, so that it goes on at the start of its area.
func rewrite(head []byte, text string) []byte {
	head = slices.Clone(head)
	le := binary.LittleEndian
	size := int64(le.Uint64(head[4096+32:]))
	at := size - 512*int64(max(1, min(len(text)/512, 3)))
	n := copy(head[4096+at:4096+size], text)
	copy(head[4096+512:], text[n:])
	le.PutUint64(head[4096+40:], uint64(at))
	le.PutUint64(head[4096+48:], uint64(len(text)))
	le.PutUint32(head[4096+56:], crc([]byte(text)))
	le.PutUint32(head[4096:], crc(head[4096+4:4096+512]))
	return head
}

func TestHostileMetadata(t *testing.T) {
	const open = `vg { id = "x" seqno = 1 extent_size = 2048 physical_volumes { pv0 { id = "0qu1xc-rM64-IRUb-IlRC-zPEh-I6ju-CeRihx" pe_start = 2048 } } logical_volumes { `
	lv := func(name, segment string) string {
		return name + ` { segment_count = 1 segment1 { start_extent = 0 ` + segment + ` } } `
	}
	maze := ""
	for n := range 8 { // each leg of each is the next one
		legs := strings.Repeat(fmt.Sprintf(`"v%d", 0, `, n+1), 500)
		maze += lv(fmt.Sprintf("v%d", n), `extent_count = 1 type = "mirror" mirrors = [ `+legs+` ]`)
	}
	for _, c := range []struct{ name, text, volume, want string }{
		{"nothing", "", "", "without a volume group"},
		{"no end", "vg {", "", "no name"},
		{"deep", strings.Repeat("a{", 1000), "", "more than 16"},
		{"string without end", `vg { id = "`, "", "a string without an end"},
		{"list without end", `vg { status = [ "a"`, "", "a list without an end"},
		{"huge number", `vg { seqno = 99999999999999999999`, "", "a number that is none"},
		{"twice", `vg { seqno = 1 seqno = 2 }`, "", "twice"},
		{"huge extents", `vg { extent_size = 9223372036854775807 }`, "", "extents of"},
		{"no extents", `vg { extent_size = 0 }`, "", "extents of"},
		{"negative segment", open + lv("v", `extent_count = -1`) + "} }", "", "a segment of -1"},
		{"segments that are not told", open + "v { segment_count = 9223372036854775807 } } }", "", "no segment 1"},
		{"stripes that are not told", open + lv("v", `extent_count = 1 type = "striped" stripe_count = 7 stripes = [ "pv0", 0 ]`) + "} }", "", "7 stripes"},
		{"extent beyond everything", open + lv("v", `extent_count = 1 type = "striped" stripe_count = 1 stripes = [ "pv0", 1099511627775 ]`) + "} }", "v", "not within"},
		{"huge volume", open + lv("v", `extent_count = 1099511627776 type = "striped" stripe_count = 1 stripes = [ "pv0", 0 ]`) + "} }", "v", "not within"},
		{"stripes without size", open + lv("v", `extent_count = 2 type = "striped" stripe_count = 2 stripes = [ "pv0", 0, "pv0", 1 ]`) + "} }", "v", "2 stripes of 0 bytes"},
		{"made of itself", open + lv("v", `extent_count = 1 type = "striped" stripe_count = 1 stripes = [ "v", 0 ]`) + "} }", "v", "made of itself"},
		{"legs without legs", open + lv("v", `extent_count = 1 type = "raid1"`) + "} }", "v", "no leg"},
		{"unknown type", open + lv("v", `extent_count = 1 type = "raid6"`) + "} }", "v", `"raid6"`},
		{"no such volume", open + lv("v", `extent_count = 1 type = "striped" stripe_count = 1 stripes = [ "w", 0 ]`) + "} }", "v", `no volume "w"`},
		{"maze", open + maze + "} }", "v0", "no leg"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := load(t)[0]
			p.head = rewrite(p.head, c.text+"\n\x00")
			groups, err := lvm.Groups([]disk.Device{p})
			if c.volume != "" {
				if err != nil {
					t.Fatal(err)
				}
				_, err = volume(t, groups[0], c.volume).Device()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, which should have %q", err, c.want)
			}
			if err != nil && len(err.Error()) > 100_000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestRecognise(t *testing.T) {
	if uuid, err := lvm.Recognise(load(t)[0]); err != nil || uuid != "0qu1xc-rM64-IRUb-IlRC-zPEh-I6ju-CeRihx" {
		t.Errorf("%q, %v", uuid, err)
	}
	if _, err := lvm.Recognise(strings.NewReader("something else")); !errors.Is(err, disk.ErrUnknown) {
		t.Error(err)
	}
}

func FuzzGroups(f *testing.F) {
	p := load(f)[0]
	f.Add(metadata(p.head), p.head[512:1024], p.head[4096:4096+512])
	f.Fuzz(func(t *testing.T, text, label, area []byte) {
		p := load(t)[0]
		copy(p.head[512:1024], label)
		copy(p.head[4096:4096+512], area)
		binary.LittleEndian.PutUint32(p.head[512+16:], crc(p.head[512+20:1024]))
		if len(text) < 500_000 && binary.LittleEndian.Uint64(p.head[4096+32:]) == uint64(len(p.head)-4096) {
			p.head = rewrite(p.head, string(text))
		}
		groups, _ := lvm.Groups([]disk.Device{p})
		b := make([]byte, 100)
		for _, g := range groups {
			for _, v := range g.Volumes {
				if d, err := v.Device(); err == nil {
					_, _ = d.ReadAt(b, 0)
					_, _ = d.ReadAt(b, d.Size()-50)
				}
			}
		}
	})
}

func Example() {
	var disks []disk.Device
	for _, p := range load(new(testing.T)) {
		disks = append(disks, p)
	}
	groups, err := lvm.Groups(disks)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, v := range groups[0].Volumes[:4] {
		fmt.Println(v.Group, v.Name, v.Kind, v.Size)
	}
	// Output:
	// vgx lin linear 5242880
	// vgx str striped 6291456
	// vgx span linear 26214400
	// vgx r1 raid1 2097152
}
