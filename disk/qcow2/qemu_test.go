package qcow2_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk/qcow2"
)

var variants = []struct {
	name, options string
	cluster, size int64
	compress      bool
}{
	{"version 2", "compat=0.10", 64 << 10, 20<<20 + 512, true},
	{"version 2 in clusters of 512 bytes", "compat=0.10,cluster_size=512", 512, 3<<20 + 1536, true},
	{"version 3", "compat=1.1", 64 << 10, 20<<20 + 512, true},
	{"clusters of 512 bytes", "cluster_size=512", 512, 3<<20 + 512, true},
	{"clusters of 4 KiB", "cluster_size=4k", 4 << 10, 18 << 20, true},
	{"clusters of 2 MiB", "cluster_size=2M", 2 << 20, 33<<20 + 4096, true},
	{"zstd", "compression_type=zstd", 64 << 10, 20 << 20, true},
	{"zstd in clusters of 2 MiB", "compression_type=zstd,cluster_size=2M", 2 << 20, 33 << 20, true},
	{"zstd in clusters of 512 bytes", "compression_type=zstd,cluster_size=512", 512, 3 << 20, true},
	{"subclusters", "extended_l2=on", 64 << 10, 20<<20 + 512, true},
	{"subclusters of 512 bytes", "extended_l2=on,cluster_size=16k", 16 << 10, 20 << 20, true},
	{"subclusters of 64 KiB", "extended_l2=on,cluster_size=2M,compression_type=zstd", 2 << 20, 33 << 20, true},
	{"lazy refcounts of 1 bit", "lazy_refcounts=on,refcount_bits=1", 64 << 10, 8 << 20, true},
	{"preallocated", "preallocation=metadata", 64 << 10, 20<<20 + 512, true},
	{"preallocated subclusters", "preallocation=metadata,extended_l2=on", 64 << 10, 20 << 20, true},
	{"data file", "data_file=DIR/data", 64 << 10, 20<<20 + 512, false},
	{"raw data file", "data_file=DIR/data,data_file_raw=on", 64 << 10, 20<<20 + 512, false},
	{"data file with subclusters", "data_file=DIR/data,extended_l2=on", 64 << 10, 20 << 20, false},
}

func TestReadsWhatQEMUReads(t *testing.T) {
	for n, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(uint64(n), 1))
			dir := t.TempDir()
			image := filepath.Join(dir, "disk.qcow2")
			run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", strings.ReplaceAll(v.options, "DIR", dir), image, fmt.Sprint(v.size))
			scribble(t, rnd, image, v.size, v.cluster, v.compress)
			i := open(t, image)
			same(t, i, asRaw(t, image))
			compareMap(t, i, image)
			info := i.Info()
			if info.ClusterSize != v.cluster || info.Subclusters != strings.Contains(v.options, "extended_l2=on") ||
				(info.DataFile != "") != strings.Contains(v.options, "data_file") || len(info.Notes) != 0 {
				t.Errorf("the image says of itself: %+v", info)
			}
		})
	}
}

// compareMap compares where qemu-img map says that things are.
func compareMap(t *testing.T, i *qcow2.Image, image string) {
	t.Helper()
	var all []struct {
		Start, Length, Offset           int64
		Depth                           int
		Present, Zero, Data, Compressed bool
	}
	if err := json.Unmarshal([]byte(run(t, "qemu-img", "map", "--output=json", image)), &all); err != nil {
		t.Fatal(err)
	}
	kinds := map[qcow2.Kind]int{}
	for _, m := range all {
		for at := m.Start; at < m.Start+m.Length; {
			r, err := i.Map(at, m.Start+m.Length-at)
			if err != nil {
				t.Fatal(err)
			}
			kinds[r.Kind]++
			want := qcow2.Unallocated
			switch {
			case m.Compressed:
				want = qcow2.Compressed
			case m.Data:
				want = qcow2.Data
			case m.Zero && m.Present:
				want = qcow2.Zero
			}
			if r.Kind != want || want == qcow2.Data && r.Host != m.Offset+at-m.Start || r.Length <= 0 {
				t.Errorf("%#x: %+v, and qemu-img map says %+v", at, r, m)
				return
			}
			at += r.Length
		}
	}
	if kinds[qcow2.Data] == 0 || kinds[qcow2.Zero]+kinds[qcow2.Unallocated] == 0 {
		t.Errorf("the image has no data, or nothing but data: %v", kinds)
	}
}

