package md_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/md"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// A kernel makes arrays, writes into them and says what is in them. A RAID 1 loses a member meanwhile.
const makeArrays = `
n=0
for v in 0.90 1.0 1.1 1.2; do for l in linear 0 1; do
	[ $v$l != 0.900 ] || continue # mdadm does not make these
	a=/dev/vd$(echo abcdefghijklmnopqrstuvwxyz | cut -c$((n+1))) b=/dev/vd$(echo abcdefghijklmnopqrstuvwxyz | cut -c$((n+2)))
	mdadm --create /dev/md$n --run --assume-clean --metadata=$v --level=$l --raid-devices=2 $a $b >/dev/null 2>/tmp/err </dev/null || { { cat /tmp/err; ls /dev/vd* /dev/md* /sys/block; } >&2; exit 1; }
	dd if=/dev/urandom of=/dev/md$n bs=64k 2>/dev/null; sync
	if [ $l = 1 ] && [ $v != 1.0 ]; then
		mdadm /dev/md$n --fail $a >/dev/null 2>&1
		dd if=/dev/urandom of=/dev/md$n bs=64k count=9 conv=notrunc 2>/dev/null; sync
	fi
	echo $v $l $(blockdev --getsize64 /dev/md$n) $(sha256sum </dev/md$n)
	mdadm --stop /dev/md$n >/dev/null 2>&1
	n=$((n+2))
done; done`

func TestGuestArrays(t *testing.T) {
	const count = 22
	dir := t.TempDir()
	var paths, args []string
	for n := range count {
		path := filepath.Join(dir, fmt.Sprint(n))
		if err := os.WriteFile(path, make([]byte, 3<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		paths, args = append(paths, path), append(args, "-drive", "if=virtio,format=raw,cache=unsafe,file="+path)
	}
	g := labtest.Up(t, lab.Options{
		Kernel: "6.1", QEMUArgs: args, Modules: []string{"virtio_pci", "virtio_blk", "md-mod", "linear", "raid0", "raid1"}, // 6.8 to 6.13 have no linear
		Files: labtest.Program(t, "/sbin/mdadm", "usr/sbin/mdadm", "mdadm", "libudev1", "libcap2", "libc6"),
	})
	said := labtest.Output(t, g, makeArrays)
	if err := g.Down(); err != nil {
		t.Fatal(err)
	}
	var devices []disk.Device
	for _, path := range paths {
		f, err := disk.OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		devices = append(devices, f)
	}
	arrays, err := md.Arrays(devices)
	if err != nil || len(arrays) != count/2 {
		t.Fatalf("%d arrays, %v; the guest said\n%s", len(arrays), err, said)
	}
	lines := strings.Split(strings.TrimSpace(said), "\n")
	for _, a := range arrays {
		d, err := a.Device()
		if err != nil {
			t.Error(err)
			continue
		}
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(d, 0, d.Size())); err != nil {
			t.Error(err)
		}
		got := fmt.Sprintf("%s %s %d %x -", a.Version, strings.TrimPrefix(a.Level, "raid"), d.Size(), h.Sum(nil))
		if n := a.Members[0].Device / 2; n >= len(lines) || got != strings.TrimSpace(lines[n]) {
			t.Errorf("%s, and the guest said\n%s", got, said)
		}
	}
}
