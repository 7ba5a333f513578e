package qcow2_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/qcow2"
)

// memory is a device made by hand.
type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }

func (m memory) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, errors.New("before the start")
	}
	if offset >= int64(len(m)) {
		return 0, io.EOF
	}
	n := copy(p, m[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

const (
	cluster = 64 << 10
	atL1    = 1 * cluster
	atL2    = 2 * cluster
	atData  = 3 * cluster
)

// image is a version 3 image of a disk of four clusters, of which the first has data.
func image() memory {
	m := make(memory, 4*cluster)
	be := binary.BigEndian
	copy(m, "QFI\xfb")
	be.PutUint32(m[4:], 3)
	be.PutUint32(m[20:], 16)
	be.PutUint64(m[24:], 4*cluster)
	be.PutUint32(m[36:], 1)
	be.PutUint64(m[40:], atL1)
	be.PutUint32(m[96:], 4)
	be.PutUint32(m[100:], 104)
	be.PutUint64(m[atL1:], 1<<63|atL2)
	be.PutUint64(m[atL2:], 1<<63|atData)
	copy(m[atData:], "the first cluster")
	return m
}

func put32(at int, value uint32) func(memory) memory {
	return func(m memory) memory { binary.BigEndian.PutUint32(m[at:], value); return m }
}

func put64(at int, value uint64) func(memory) memory {
	return func(m memory) memory { binary.BigEndian.PutUint64(m[at:], value); return m }
}

func TestRefuses(t *testing.T) {
	features := func(m memory) memory {
		put64(72, 1<<9)(m)
		put32(104, 0x6803f857)(m)
		put32(108, 48)(m)
		m[112], m[113] = 0, 9
		copy(m[114:], "time travel")
		return m
	}
	for _, c := range []struct {
		name   string
		change func(memory) memory
		want   string
		is     error
	}{
		{"another file", func(memory) memory { return memory("no image at all") }, "unknown format", disk.ErrUnknown},
		{"nothing", func(memory) memory { return nil }, "unknown format", disk.ErrUnknown},
		{"version 1", put32(4, 1), "version 1", disk.ErrUnsupported},
		{"AES", put32(32, 1), "AES encryption", disk.ErrUnsupported},
		{"LUKS", put32(32, 2), "LUKS encryption", disk.ErrUnsupported},
		{"other encryption", put32(32, 3), "encryption method 3", disk.ErrUnsupported},
		{"a feature with a name", features, `bit 9 ("time travel")`, disk.ErrUnsupported},
		{"a feature without", put64(72, 1<<63), `bit 63 ("without a name")`, disk.ErrUnsupported},
		{"compression", func(m memory) memory { put32(100, 112)(m); put64(72, 8)(m); m[104] = 2; return m }, "compression type 2", disk.ErrUnsupported},
		{"compression that is not said", func(m memory) memory { put32(100, 112)(m); m[104] = 1; return m }, "contradicts", nil},
		{"tiny clusters", put32(20, 8), "2^8", nil},
		{"huge clusters", put32(20, 22), "2^22", nil},
		{"tiny subclusters", func(m memory) memory { put32(20, 13)(m); return put64(72, 16)(m) }, "subclusters", nil},
		{"huge disk", put64(24, 1<<63), "0x8000000000000000 bytes", nil},
		{"L1 table too short", put64(24, 1<<40), "needs 2048", nil},
		{"L1 table too long", put32(36, 1<<23), "at most 4194304", nil},
		{"L1 table between clusters", put64(40, atL1+8), "no cluster begins", nil},
		{"L1 table beyond the end", put64(40, 1<<40), "cut off", nil},
		{"header too short", put32(100, 72), "a header of 72 bytes", nil},
		{"header too long", put32(100, 1<<20), "a header of 1048576 bytes", nil},
		{"header cut off", func(m memory) memory { return m[:100] }, "a header of 104 bytes", nil},
		{"extension too long", func(m memory) memory { put32(104, 1)(m); return put32(108, 1<<31)(m) }, "header extension 0x1", nil},
		{"too many snapshots", put32(60, 1<<20), "1048576 snapshots", nil},
		{"backing name beyond the cluster", func(m memory) memory { put64(8, cluster-8)(m); return put32(16, 9)(m) }, "backing file name", nil},
		{"backing name too long", func(m memory) memory { put64(8, 512)(m); return put32(16, 1024)(m) }, "backing file name", nil},
		{"backing file", func(m memory) memory { put64(8, 512)(m); put32(16, 4)(m); copy(m[512:], "base"); return m }, `backing file "base"`, nil},
		{"data file", put64(72, 4), `data file ""`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := qcow2.Open(c.change(image()), qcow2.Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error %v, and it should have %q", err, c.want)
			}
		})
	}
}

func TestDamageIsSaidWhereItIsRead(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(memory) memory
		want   string
	}{
		{"L2 table between clusters", put64(atL1, 1<<63|atL2+512), "an L2 table at 0x20200, where no cluster begins at byte 0x10000"},
		{"L2 table beyond the end", put64(atL1, 1<<63|1<<40), "an L2 table beyond the end"},
		{"cluster between clusters", put64(atL2, 1<<63|atData+512), "a cluster at 0x30200, where none begins at byte 0x20000"},
		{"cluster beyond the end", put64(atL2, 1<<63|1<<40), "a cluster beyond the end of the image, which was cut off at byte 0x10000000000"},
		{"image that was cut off", func(m memory) memory { return m[:atData] }, "a cluster beyond the end of the image, which was cut off at byte 0x30000"},
		{"compressed cluster of nonsense", put64(atL2, 1<<62|atData), "a compressed cluster: "},
		{"compressed cluster beyond the end", put64(atL2, 1<<62|1<<40), "a compressed cluster beyond the end"},
		{"zeroes in version 2", func(m memory) memory { put32(4, 2)(m); return put64(atL2, 1)(m) }, "which version 2 does not have"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i, err := qcow2.Open(c.change(image()), qcow2.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var broken *disk.CorruptError
			if n, err := i.ReadAt(make([]byte, cluster), 0); n != 0 || !errors.As(err, &broken) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("read %d bytes: %v, which should have %q", n, err, c.want)
			}
			if c.change(image())[atL1+2] == 0 && !strings.HasPrefix(c.name, "L2") { // what is not damaged is read
				if _, err := i.ReadAt(make([]byte, cluster), cluster); err != nil {
					t.Errorf("the second cluster: %v", err)
				}
			}
		})
	}
}