func TestBackingChain(t *testing.T) {
	for n, v := range []struct {
		name, base, format string
		sizes              [3]int64 // base, middle, top
	}{
		{"raw base that is shorter", "raw", "raw", [3]int64{5<<20 + 512, 12 << 20, 20 << 20}},
		{"raw base that is longer", "raw", "raw", [3]int64{20 << 20, 12 << 20, 9<<20 + 512}},
		{"qcow2 base", "qcow2", "qcow2", [3]int64{12 << 20, 5 << 20, 20 << 20}},
		{"format that is not written down", "qcow2", "", [3]int64{12 << 20, 12 << 20, 12 << 20}},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(uint64(n), 2))
			dir := t.TempDir()
			path := func(name string) string { return filepath.Join(dir, name) }
			run(t, "qemu-img", "create", "-q", "-f", "qcow2", path("seed"), fmt.Sprint(v.sizes[0]))
			scribble(t, rnd, path("seed"), v.sizes[0], 64<<10, true)
			run(t, "qemu-img", "convert", "-O", v.base, path("seed"), path("base"))
			run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "base", "-F", v.base, path("middle"), fmt.Sprint(v.sizes[1]))
			scribble(t, rnd, path("middle"), v.sizes[1], 4<<10, true)
			run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", path("middle"), "-F", "qcow2", path("top"), fmt.Sprint(v.sizes[2]))
			scribble(t, rnd, path("top"), v.sizes[2], 64<<10, true)
			if v.format == "" {
				dropFormat(t, path("middle"))
			}
			i := open(t, path("top"))
			same(t, i, asRaw(t, path("top")))
			if got := i.Info().BackingFile; got != path("middle") {
				t.Errorf("backing file %q", got)
			}
		})
	}
}

// dropFormat takes the backing format out of an image, as old ones do not have it.
func dropFormat(t *testing.T, image string) {
	t.Helper()
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(b[:4096]), "\xe2\x79\x2a\xca")
	if at < 0 {
		t.Fatal("the image has no backing format")
	}
	b[at] = 0 // an extension that nobody knows
	if err := os.WriteFile(image, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshots(t *testing.T) {
	for n, options := range []string{"compat=0.10", "compat=1.1", "extended_l2=on,compression_type=zstd", "cluster_size=512"} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			const size = 6 << 20
			rnd := rand.New(rand.NewPCG(uint64(n), 3))
			image := filepath.Join(t.TempDir(), "disk.qcow2")
			run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, fmt.Sprint(size))
			cluster := open(t, image).Info().ClusterSize
			var want [][]byte
			for _, name := range []string{"before", "größer", "2"} {
				scribble(t, rnd, image, size, cluster, name == "before")
				want = append(want, asRaw(t, image))
				run(t, "qemu-img", "snapshot", "-c", name, image)
				if options != "compat=0.10" && name != "2" { // QEMU does not resize a v2 image with snapshots
					run(t, "qemu-img", "resize", "-q", image, "+1M")
				}
			}
			scribble(t, rnd, image, size, cluster, false)

			i := open(t, image)
			same(t, i, asRaw(t, image))
			all, err := i.Snapshots()
			if err != nil {
				t.Fatal(err)
			}
			compareSnapshots(t, all, image)
			for n, s := range all {
				d, err := i.At(s)
				if err != nil {
					t.Fatal(err)
				}
				same(t, d, want[n])
				if _, err := i.State(s); err == nil || !strings.Contains(err.Error(), "no state") {
					t.Errorf("state of a snapshot of a disk: %v", err)
				}
			}
			if s, err := i.Snapshot("2"); err != nil || s.Name != "größer" { // ids come first
				t.Errorf("snapshot 2 is %+v, %v", s, err)
			}
			if _, err := i.Snapshot("none"); err == nil || !strings.Contains(err.Error(), `"none"`) {
				t.Errorf("a snapshot that there is not: %v", err)
			}
		})
	}
}

func compareSnapshots(t *testing.T, got []qcow2.Snapshot, image string) {
	t.Helper()
	var info struct {
		Snapshots []struct {
			ID, Name  string
			DateSec   int64 `json:"date-sec"`
			DateNsec  int   `json:"date-nsec"`
			StateSize int64 `json:"vm-state-size"`
			ClockSec  int64 `json:"vm-clock-sec"`
		}
	}
	if err := json.Unmarshal([]byte(run(t, "qemu-img", "info", "--output=json", image)), &info); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(info.Snapshots) {
		t.Fatalf("%d snapshots, and qemu-img info has %d", len(got), len(info.Snapshots))
	}
	for n, want := range info.Snapshots {
		s := got[n]
		if s.ID != want.ID || s.Name != want.Name || s.Time.Unix() != want.DateSec || s.Time.Nanosecond() != want.DateNsec ||
			s.StateSize != want.StateSize || int64(s.Clock.Seconds()) != want.ClockSec {
			t.Errorf("snapshot %+v, and qemu-img info says %+v", s, want)
		}
	}
}

func TestStateOfSnapshot(t *testing.T) {
	image := filepath.Join(t.TempDir(), "disk.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", image, "10M")
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip(err)
	}
	c := exec.Command("qemu-system-x86_64", "-machine", "isapc", "-accel", "tcg", "-m", "16", "-S", "-nodefaults", "-display", "none",
		"-drive", "file="+image+",format=qcow2,if=none,id=d", "-monitor", "stdio")
	c.Stdin = strings.NewReader("savevm moment\nquit\n")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("qemu: %v\n%s", err, out)
	}
	i := open(t, image)
	all, err := i.Snapshots()
	if err != nil || len(all) != 1 {
		t.Fatalf("snapshots: %v, %v", all, err)
	}
	compareSnapshots(t, all, image)
	state, err := i.State(all[0])
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, state.Size())
	if _, err := state.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(b), "QEVM") || !strings.Contains(string(b), "pc.ram") {
		t.Errorf("the state begins with %q", b[:64])
	}
}
