package xfs

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
)

const imageSize = 320 << 20 // --unsupported keeps mkfs.xfs from making logs of 64 MiB, which it fills

// options are those that change the format; the slow test has all of them together with all block sizes.
var options = []string{
	"",
	"-b size=512 -m crc=0",
	"-b size=1k",
	"-b size=2k",
	"-b size=64k",
	"-m crc=0",
	"-m crc=0 -n ftype=0",
	"-m crc=0 -n ftype=1",
	"-m crc=0 -i projid32bit=0,attr=1 -l lazy-count=0,version=1",
	"-m crc=0 -i size=256",
	"-m crc=0 -n version=ci",
	"-n size=64k",
	"-n size=16k -b size=1k",
	"-n size=8k -m crc=0 -b size=512",
	"-s size=4096",
	"-s size=4096 -b size=4096 -i size=2048",
	"-i size=1024",
	"-i nrext64=1",
	"-i nrext64=0",
	"-i sparse=0 -m bigtime=0,inobtcount=0,finobt=0,reflink=0",
	"-m rmapbt=1,reflink=1",
	"-m bigtime=1,inobtcount=1,finobt=1,rmapbt=1",
	"-d agcount=17",
	"-l su=256k",
	"-d su=64k,sw=4",
}

// TestOptions compares the whole tree, and what xfs_db says of each inode, with images of all options.
func TestOptions(t *testing.T) {
	need(t, "mkfs.xfs", "xfs_db")
	names, size := 3000, int64(imageSize)
	if os.Getenv("OUTSIGHT_SLOW") == "1" {
		names, size = 100_000, 1<<30
	}
	for _, o := range options {
		t.Run(o, func(t *testing.T) {
			t.Parallel()
			want := sampleTree(names)
			if !strings.Contains(o, "crc=0") { // mkfs.xfs 6.1 writes those that the kernel calls corrupted: TestGuestXFS has them
				maps.DeleteFunc(want, func(_ string, it item) bool { return len(it.target) > 300 })
			}
			image := mkfs(t, want, size, strings.Fields(o)...)
			fs := openImage(t, image)
			got, nodes := walk(t, fs)
			compareTrees(t, got, want)
			compareInodes(t, image, fs, nodes)
			compareNodes(t, fs, nodes)
			if notes := fs.Info().Notes; len(notes) != 0 {
				t.Errorf("notes of a file system that is new: %q", notes)
			}
		})
	}
}

// compareNodes sees that Nodes has exactly the inodes that the tree has, in order.
func compareNodes(t *testing.T, fs *FS, nodes map[string]disk.Node) {
	t.Helper()
	want := map[uint64]bool{}
	for _, n := range nodes {
		want[n.Stat().Inode] = true
	}
	last := uint64(0)
	for n, err := range fs.Nodes() {
		if err != nil {
			t.Fatal(err)
		}
		s := n.Stat()
		if s.Inode <= last {
			t.Errorf("inode %d after %d", s.Inode, last)
		}
		if last = s.Inode; !s.Deleted.IsZero() {
			continue
		}
		if !want[s.Inode] && s.Size != 0 || s.Flags&disk.Unlinked != 0 { // the bitmap and the summary of an absent realtime device are empty files
			t.Errorf("inode %d is not in the tree: %+v", s.Inode, s)
		}
		delete(want, s.Inode)
	}
	if len(want) > 0 {
		t.Errorf("%d inodes are not among all", len(want))
	}
}

var dbField = regexp.MustCompile(`(?m)^(?:v3|core|u3|u)\.([\w.]+) = (.*)$`)

