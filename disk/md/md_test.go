package md_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/md"
)

const (
	sector = 512
	size   = 2 << 20   // bytes of each device
	start  = 512 << 10 // of its data, for versions 1.1 and 1.2
	length = 1 << 20   // of its data
)

// device is one of an array, as the documentation of the format has it (md(4), linux/raid/md_p.h).
type device struct {
	version         string
	level           int32
	members, number int
	events          uint64
	features        uint32
	recovery        uint64
	roles           []uint16 // by number; nil: each has the role of its number
	chunk           uint32   // sectors
	bad             int
}

var le = binary.LittleEndian

// build gives the bytes of a device, which has its number in all of its data.
func (d device) build() []byte {
	b := make([]byte, size)
	for n := range b {
		b[n] = byte(n>>9*7) ^ byte(d.number+1)<<5
	}
	if d.version == "0.90" {
		d.build090(b[size/65536*65536-65536:][:4096])
		return b
	}
	at, data, room := map[string]int{"1.0": (size/sector - 16) &^ 7, "1.1": 0, "1.2": 8}[d.version], start, length
	if d.version == "1.0" {
		data = 0
	}
	s := b[at*sector:][:4096]
	clear(s)
	le.PutUint32(s, 0xa92b4efc)
	le.PutUint32(s[4:], 1)
	le.PutUint32(s[8:], d.features)
	copy(s[16:], "sixteen bytes id")
	copy(s[32:], "host:array")
	le.PutUint64(s[64:], 1796037066)
	le.PutUint32(s[72:], uint32(d.level))
	le.PutUint64(s[80:], length/sector-128)
	le.PutUint32(s[88:], d.chunk)
	le.PutUint32(s[92:], uint32(d.members))
	le.PutUint64(s[128:], uint64(data/sector))
	le.PutUint64(s[136:], uint64(room/sector))
	le.PutUint64(s[144:], uint64(at))
	le.PutUint64(s[152:], d.recovery)
	le.PutUint32(s[160:], uint32(d.number))
	s[168] = byte(d.number + 1)
	if d.bad > 0 {
		le.PutUint32(s[8:], d.features|8)
		s[184+1], s[186] = 0, 1
		le.PutUint32(s[188:], 8)
		log := b[(at+8)*sector:][:sector]
		for n := range log {
			log[n] = 0xff
		}
		for n := range d.bad {
			le.PutUint64(log[n*8:], uint64(n*100)<<10|8)
		}
	}
	le.PutUint64(s[192:], 1796037067)
	le.PutUint64(s[200:], d.events)
	le.PutUint64(s[208:], ^uint64(0))
	roles := d.roles
	for n := 0; d.roles == nil && n < d.members; n++ {
		roles = append(roles, uint16(n))
	}
	le.PutUint32(s[220:], uint32(len(roles)))
	for n, r := range roles {
		le.PutUint16(s[256+n*2:], r)
	}
	le.PutUint32(s[216:], sum(s[:256+len(roles)*2]))
	return b
}

func (d device) build090(s []byte) {
	clear(s)
	put := func(word int, v uint32) { le.PutUint32(s[word*4:], v) }
	put(0, 0xa92b4efc)
	put(2, 90)
	for n, word := range []int{5, 13, 14, 15} {
		put(word, 0x11111111*uint32(n+1))
	}
	put(6, 1796037066)
	put(7, uint32(d.level))
	put(8, length>>10)
	put(9, uint32(d.members))
	put(10, uint32(d.members))
	put(32, 1796037067)
	put(33, 1)
	put(34, uint32(d.members))
	put(35, uint32(d.members))
	put(39, uint32(d.events))
	put(40, uint32(d.events>>32))
	put(65, d.chunk*sector)
	for n := range d.members {
		disk := 128 + n*32
		put(disk, uint32(n))
		put(disk+1, 8)
		put(disk+3, uint32(n))
		put(disk+4, 1<<1|1<<2)
		if d.roles != nil && d.roles[n] == 0xfffe {
			put(disk+4, 1)
		}
	}
	copy(s[992*4:], s[(128+d.number*32)*4:][:128])
	put(38, sum(s))
}

func sum(b []byte) uint32 {
	var total uint64
	for ; len(b) >= 4; b = b[4:] {
		total += uint64(le.Uint32(b))
	}
	if len(b) == 2 {
		total += uint64(le.Uint16(b))
	}
	return uint32(total) + uint32(total>>32)
}

func array(t testing.TB, all ...[]byte) *md.Array {
	t.Helper()
	var devices []disk.Device
	for _, b := range all {
		devices = append(devices, bytes.NewReader(b))
	}
	arrays, err := md.Arrays(devices)
	if err != nil || len(arrays) != 1 {
		t.Fatalf("arrays %v, %v", arrays, err)
	}
	return arrays[0]
}

