package partition_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/partition"
)

// divide has a tool write a table on a disk of a size, and gives the disk.
func divide(t testing.TB, size int64, input, tool string, args ...string) (path string, content []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	call(t, input, tool, append(args, path)...)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, content
}

func call(t testing.TB, input, tool string, args ...string) string {
	t.Helper()
	full, err := exec.LookPath(tool)
	if err != nil {
		if full, err = exec.LookPath("/usr/sbin/" + tool); err != nil {
			t.Skip(err)
		}
	}
	c := exec.Command(full, args...)
	c.Stdin = strings.NewReader(input)
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", tool, args, err, out)
	}
	return string(out)
}

func read(t testing.TB, content []byte) *partition.Table {
	t.Helper()
	table, err := partition.Read(strings.NewReader(string(content)), 0)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// compare compares a table with what sfdisk --json says.
func compare(t *testing.T, got *partition.Table, path string) {
	t.Helper()
	var want struct {
		PartitionTable struct {
			Label, ID  string
			SectorSize int64
			Partitions []struct {
				Node, Type, UUID, Name, Attrs string
				Start, Size                   int64
				Bootable                      bool
			}
		}
	}
	if err := json.Unmarshal([]byte(call(t, "", "sfdisk", "--json", path)), &want); err != nil {
		t.Fatal(err)
	}
	w := want.PartitionTable
	scheme := map[string]partition.Scheme{"gpt": partition.GPT, "dos": partition.MBR}[w.Label]
	if got.Scheme != scheme || !strings.EqualFold(got.UUID, w.ID) || len(got.Partitions) != len(w.Partitions) || len(w.Partitions) == 0 {
		t.Fatalf("%s %s with %d partitions, and sfdisk says %s %s with %d", got.Scheme, got.UUID, len(got.Partitions), w.Label, w.ID, len(w.Partitions))
	}
	for n, p := range got.Partitions {
		w := w.Partitions[n]
		number, err := strconv.Atoi(strings.TrimPrefix(w.Node, path))
		if err != nil {
			t.Fatal(err)
		}
		if p.Number != number || p.Start != w.Start*got.SectorSize || p.Size != w.Size*got.SectorSize || p.Name != w.Name ||
			!strings.EqualFold(strings.TrimPrefix(strings.TrimPrefix(p.Type, "0x0"), "0x"), w.Type) || w.UUID != "" && !strings.EqualFold(p.UUID, w.UUID) ||
			slices.Contains(p.Flags, "active") != w.Bootable || (w.Attrs != "") != (len(p.Flags) > 0 && scheme == partition.GPT) {
			t.Errorf("partition %+v, and sfdisk says %+v", p, w)
		}
	}
}

const (
	gptScript = `label: gpt
size=1M, type=U, name="EFI"
size=2M, type=L, name="größer 🐧", attrs="LegacyBIOSBootable,GUID:60"
size=512K, type=S, attrs="RequiredPartition"
9: size=3M, type=V
type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709
`
	mbrScript = `label: dos
label-id: 0x1234abcd
size=1M, type=83, bootable
size=2M, type=82
size=10M, type=f
4: size=1M, type=8e
5: size=2M, type=83
size=1M, type=fd, bootable
size=1M, type=7
`
)

func TestGPT(t *testing.T) {
	path, content := divide(t, 32<<20, gptScript, "sfdisk", "-q")
	got := read(t, content)
	compare(t, got, path)
	if len(got.Notes) != 0 || got.SectorSize != 512 {
		t.Errorf("sectors of %d bytes; notes %q", got.SectorSize, got.Notes)
	}
	if p := got.Partitions[1]; p.TypeName != "Linux filesystem" || !slices.Equal(p.Flags, []string{"legacy-boot", "read-only"}) {
		t.Errorf("partition %+v", p)
	}
	d, err := got.Partitions[1].Device(strings.NewReader(string(content)))
	if err != nil || d.Size() != 2<<20 {
		t.Errorf("its device: %v, %v", d, err)
	}
}

func TestGPTBySgdisk(t *testing.T) {
	path, content := divide(t, 64<<20, "", "sgdisk", "-n", "1:0:+1M", "-t", "1:ef02", "-n", "3:0:+4M", "-t", "3:fd00", "-c", "3:raid", "-A", "3:set:63", "-n", "128:0:0", "-t", "128:8e00")
	got := read(t, content)
	compare(t, got, path)
	if p := got.Partitions[2]; p.Number != 128 || p.TypeName != "Linux LVM" {
		t.Errorf("partition %+v", p)
	}
}

func TestLargeSectors(t *testing.T) {
	const keys = "g\nn\n1\n\n+4M\nn\n2\n\n\nw\n"
	_, content := divide(t, 64<<20, keys, "fdisk", "-b", "4096")
	got := read(t, content)
	if got.Scheme != partition.GPT || got.SectorSize != 4096 || len(got.Partitions) != 2 || len(got.Notes) != 0 || got.Partitions[0].Size != 4<<20 {
		t.Errorf("%+v", got)
	}
	if n := 4096 * int64(binary.LittleEndian.Uint64(content[2*4096+32:])); got.Partitions[0].Start != n {
		t.Errorf("partition 1 begins at %#x, and not %#x", got.Partitions[0].Start, n)
	}
	_, content = divide(t, 64<<20, "o\nn\np\n1\n\n+4M\nw\n", "fdisk", "-b", "4096")
	got, err := partition.Read(strings.NewReader(string(content)), 4096)
	if err != nil || got.Scheme != partition.MBR || len(got.Partitions) != 1 || got.Partitions[0].Size != 4<<20 {
		t.Errorf("MBR: %+v, %v", got, err)
	}
}

func TestMBR(t *testing.T) {
	path, content := divide(t, 32<<20, mbrScript, "sfdisk", "-q")
	got := read(t, content)
	compare(t, got, path)
	if p := got.Partitions[2]; !p.Container || p.TypeName != "W95 Ext'd (LBA)" || p.UUID != "1234abcd-03" {
		t.Errorf("the extended partition is %+v", p)
	}
	if p := got.Partitions[6]; p.Number != 7 || p.Container || p.Type != "0x07" || p.TypeName != "HPFS/NTFS/exFAT" || len(got.Notes) != 0 {
		t.Errorf("the last partition is %+v; notes %q", p, got.Notes)
	}
}

func TestDamagedGPT(t *testing.T) {
	const size = 32 << 20
	path, content := divide(t, size, gptScript, "sfdisk", "-q")
	whole := read(t, content)
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		note   string
	}{
		{"header", func(b []byte) []byte { b[512+40]++; return b }, "a header with checksum"},
		{"entries", func(b []byte) []byte { b[1024+128+8]++; return b }, "partition entries with checksum"},
		{"nothing there", func(b []byte) []byte { clear(b[512:20000]); return b }, "it is not there"},
		{"says another place", func(b []byte) []byte { b[512+24] = 5; return signed(b, 512) }, "says it is at sector 5"},
		{"entries beyond the end", func(b []byte) []byte { b[512+72+5] = 5; return signed(b, 512) }, "beyond the end"},
		{"too many entries", func(b []byte) []byte { b[512+80+3] = 5; return signed(b, 512) }, "partition entries of 128 bytes"},
		{"header too long", func(b []byte) []byte { b[512+12+3] = 5; return signed(b, 512) }, "a header of"},
		{"copy", func(b []byte) []byte { b[size-512+40]++; return b }, "copy of the GPT is not in order"},
		{"copy that is not there", func(b []byte) []byte { return b[:size-512] }, "copy of the GPT is not in order"},
		{"other copy", func(b []byte) []byte { b[size-512+88]++; b[size-33*512+20]++; return resign(b, size) }, "has other partitions"},
		{"larger disk", func(b []byte) []byte { return append(b, make([]byte, 1<<20)...) }, "was made larger"},
		{"no MBR", func(b []byte) []byte { clear(b[:512]); return b }, "no MBR protects"},
		{"hybrid", func(b []byte) []byte { put(b[462:], 0x83, 4096, 100); return b }, "partitions of its own beside"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := read(t, c.change(slices.Clone(content)))
			if len(got.Notes) == 0 || !strings.Contains(got.Notes[0], c.note) {
				t.Errorf("notes %q, which should have %q", got.Notes, c.note)
			}
			if fmt.Sprint(got.Partitions) != fmt.Sprint(whole.Partitions) {
				t.Errorf("partitions %v", got.Partitions)
			}
		})
	}
	b := slices.Clone(content)
	b[512+40]++
	b[size-512+40]++
	var broken *disk.CorruptError
	if _, err := partition.Read(strings.NewReader(string(b)), 0); !errors.As(err, &broken) || broken.Offset != 512 {
		t.Errorf("both copies are damaged: %v", err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// signed gives the header at a place its checksum again.
func signed(b []byte, at int) []byte {
	binary.LittleEndian.PutUint32(b[at+16:], 0)
	binary.LittleEndian.PutUint32(b[at+16:], crc32.ChecksumIEEE(b[at:at+92]))
	return b
}

// resign does so for the entries of the copy, too.
func resign(b []byte, size int) []byte {
	binary.LittleEndian.PutUint32(b[size-512+88:], crc32.ChecksumIEEE(b[size-33*512:size-512]))
	return signed(b, size-512)
}

func put(e []byte, kind byte, start, size uint32) {
	e[4] = kind
	binary.LittleEndian.PutUint32(e[8:], start)
	binary.LittleEndian.PutUint32(e[12:], size)
}

// What a disk had before must not be taken for what it has.
func TestStaleGPT(t *testing.T) {
	const size = 32 << 20
	_, content := divide(t, size, gptScript, "sfdisk", "-q")
	t.Run("copy at the end alone", func(t *testing.T) {
		b := slices.Clone(content)
		clear(b[:20000])
		if got := read(t, b); got.Scheme != partition.None {
			t.Errorf("%+v", got)
		}
	})
	t.Run("MBR with partitions", func(t *testing.T) {
		b := slices.Clone(content)
		put(b[446:], 0x83, 2048, 100)
		if got := read(t, b); got.Scheme != partition.MBR || len(got.Partitions) != 1 || !strings.Contains(strings.Join(got.Notes, "\n"), "there is a GPT too") {
			t.Errorf("%+v", got)
		}
	})
}

// hostile is an MBR with an extended partition from sector 1 on, in which each sector has what link says.
func hostile(sectors int, link func(n int, b []byte)) []byte {
	b := make([]byte, sectors*512)
	b[510], b[511] = 0x55, 0xaa
	put(b[446:], 0x05, 1, uint32(sectors-1))
	for n := 1; n < sectors; n++ {
		s := b[n*512:][:512]
		s[510], s[511] = 0x55, 0xaa
		link(n, s)
	}
	return b
}

func TestHostileMBR(t *testing.T) {
	for _, c := range []struct {
		name       string
		content    []byte
		partitions int
		note       string
	}{
		{"loop", hostile(8, func(n int, b []byte) { put(b[446:], 0x83, 1, 1); put(b[462:], 0x05, uint32(n%3), 1) }), 1 + 3, "come back to sector 1"},
		{"loop to itself", hostile(4, func(n int, b []byte) { put(b[462:], 0x05, uint32(n-1), 1) }), 1, "sector 1"},
		{"links alone", hostile(400, func(n int, b []byte) { put(b[462:], 0x05, uint32(n), 1) }), 1, "more than 0 logical"},
		{"many", hostile(400, func(n int, b []byte) { put(b[446:], 0x83, 0, 1); put(b[462:], 0x05, uint32(n), 1) }), 1 + 252, "more than 252 logical"},
		{"ends", hostile(4, func(n int, b []byte) { put(b[446:], 0x83, 0, 1); put(b[462:], 0x05, uint32(n), 1) }), 1 + 3, "sector 4, which should have"},
		{"beyond the end", hostile(4, func(_ int, b []byte) { put(b[446:], 0x83, 0xffffffff, 0xffffffff) }), 1 + 1, "and the disk has"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := read(t, c.content)
			if len(got.Partitions) != c.partitions || !strings.Contains(strings.Join(got.Notes, "\n"), c.note) {
				t.Errorf("%d partitions, notes %q", len(got.Partitions), got.Notes)
			}
		})
	}
	last := read(t, hostile(4, func(_ int, b []byte) { put(b[446:], 0x83, 0xffffffff, 1) })).Partitions[1]
	if _, err := last.Device(strings.NewReader("")); err == nil {
		t.Error("a partition beyond the end of the disk has a device")
	}
}

func TestNone(t *testing.T) {
	fat := make([]byte, 4096)
	for n := 446; n < 510; n++ {
		fat[n] = "Non-system disk. "[n%17]
	}
	fat[510], fat[511] = 0x55, 0xaa
	empty := make([]byte, 4096)
	empty[510], empty[511] = 0x55, 0xaa
	for name, b := range map[string][]byte{"nothing": nil, "too small": make([]byte, 100), "zeroes": make([]byte, 1<<20), "boot sector of FAT": fat} {
		if got := read(t, b); got.Scheme != partition.None || len(got.Partitions) != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := read(t, empty); got.Scheme != partition.MBR || len(got.Partitions) != 0 {
		t.Errorf("MBR without partitions: %+v", got)
	}
	b := slices.Clone(empty)
	put(b[446:], 0xee, 1, 7)
	if _, err := partition.Read(strings.NewReader(string(b)), 0); err == nil || !strings.Contains(err.Error(), "neither its start nor its copy") {
		t.Errorf("an MBR that protects nothing: %v", err)
	}
}

func TestOverlap(t *testing.T) {
	b := hostile(8, func(int, []byte) {})
	put(b[462:], 0x83, 2, 3)
	put(b[478:], 0x83, 4, 3)
	if got := read(t, b); !slices.Contains(got.Notes, "partitions 2 and 3 overlap") {
		t.Errorf("notes %q", got.Notes)
	}
}

func TestNamesAreThoseOfSfdisk(t *testing.T) {
	for label, prefix := range map[string]string{"gpt": "", "dos": "0x"} {
		checked := 0
		for line := range strings.Lines(call(t, "", "sfdisk", "--list-types", "-X", label)) {
			id, name, ok := strings.Cut(strings.TrimSpace(line), " ")
			if ok && prefix != "" && len(id) == 1 {
				id = "0" + id
			}
			got := partition.TypeName(prefix + strings.ToLower(id))
			if !ok || got == "" {
				continue
			}
			checked++
			if got != strings.TrimSpace(name) {
				t.Errorf("type %s is %q, and for sfdisk %q", id, got, strings.TrimSpace(name))
			}
		}
		if checked < 30 {
			t.Errorf("%s: %d types have names", label, checked)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(hostile(8, func(n int, b []byte) { put(b[446:], 0x83, 1, 1); put(b[462:], 0x05, uint32(n%3), 1) }))
	_, content := divide(f, 1<<20, "label: gpt\nsize=64K\n", "sfdisk", "-q")
	f.Add(content[:64<<10])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1100 { // what has a GPT is worth more with the right checksums
			c := slices.Clone(b)
			binary.LittleEndian.PutUint32(c[512+88:], crc32.ChecksumIEEE(c[1024:min(len(c), 1024+128*128)]))
			try(t, signed(c, 512))
		}
		try(t, b)
	})
}

func try(t *testing.T, b []byte) {
	d := strings.NewReader(string(b))
	table, err := partition.Read(d, 0)
	if err != nil {
		return
	}
	for _, p := range table.Partitions {
		if p.Start < 0 || p.Size < 0 {
			t.Fatalf("partition %+v", p)
		}
		if part, err := p.Device(d); err == nil && part.Size() > int64(len(b)) {
			t.Fatalf("partition %+v has %d bytes of %d", p, part.Size(), len(b))
		}
	}
}

func Example() {
	d := make([]byte, 1<<20)
	d[510], d[511] = 0x55, 0xaa
	put(d[446:], 0x83, 64, 1024)
	put(d[462:], 0x8e, 1088, 512)
	table, err := partition.Read(strings.NewReader(string(d)), 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range table.Partitions {
		fmt.Println(table.Scheme, p.Number, p.TypeName, p.Start, p.Size)
	}
	// Output:
	// mbr 1 Linux 32768 524288
	// mbr 2 Linux LVM 557056 262144
}