// compareInodes compares the metadata of some inodes with what xfs_db prints of them.
func compareInodes(t *testing.T, image string, fs *FS, nodes map[string]disk.Node) {
	t.Helper()
	var script strings.Builder
	var asked []disk.Stat
	for p, n := range nodes {
		if strings.HasPrefix(p, "many/") && !strings.HasSuffix(p, "77") {
			continue
		}
		asked = append(asked, n.Stat())
		fmt.Fprintf(&script, "inode %d\nprint core\n", n.Stat().Inode)
		if fs.sb.crc {
			script.WriteString("print v3\n")
		}
		script.WriteString("ring 99\n")
	}
	out := command(t, script.String(), "xfs_db", "-r", image)
	parts := strings.Split(out, "core.magic = ")
	if len(parts) != len(asked)+1 {
		t.Fatalf("xfs_db has %d inodes of %d: %.300s", len(parts)-1, len(asked), out)
	}
	for i, s := range asked {
		fields := map[string]string{}
		for _, m := range dbField.FindAllStringSubmatch(parts[i+1], -1) {
			fields[m[1]] = strings.Trim(m[2], `"`)
		}
		blocks, err := strconv.ParseInt(fields["nblocks"], 0, 64)
		if err != nil {
			t.Fatalf("inode %d: %v in %q", s.Inode, err, fields)
		}
		const clock = "Mon Jan _2 15:04:05 2006"
		want := map[string]string{
			"mode":    fmt.Sprintf("0%o", s.Mode),
			"uid":     fmt.Sprint(s.UID),
			"gid":     fmt.Sprint(s.GID),
			"size":    fmt.Sprint(s.Size),
			"nlinkv2": fmt.Sprint(s.Links),
			"gen":     fmt.Sprint(s.Generation),
			"nblocks": fmt.Sprint(s.Blocks * 512 / int64(fs.sb.blockSize)),
		}
		if s.Blocks*512 != blocks*int64(fs.sb.blockSize) {
			t.Errorf("inode %d: %d sectors, xfs_db has %d blocks", s.Inode, s.Blocks, blocks)
		}
		for k, w := range want {
			if fields[k] != w {
				t.Errorf("inode %d: %s is %s, xfs_db has %s", s.Inode, k, w, fields[k])
			}
		}
		for k, at := range map[string]string{"mtime.sec": s.Modified.Local().Format(clock), "crtime.sec": s.Born.Local().Format(clock)} {
			if have, ok := fields[k]; ok && have != at || !ok && k == "mtime.sec" {
				t.Errorf("inode %d: %s is %s, xfs_db has %s", s.Inode, k, at, have)
			}
		}
	}
}

// TestInfo compares what the superblock says with xfs_db.
func TestInfo(t *testing.T) {
	image := mkfs(t, tree{"": {mode: disk.TypeDir | 0o755}}, imageSize, "-L", "twelve-bytes", "-m", "rmapbt=1,uuid=11223344-5566-7788-99aa-bbccddeeff00", "-i", "nrext64=1")
	fs := openImage(t, image)
	info := fs.Info()
	if info.Kind != "xfs" || info.Label != "twelve-bytes" || info.UUID != "11223344-5566-7788-99aa-bbccddeeff00" || info.Size != imageSize ||
		info.BlockSize != 4096 || len(info.Notes) != 0 {
		t.Errorf("%+v", info)
	}
	for _, f := range strings.Fields("v5 crc ftype finobt rmapbt sparse bigtime nrext64") {
		if !slices.Contains(info.Features, f) {
			t.Errorf("feature %s is not among %q", f, info.Features)
		}
	}
	out := command(t, "sb 0\nprint fdblocks icount ifree dblocks\n", "xfs_db", "-r", image)
	var v [4]int64
	for i, line := range strings.Fields(strings.NewReplacer("=", " ", "fdblocks", "", "icount", "", "ifree", "", "dblocks", "").Replace(strings.ReplaceAll(out, "xfs_db>", ""))) {
		v[i], _ = strconv.ParseInt(line, 10, 64)
	}
	if used, inodes := (v[3]-v[0])*4096, uint64(v[1]-v[2]); used != info.Used || inodes != info.Inodes {
		t.Errorf("%d bytes and %d inodes in use, xfs_db has %d and %d", info.Used, info.Inodes, used, inodes)
	}
}