func content(t *testing.T, a *md.Array) []byte {
	t.Helper()
	d, err := a.Device()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, d.Size()+1)
	n, err := d.ReadAt(b, 0)
	if int64(n) != d.Size() || !errors.Is(err, io.EOF) {
		t.Fatalf("read %d bytes of %d: %v", n, d.Size(), err)
	}
	for at := int64(1); at < d.Size(); at = at*2 + 777 {
		part := make([]byte, min(150_000, d.Size()-at))
		if _, err := d.ReadAt(part, at); err != nil || !bytes.Equal(part, b[at:][:len(part)]) {
			t.Errorf("read at %#x: %v", at, err)
		}
	}
	return b[:n]
}

var versions = []string{"0.90", "1.0", "1.1", "1.2"}

// dataOf is where a device has its data.
func dataOf(version string, b []byte) []byte {
	switch version {
	case "0.90":
		return b[:size-65536]
	case "1.0":
		return b[:length]
	}
	return b[start : start+length]
}

// mdadm reads the same superblocks.
func TestSameAsMdadm(t *testing.T) {
	mdadm, err := exec.LookPath("mdadm")
	if err != nil {
		if mdadm, err = exec.LookPath("/usr/sbin/mdadm"); err != nil {
			t.Skip(err)
		}
	}
	for _, version := range versions {
		for _, level := range []int32{-1, 0, 1, 5} {
			b := device{version: version, level: level, members: 3, number: 1, events: 77, chunk: 128}.build()
			path := filepath.Join(t.TempDir(), "member")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(mdadm, "--examine", path).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			field := func(name string) string {
				m := regexp.MustCompile(`(?m)^ *` + name + ` : (.*)$`).FindSubmatch(out)
				if m == nil {
					return ""
				}
				return string(m[1])
			}
			a := array(t, b)
			if uuid, _, _ := strings.Cut(field("(?:Array )?UUID"), " "); uuid != a.UUID {
				t.Errorf("%s: UUID %s, and mdadm says %s", version, a.UUID, uuid)
			}
			if field("Raid Level") != a.Level || field("Raid Devices") != fmt.Sprint(a.Expected) || strings.TrimPrefix(field("Events"), "0.") != fmt.Sprint(a.Members[0].Events) ||
				!strings.HasPrefix(field("Version"), a.Version) ||
				!strings.Contains(field("Checksum"), "correct") {
				t.Errorf("%s: %+v, and mdadm says\n%s", version, a, out)
			}
			if role := field("Device Role"); role != "" && role != fmt.Sprintf("Active device %d", a.Members[0].Role) {
				t.Errorf("%s: role %d, and mdadm says %s", version, a.Members[0].Role, role)
			}
			if name, _, _ := strings.Cut(field("Name"), " "); name != a.Name {
				t.Errorf("%s: name %q, and mdadm says %q", version, a.Name, name)
			}
		}
	}
}

func TestRAID1(t *testing.T) {
	for _, version := range versions {
		first, second := device{version: version, level: 1, members: 2, number: 0, events: 10}, device{version: version, level: 1, members: 2, number: 1, events: 10}
		newer, old, failed, rebuilt, bad := second, first, second, first, first
		newer.events, old.events = 20, 9
		failed.roles = []uint16{0xfffe, 1}
		rebuilt.features, rebuilt.recovery = 2, 100
		bad.bad = 3
		for _, c := range []struct {
			name string
			a, b device
			want int
			note string
			v1   bool // version 0.90 does not have it
		}{
			{"both are in order", first, second, 0, "device 0 is read", false},
			{"the second is newer", first, newer, 1, "device 0 is old", false},
			{"the first is old", old, second, 1, "device 0 is old: the array went on without it (9 events of 10)", false},
			{"the other way round", second, old, 0, "device 1 is old", false},
			{"the first has failed", old, func() device { f := failed; f.events = 11; return f }(), 1, "old", false},
			{"the first is being rebuilt", rebuilt, second, 1, "device 1 is read", true},
			{"the first has bad blocks", bad, second, 1, "device 0 has 3 ranges", true},
		} {
			if c.v1 && version == "0.90" {
				continue
			}
			t.Run(version+" "+c.name, func(t *testing.T) {
				all := [][]byte{c.a.build(), c.b.build()}
				a := array(t, all...)
				want := dataOf(version, all[c.want])
				if version == "0.90" {
					want = want[:length]
				} else {
					want = want[:length-128*sector]
				}
				if !bytes.Equal(content(t, a), want) {
					t.Error("the wrong member was read")
				}
				if !strings.Contains(strings.Join(a.Notes, "\n"), c.note) || a.Level != "raid1" || a.Version != version {
					t.Errorf("array %+v", a)
				}
			})
		}
		if a := array(t, second.build()); !slices.Contains(a.Notes, "1 of 2 members are missing") || !bytes.Equal(content(t, a)[:99], dataOf(version, second.build())[:99]) {
			t.Errorf("%s: the second alone: %q", version, a.Notes)
		}
		if version != "0.90" {
			spare := first
			spare.roles = []uint16{0xffff, 1}
			if _, err := array(t, spare.build()).Device(); !errors.Is(err, md.ErrMissing) {
				t.Errorf("%s: a spare alone: %v", version, err)
			}
			if _, err := array(t, rebuilt.build()).Device(); !errors.Is(err, md.ErrMissing) {
				t.Errorf("%s: one that is being rebuilt alone: %v", version, err)
			}
		}
	}
}