func TestPartOfLastCluster(t *testing.T) {
	m := image()[:atData+9] // as qemu-img leaves it when the disk was made larger
	i, err := qcow2.Open(m, qcow2.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := append([]byte("the first"), make([]byte, 4*cluster-9)...)
	same(t, i, want)
}

func TestNotes(t *testing.T) {
	i, err := qcow2.Open(put64(72, 3)(image()), qcow2.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if notes := strings.Join(i.Info().Notes, "\n"); !strings.Contains(notes, "not closed") || !strings.Contains(notes, "corrupt") {
		t.Errorf("notes %q", notes)
	}
}

func TestHostileSnapshots(t *testing.T) {
	base := func() memory { put := image(); put32(60, 2)(put); return put64(64, cluster/2)(put) }
	for _, c := range []struct {
		name   string
		change func(memory) memory
		want   string
	}{
		{"beyond the end", put64(64, 1<<40), "beyond the end"},
		{"before the start", put64(64, 1<<63), "beyond the end"},
		{"much extra", put32(cluster/2+36, 1<<31), "extra bytes"},
		{"name beyond the end", func(m memory) memory { put64(64, 4*cluster-48)(m); m[4*cluster-48+12] = 0xff; return m }, "name of a snapshot"},
		{"huge disk", func(m memory) memory { put32(cluster/2+36, 16)(m); return put64(cluster/2+48, 1<<62)(m) }, "a snapshot of a disk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i, err := qcow2.Open(c.change(base()), qcow2.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := i.Snapshots(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, and it should have %q", err, c.want)
			}
		})
	}
	i, err := qcow2.Open(base(), qcow2.Options{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := i.Snapshots()
	if err != nil || len(all) != 2 {
		t.Fatalf("snapshots %v, %v", all, err)
	}
	if _, err := i.At(all[0]); err == nil || !strings.Contains(err.Error(), "needs 1") {
		t.Errorf("a snapshot without an L1 table: %v", err)
	}
}

// A cache that has room for next to nothing still gives the right bytes, to many at a time.
func TestSmallCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	const size = 4 << 20
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, fmt.Sprint(size))
	scribble(t, rand.New(rand.NewPCG(1, 1)), path, size, 512, true)
	f, err := disk.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	i, err := qcow2.Open(f, qcow2.Options{Cache: qcow2.NewCache(2000)})
	if err != nil {
		t.Fatal(err)
	}
	same(t, i, asRaw(t, path))
}

func TestReadingAllocatesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "64M")
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 7 0 32M", "-c", "write -c -P 9 32M 64k", path)
	i := open(t, path)
	p := make([]byte, 256<<10)
	for name, offset := range map[string]int64{"data": 4096, "not allocated": 40 << 20, "compressed": 32<<20 + 512} {
		if n := testing.AllocsPerRun(20, func() {
			if _, err := i.ReadAt(p[:32<<10], offset); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: a read allocates %v times", name, n)
		}
	}
}

func FuzzImage(f *testing.F) {
	f.Add([]byte(image()))
	for _, change := range []func(memory) memory{put64(72, 16), put64(atL2, 1), put64(atL2, 1<<62|atData), put32(4, 2), put32(60, 2)} {
		f.Add([]byte(change(image())))
	}
	small := image()[:8192] // all tables in one small file
	put32(20, 9)(small)
	put64(24, 1<<15)(small)
	put64(40, 512)(small)
	put64(512, 1<<63|1024)(small)
	put64(1024, 1<<62|1536)(small)
	put32(60, 1)(small)
	put64(64, 2048)(small)
	f.Add([]byte(small))
	f.Fuzz(func(t *testing.T, b []byte) {
		none := func(qcow2.Reference) (disk.Device, error) { return memory("backing"), nil }
		i, err := qcow2.Open(memory(b), qcow2.Options{Open: none, Cache: qcow2.NewCache(1 << 16)})
		if err != nil {
			return
		}
		disks := []*qcow2.Image{i}
		all, _ := i.Snapshots()
		for _, s := range all[:min(len(all), 4)] {
			if d, err := i.At(s); err == nil {
				disks = append(disks, d)
			}
			_, _ = i.State(s)
		}
		p := make([]byte, 1<<16)
		for _, d := range disks {
			for _, offset := range []int64{0, 1, 4096, d.Size() / 2, d.Size() - 10} {
				n, err := d.ReadAt(p, offset)
				if n < 0 || n > len(p) || n < len(p) && err == nil {
					t.Fatalf("read at %#x: %d, %v", offset, n, err)
				}
			}
		}
	})
}

func Example() {
	i, err := qcow2.Open(image(), qcow2.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer i.Close()
	b := make([]byte, 17)
	if _, err := i.ReadAt(b, 0); err != nil {
		fmt.Println(err)
		return
	}
	info := i.Info()
	fmt.Printf("version %d, %d bytes in clusters of %d: %s\n", info.Version, i.Size(), info.ClusterSize, b)
	// Output: version 3, 262144 bytes in clusters of 65536: the first cluster
}

func ExampleOpenFile() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	m := image()
	put64(8, 512)(m)
	put32(16, 11)(m)
	copy(m[512:], "/etc/passwd")
	path := filepath.Join(dir, "disk.qcow2")
	if err := os.WriteFile(path, m, 0o600); err != nil {
		fmt.Println(err)
		return
	}
	_, err = qcow2.OpenFile(path, qcow2.Policy{})
	fmt.Println(errors.Is(err, qcow2.ErrOutside))
	// Output: true
}
