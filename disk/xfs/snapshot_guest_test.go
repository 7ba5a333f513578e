package xfs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// TestGuestSnapshots reads a file system at any moment of a guest that writes to it, with a log so small that it goes round and round, and
// compares with what the guest's kernel makes of the same moment.
func TestGuestSnapshots(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") != "1" {
		t.Skip("slow: OUTSIGHT_SLOW=1 runs it")
	}
	labtest.NeedTool(t, "xfs_logprint")
	for name, options := range map[string]string{
		"v5": "-m rmapbt=1,reflink=1", "v4": "-m crc=0 -l version=1", "v4-1k": "-m crc=0 -b size=1k", "v5-stripes": "-l su=64k",
	} {
		t.Run(name, func(t *testing.T) { snapshots(t, options) })
	}
}

func snapshots(t *testing.T, options string) {
	const count, size = 8, 96 << 20
	work := mkfs(t, nil, size, strings.Fields(options)...)
	o := lab.Options{
		Memory: 512 << 20, SMP: 2, Modules: []string{"virtio_pci", "virtio_blk", "crc32c_generic", "xfs"},
		Files: map[string]string{"/disktree": guests.Program(t, "disktree")},
	}
	output := emptyFile(t, outputSize)
	images := []string{output, work}
	for range count {
		images = append(images, emptyFile(t, size))
	}
	for i, path := range images {
		o.QEMUArgs = append(o.QEMUArgs, "-drive", fmt.Sprintf("if=none,id=xfs%d,format=raw,file=%s", i, path),
			"-device", fmt.Sprintf("virtio-blk-pci,vectors=0,drive=xfs%d,addr=%#x", i, 0x10+i))
	}
	g := labtest.Up(t, o)
	labtest.Output(t, g, "mkdir -p /mnt /snapshot; mount -t xfs -o noatime /dev/vdb /mnt; (/disktree churn /mnt >/run/churn 2>&1 &)")
	monitor, err := qmp.Dial(t.Context(), g.QMP())
	if err != nil {
		t.Fatal(err)
	}
	defer monitor.Close()
	for i := range count {
		time.Sleep(time.Duration(4000+i*700) * time.Millisecond)
		if err := monitor.Execute(t.Context(), "stop", nil, nil); err != nil {
			t.Fatal(err)
		}
		copyFile(t, work, images[2+i])
		if err := monitor.Execute(t.Context(), "cont", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	labtest.Output(t, g, "killall disktree; cat /run/churn >&2; umount /mnt; ! [ -s /run/churn ]")
	for i := range count {
		before := emptyFile(t, size)
		copyFile(t, images[2+i], before)
		fs := openImage(t, before)
		compareLog(t, fs, before)
		labtest.Output(t, g, fmt.Sprintf("mount -t xfs -o ro,noatime,nouuid /dev/vd%c /mnt", 'c'+i))
		want := guestList(t, g, output)
		labtest.Output(t, g, "umount /mnt")
		got := map[string]disk.Node{}
		collect(t, fs, "", fs.sb.rootInode, got)
		wrong := 0
		for _, w := range want {
			p := strings.TrimPrefix(string(w.Path), ".")
			what := "is missing"
			if n, ok := got[p]; ok {
				what = difference(n, w, clean)
			}
			if what != "" {
				if wrong++; wrong < 5 {
					t.Errorf("snapshot %d: %q: %s", i, p, what)
				}
			}
			delete(got, p)
		}
		if len(got) > 0 || wrong > 0 {
			t.Errorf("snapshot %d: %d files too many, %d wrong", i, len(got), wrong)
		}
		t.Logf("snapshot %d: %d files, %q", i, len(want), fs.Info().Notes)
	}
}

var logState = regexp.MustCompile(`log tail: (\d+) head: (\d+) state: <(\w+)>`)

// compareLog compares where a log begins and ends with what xfs_logprint finds.
func compareLog(t *testing.T, fs *FS, image string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "xfs_logprint", "-t", image).CombinedOutput()
	m := logState.FindSubmatch(out)
	if m == nil {
		t.Fatalf("xfs_logprint: %v: %.500s", err, out)
	}
	log, err := fs.newLogReader()
	if err != nil {
		t.Fatal(err)
	}
	from, to, isDirty, err := log.dirty()
	if got := fmt.Sprint(from, to%log.size); isDirty && (got != string(m[1])+" "+string(m[2]) || string(m[3]) != "DIRTY") || err != nil {
		t.Errorf("the log goes from %d to %d, and xfs_logprint has it from %s to %s (%s); %v", from, to, m[1], m[2], m[3], err)
	}
	t.Logf("the log of %d sectors goes from %d to %d", log.size, from, to)
}

func emptyFile(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(size)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// copyFile copies in place: the guest has the file open.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
