package cached_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/cached"
	"github.com/outsight-vmi/outsight/disk/ext4"
	"github.com/outsight-vmi/outsight/disk/live"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// fill makes files that are on the disk, and changes that are in memory alone.
const fill = `set -e
echo 0 >/proc/sys/vm/dirty_writeback_centisecs
echo 360000 >/proc/sys/vm/dirty_expire_centisecs
mkdir -p /mnt && mount -t ext4 -o commit=300 /dev/%[1]s /mnt
mkdir -p /mnt/old/deep && cd /mnt
for i in $(seq 1 40); do echo $i >old/$i; done
dd if=/dev/urandom of=old/big bs=64k count=30 2>/dev/null
dd if=/dev/urandom of=old/gone bs=64k count=3 2>/dev/null
sync; echo 3 >/proc/sys/vm/drop_caches
mkdir new && for i in $(seq 1 60); do echo new $i >new/name-$i; done
echo more >>old/7 && dd if=/dev/urandom of=old/big bs=64k seek=10 count=2 conv=notrunc 2>/dev/null
dd if=/dev/urandom of=new/big bs=64k count=20 2>/dev/null
dd if=/dev/urandom of=new/sparse bs=4k seek=1000 count=1 2>/dev/null
rm old/gone && mv old/8 new/moved && ln -s ../old new/link && ln old/9 new/hard && ln -s /$(seq 1 60 | tr '\n' x) new/long && chmod 4711 old/10 && chown 7:8 old/11 && : >old/12
`

var options = [][]string{{"-b", "4096"}, {"-b", "1024", "-O", "^metadata_csum"}}

// TestGuestUnwritten reads files that were never written to the disk.
func TestGuestUnwritten(t *testing.T) {
	kernels := []string{lab.DefaultKernel}
	if os.Getenv("OUTSIGHT_SLOW") != "" {
		kernels = []string{"5.10", "6.1", "6.12", "7.2"}
	}
	for _, k := range kernels {
		t.Run(k, func(t *testing.T) {
			g := labtest.Up(t, lab.Options{Name: "unwritten-" + k, Kernel: k, Modules: []string{"virtio_pci", "virtio_blk", "crc32c_generic", "ext4"}, QEMUArgs: disks(t)})
			for n, o := range options {
				t.Run(strings.Join(o, ""), func(t *testing.T) { unwritten(t, g, "lab:"+g.Name, n) })
			}
		})
	}
}

// disks are arguments of a QEMU that has file systems of these options.
func disks(t *testing.T) (args []string) {
	t.Helper()
	mke2fs, err := exec.LookPath("/usr/sbin/mke2fs")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("mke2fs: make install-deps installs it")
		}
		t.Skip("mke2fs is unavailable")
	}
	for n, o := range options {
		image := filepath.Join(t.TempDir(), fmt.Sprintf("disk%d", n))
		if out, err := exec.Command(mke2fs, append(append([]string{"-q", "-F", "-t", "ext4"}, o...), image, "64M")...).CombinedOutput(); err != nil {
			t.Fatalf("mke2fs: %v\n%s", err, out)
		}
		args = append(args, "-drive", fmt.Sprintf("if=none,id=data%d,format=raw,file=%s", n, image), "-device", fmt.Sprintf("virtio-blk-pci,vectors=0,drive=data%d", n)) // 5.10 has QEMU fail in MSI-X
	}
	return args
}

func unwritten(t *testing.T, g *lab.Guest, target string, n int) {
	labtest.Output(t, g, fmt.Sprintf(fill, fmt.Sprintf("vd%c", 'a'+n)))
	defer labtest.Output(t, g, "cd / && umount /mnt")
	inside := map[string]string{}
	for line := range strings.Lines(labtest.Output(t, g, `cd /mnt && find . -exec stat -c '%n %f %u %g %h %s %Y' {} \; && echo sums && find . -type f -exec sha256sum {} \; && find . -type l -exec sh -c 'echo target $1 $(readlink $1)' _ {} \;`)) {
		first, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if first == "target" {
			name, target, _ := strings.Cut(rest, " ")
			inside["target of "+strings.TrimPrefix(name, ".")] = target
		} else if len(first) == 64 {
			inside["sum of "+strings.TrimPrefix(strings.TrimSpace(rest), ".")] = first
		} else if rest != "" {
			inside[strings.TrimPrefix(first, ".")] = rest
		}
	}
	if len(inside) < 200 {
		t.Fatalf("the guest says %d things", len(inside))
	}
	s, err := guest.Open(t.Context(), target, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	drives, err := live.Drives(t.Context(), s.Machine().Control.Monitor)
	if err != nil {
		t.Fatal(err)
	}
	moment, err := live.Open(t.Context(), target, s.Machine(), drives[n:n+1])
	if err != nil {
		t.Fatal(err)
	}
	defer moment.Close()
	l, err := s.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	onDisk, err := ext4.Open(moment.Devices[0])
	if err != nil {
		t.Fatal(err)
	}
	f, err := cached.Over(t.Context(), l.Linux, l.Machine.Memory, moment.Devices[0], onDisk)
	if err != nil {
		t.Fatal(err)
	}
	got := told(t, f)
	for name, want := range inside {
		if strings.HasSuffix(name, "lost+found") {
			continue
		}
		if got[name] != want {
			t.Errorf("%s: %q, not %q", name, got[name], want)
		}
	}
	for name := range got {
		if _, ok := inside[name]; !ok {
			t.Errorf("%s: not in the guest", name)
		}
	}
	// Without memory it must look otherwise, or nothing was tested.
	if _, err := disk.Lookup(onDisk, "/new/name-1", true); !errors.Is(err, disk.ErrNotFound) {
		t.Errorf("the guest has written it out: %v", err)
	}
}

// told is what a file system has, as the guest says it.
func told(t *testing.T, f disk.FileSystem) map[string]string {
	t.Helper()
	root, err := f.Root()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for file, err := range disk.Walk(f, "/", root) {
		if err != nil {
			t.Errorf("%s: %v", file.Path, err)
			continue
		}
		if file.Path == "/lost+found" {
			continue
		}
		name := strings.TrimSuffix(file.Path, "/")
		s := file.Node.Stat()
		got[name] = fmt.Sprintf("%x %d %d %d %d %d", s.Mode, s.UID, s.GID, s.Links, s.Size, s.Modified.Unix())
		if s.Type() == disk.TypeLink {
			target, err := file.Node.Target()
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			got["target of "+name] = target
		}
		if s.Type() != disk.TypeRegular {
			continue
		}
		c, err := file.Node.Content()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(c, 0, c.Size())); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got["sum of "+name] = fmt.Sprintf("%x", h.Sum(nil))
		end := int64(0)
		for e, err := range c.Extents() {
			if err != nil || e.Logical < end || e.Length <= 0 || e.Logical+e.Length > c.Size() {
				t.Errorf("%s: extent %+v behind %d, of %d bytes: %v", name, e, end, c.Size(), err)
				break
			}
			end = e.Logical + e.Length
		}
	}
	return got
}