func TestJoined(t *testing.T) {
	for _, version := range versions {
		var all [][]byte
		for n := range 3 {
			all = append(all, device{version: version, level: -1, members: 3, number: n, events: 5, chunk: 128}.build())
		}
		var parts [][]byte
		for _, b := range all {
			parts = append(parts, dataOf(version, b))
		}
		shuffled := [][]byte{all[2], all[0], all[1]}
		if !bytes.Equal(content(t, array(t, shuffled...)), bytes.Join(parts, nil)) {
			t.Errorf("%s: linear: other bytes", version)
		}
		if _, err := array(t, all[:2]...).Device(); !errors.Is(err, md.ErrMissing) || !strings.Contains(err.Error(), "member 2 of 3") {
			t.Errorf("%s: linear without a member: %v", version, err)
		}

		for n := range all {
			all[n] = device{version: version, level: 0, members: 3, number: n, events: 5, chunk: 128}.build()
			parts[n] = dataOf(version, all[n])
		}
		var want []byte
		for at := 0; at < len(parts[0]); at += 64 << 10 {
			for _, p := range parts {
				want = append(want, p[at:at+64<<10]...)
			}
		}
		if !bytes.Equal(content(t, array(t, all...)), want) {
			t.Errorf("%s: raid0: other bytes", version)
		}
	}
}

func TestRefused(t *testing.T) {
	for want, d := range map[string]device{
		"level raid5":    {version: "1.2", level: 5, members: 1, chunk: 128},
		"level raid10":   {version: "1.2", level: 10, members: 1, chunk: 128},
		"being reshaped": {version: "1.2", level: 1, members: 1, features: 4},
	} {
		if _, err := array(t, d.build()).Device(); !errors.Is(err, disk.ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestDamage(t *testing.T) {
	for _, version := range versions {
		good := device{version: version, level: 1, members: 1}.build()
		at := bytes.Index(good, []byte("\xfc\x4e\x2b\xa9"))
		b := slices.Clone(good)
		b[at+200]++
		var broken *disk.CorruptError
		if arrays, err := md.Arrays([]disk.Device{bytes.NewReader(b)}); !errors.As(err, &broken) || broken.Offset != int64(at) || len(arrays) != 0 {
			t.Errorf("%s: a superblock with another byte: %v, %v", version, arrays, err)
		}
		if _, err := md.Recognise(bytes.NewReader(good[:at])); !errors.Is(err, disk.ErrUnknown) {
			t.Errorf("%s: cut off before the superblock: %v", version, err)
		}
	}
	short := device{version: "1.2", level: 1, members: 1}.build()[:start+length/2]
	if _, err := array(t, short).Device(); err == nil || !strings.Contains(err.Error(), "not within") {
		t.Errorf("cut off: %v", err)
	}
	big := make([]byte, 1<<20)
	binary.BigEndian.PutUint32(big[4096:], 0xa92b4efc)
	if _, err := md.Recognise(bytes.NewReader(big)); !errors.Is(err, disk.ErrUnsupported) {
		t.Errorf("big-endian: %v", err)
	}
}

// resum gives superblocks the right checksum again, so that fuzzing comes behind it.
func resum(b []byte) {
	if len(b) >= 4096+4096 && le.Uint32(b[4096+220:]) <= 1920 {
		s := b[4096:]
		le.PutUint32(s[216:], 0)
		le.PutUint32(s[216:], sum(s[:256+le.Uint32(s[220:])*2]))
	}
}

func FuzzArrays(f *testing.F) {
	for _, level := range []int32{-1, 0, 1} {
		f.Add(device{version: "1.2", level: level, members: 1, chunk: 8}.build()[4096:][:4096], uint16(1))
	}
	f.Add(device{version: "0.90", level: 1, members: 1}.build()[size-65536:][:4096], uint16(0))
	f.Fuzz(func(t *testing.T, super []byte, place uint16) {
		b := make([]byte, 256<<10)
		copy(b[min(int(place)*4096, len(b)):], super)
		resum(b)
		arrays, _ := md.Arrays([]disk.Device{bytes.NewReader(b), bytes.NewReader(b)})
		for _, a := range arrays {
			d, err := a.Device()
			if err != nil {
				continue
			}
			p := make([]byte, 8192)
			for _, at := range []int64{0, 100, d.Size() / 2, max(0, d.Size()-100)} {
				if n, err := d.ReadAt(p, at); n < len(p) && err == nil {
					t.Fatalf("read at %d: %d, %v", at, n, err)
				}
			}
		}
	})
}

func Example() {
	first := device{version: "1.2", level: 1, members: 2, number: 0, events: 41}.build()
	second := device{version: "1.2", level: 1, members: 2, number: 1, events: 42}.build()
	arrays, err := md.Arrays([]disk.Device{bytes.NewReader(first), bytes.NewReader(second)})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, a := range arrays {
		fmt.Println(a.Name, a.Level, a.Version)
		for _, note := range a.Notes {
			fmt.Println(note)
		}
	}
	// Output:
	// host:array raid1 1.2
	// device 0 is old: the array went on without it (41 events of 42)
	// device 1 is read
}
