package microvm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/ram"
)

// mapping is a line of maps: size in KiB before what follows the address.
type mapping struct {
	kib   uint64
	gap   uint64 // in KiB, below the next
	perms string
	rest  string // offset dev inode path
	flags string
}

const none = "00000000 00:00 0"

// mapsOf lays mappings out one below the other, from the top of a process.
func mapsOf(t *testing.T, ms []mapping) ([]proc.Map, proc.Flags) {
	t.Helper()
	at := uint64(0x7ff000000000)
	var lines []string
	flags := proc.Flags{}
	for _, m := range ms {
		at -= m.gap << 10
		end := at
		at -= m.kib << 10
		lines = append([]string{fmt.Sprintf("%x-%x %s %s", at, end, m.perms, m.rest)}, lines...)
		flags[at] = " rd wr mr mw me " + m.flags + " "
	}
	maps, err := proc.ParseMaps(strings.Join(lines, "\n") + "\n")
	if err != nil {
		t.Fatal(err)
	}
	return maps, flags
}

const mib, gib = 1 << 10, 1 << 20 // in KiB

var (
	heap   = mapping{2 * mib, 64, "rw-p", none + " [heap]", "ac"}
	stack  = mapping{2 * mib, 0, "rw-p", none, "ac"}
	guard  = mapping{4, 0, "---p", none, ""}
	vcpu   = mapping{12, 0, "rw-s", "00000000 00:0e 9 anon_inode:kvm-vcpu:0", ""}
	binary = mapping{3 * mib, 0, "r-xp", "00000000 fe:00 77 /usr/bin/firecracker", ""}
	pmem   = mapping{8 * gib, 0, "rw-s", "00000000 fe:00 78 /srv/disk.img", "dd"}
	large  = mapping{700 * mib, 0, "rw-p", none, "ac"} // something that is not RAM
)

func anon(kib uint64) mapping { return mapping{kib, 0, "rw-p", none, "nr"} }

func TestFind(t *testing.T) {
	memfd := func(kib uint64, offset uint64, name string, inode int) mapping {
		return mapping{kib, 0, "rw-s", fmt.Sprintf("%08x 00:01 %d /memfd:%s (deleted)", offset, inode, name), "nr"}
	}
	snapshot := func(kib, offset uint64) mapping {
		return mapping{kib, 0, "rw-p", fmt.Sprintf("%08x fe:00 99 /srv/vm.mem", offset), "nr"}
	}
	for name, c := range map[string]struct {
		maps  []mapping
		size  uint64 // known, in KiB
		files []string
		want  []uint64 // sizes in KiB
		index []int    // which of maps, by their lower ends
	}{
		"one, known": {
			maps: []mapping{heap, anon(128 * mib), stack, guard, vcpu, binary}, size: 128 * mib,
			want: []uint64{128 * mib}, index: []int{1},
		},
		"one, unknown": {
			maps: []mapping{heap, anon(128 * mib), stack, guard, vcpu, binary},
			want: []uint64{128 * mib}, index: []int{1},
		},
		"unknown, beside something larger": {
			maps: []mapping{large, heap, anon(128 * mib), stack, guard, vcpu},
			want: []uint64{128 * mib}, index: []int{2},
		},
		"known, beside something larger": {
			maps: []mapping{large, heap, anon(128 * mib), stack}, size: 128 * mib,
			want: []uint64{128 * mib}, index: []int{2},
		},
		"two that became one": {
			maps: []mapping{heap, anon(4 * gib), stack}, size: 4 * gib,
			want: []uint64{4 * gib}, index: []int{1},
		},
		"two with a guard between": {
			maps: []mapping{heap, anon(3 * gib), guard, anon(1 * gib), stack}, size: 4 * gib,
			want: []uint64{3 * gib, 1 * gib}, index: []int{1, 3},
		},
		"two, unknown": {
			maps: []mapping{heap, anon(1 * gib), guard, anon(3 * gib), stack},
			want: []uint64{3 * gib, 1 * gib}, index: []int{3, 1},
		},
		"two of Firecracker before 1.13": {
			maps: []mapping{heap, anon(3*gib + 256*mib), guard, anon(768 * mib), stack}, size: 4 * gib,
			want: []uint64{3*gib + 256*mib, 768 * mib}, index: []int{1, 3},
		},
		"one memfd, continued": {
			maps: []mapping{memfd(1*gib, 3<<30, "guest_mem", 5), guard, memfd(3*gib, 0, "guest_mem", 5), anon(8 * gib)}, size: 4 * gib,
			want: []uint64{3 * gib, 1 * gib}, index: []int{2, 0},
		},
		"a memfd for each": {
			maps: []mapping{memfd(3*gib, 0, "ch_ram", 5), guard, memfd(1*gib, 0, "ch_ram", 6), pmem},
			want: []uint64{3 * gib, 1 * gib}, index: []int{0, 2},
		},
		"huge pages": {
			maps: []mapping{heap, {256 * mib, 0, "rw-p", "00000000 00:10 5 /anon_hugepage (deleted)", "nr ht"}, stack},
			want: []uint64{256 * mib}, index: []int{1},
		},
		"pmem is larger": {
			maps: []mapping{pmem, heap, {512 * mib, 0, "rw-p", none, "nr dd"}, stack},
			want: []uint64{512 * mib}, index: []int{2},
		},
		"a snapshot with holes of a balloon": {
			maps: []mapping{heap, snapshot(28*mib, 100<<20), anon(36 * mib), snapshot(64*mib, 0), stack}, size: 128 * mib,
			want: []uint64{128 * mib}, index: []int{3},
		},
		"a snapshot below memory of the monitor's own": {
			maps: []mapping{heap, stack, snapshot(3*gib, 0), large, snapshot(1*gib, 3<<30), guard}, size: 4 * gib,
			want: []uint64{3 * gib, 1 * gib}, index: []int{2, 4},
		},
		"a snapshot with a balloon's hole at its end": {
			maps: []mapping{heap, guard, anon(36 * mib), snapshot(92*mib, 0), stack}, size: 128 * mib,
			want: []uint64{128 * mib}, index: []int{3},
		},
		"a snapshot, unknown": {
			maps: []mapping{heap, snapshot(128*mib, 0), stack},
			want: []uint64{128 * mib}, index: []int{1},
		},
		"a zone of a file": {
			maps: []mapping{pmem, {512 * mib, 0, "rw-s", "00000000 fe:00 79 /srv/ram", "dd"}, stack}, files: []string{"/srv/ram"},
			want: []uint64{512 * mib}, index: []int{1},
		},
		"no machine yet": {maps: []mapping{heap, stack, guard, binary}},
	} {
		maps, flags := mapsOf(t, c.maps)
		found, guess := find(regions(maps, c.files), c.size<<10, func() proc.Flags { return flags })
		if guess != (c.size == 0 && (len(found) == 0 || found[0].kind != named)) {
			t.Errorf("%s: guessed: %v", name, guess)
		}
		var sizes []uint64
		for n, r := range found {
			sizes = append(sizes, r.size()>>10)
			if n < len(c.index) {
				if want := maps[len(maps)-1-c.index[n]].Start; r.start != want {
					t.Errorf("%s: region %d at %#x, want %#x", name, n, r.start, want)
				}
			}
		}
		if d := cmp.Diff(c.want, sizes); d != "" {
			t.Errorf("%s: sizes in KiB: %s", name, d)
		}
	}
}

// TestFindGrown: RAM that has become one mapping with something else.
func TestFindGrown(t *testing.T) {
	const ram256 = 256 << 20
	for name, c := range map[string]struct {
		maps string
		size uint64
		want uint64
	}{
		"something below":       {"7f00000ff000-7f0010100000 rw-p 00000000 00:00 0\n", ram256, 0x7f0000100000},
		"below, both on a page": {"7f0000000000-7f0010200000 rw-p 00000000 00:00 0\n", ram256, 0x7f0000200000},
		"something above":       {"7f0000200000-7f0010221000 rw-p 00000000 00:00 0\n", ram256, 0x7f0000200000},
		// Seen in a Firecracker that was built with glibc.
		"an arena above":          {"7f0000000000-7f0010021000 rw-p 00000000 00:00 0\n7f0010021000-7f0014000000 ---p 00000000 00:00 0\n", ram256, 0x7f0000000000},
		"an arena above, unknown": {"7f0000000000-7f0010021000 rw-p 00000000 00:00 0\n7f0010021000-7f0014000000 ---p 00000000 00:00 0\n", 0, 0x7f0000000000},
	} {
		maps, err := proc.ParseMaps(c.maps)
		if err != nil {
			t.Fatal(err)
		}
		found, _ := find(regions(maps, nil), c.size, func() proc.Flags { return proc.Flags{maps[0].Start: " nr "} })
		if d := cmp.Diff([]ram.Block{{HVA: c.want, Size: ram256}}, blocks(found)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	// An arena alone is none, however large.
	maps, err := proc.ParseMaps("7f0010000000-7f0013ff0000 rw-p 00000000 00:00 0\n7f0013ff0000-7f0014000000 ---p 00000000 00:00 0\n")
	if err != nil {
		t.Fatal(err)
	}
	if found, _ := find(regions(maps, nil), 0, func() proc.Flags { return nil }); found != nil {
		t.Errorf("an arena is RAM: %+v", found)
	}
}

func FuzzFind(f *testing.F) {
	f.Add("7f0000000000-7f0010000000 rw-p 00000000 00:00 0 \n7f0010000000-7f0020000000 rw-p 00001000 fe:00 3 /x\n", uint64(1<<28))
	f.Add("7f0000000000-7f00c0000000 rw-p 00000000 00:00 0 \n", uint64(0))
	f.Fuzz(func(t *testing.T, text string, size uint64) {
		maps, _ := proc.ParseMaps(text)
		found, _ := find(regions(maps, nil), size, func() proc.Flags { return nil })
		var sizes []uint64
		for _, r := range found {
			if r.end <= r.start {
				t.Fatalf("region %+v", r)
			}
			sizes = append(sizes, r.size())
		}
		if len(sizes) > 0 {
			checkLayouts(t, firecracker, sizes)
		}
	})
}
