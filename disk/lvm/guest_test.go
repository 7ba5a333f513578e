package lvm_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// A kernel maps volumes, writes into them and says what is in them.
const makeVolumes = `
mkdir -p /etc/lvm /run/lock /run/lvm
cat >/etc/lvm/lvm.conf <<E
devices { scan=["/dev"] use_devicesfile=0 obtain_device_list_from_udev=0 }
activation { udev_sync=0 udev_rules=0 monitoring=0 verify_udev_operations=0 }
backup { backup=0 archive=0 }
global { event_activation=0 }
E
{
	lvm pvcreate /dev/vda /dev/vdb /dev/vdc
	lvm vgcreate -s 1M vg /dev/vda /dev/vdb /dev/vdc
	c="lvm lvcreate -y -Wn"
	$c -n lin -L 6M vg
	$c -n span -L 26M vg
	$c -n str -i3 -I 16k -L 6M vg
	$c -n str2 -i2 -I 64k -L 4M vg
	$c -n r1 --type raid1 -m1 -L 3M --nosync vg
	$c -n mir --type mirror --mirrorlog core -m1 -L 3M --nosync vg
	lvm lvextend -y -i1 -l +3 vg/lin
	for v in lin span str str2 r1 mir; do dd if=/dev/urandom of=/dev/vg/$v bs=64k; done
	lvm lvcreate -y -s -n snap -L 2M vg/span
	dd if=/dev/urandom of=/dev/vg/span bs=64k count=11 seek=9 conv=notrunc
	sync
} >/tmp/log 2>&1
for v in lin span str str2 r1 mir; do echo $v $(blockdev --getsize64 /dev/vg/$v) $(sha256sum </dev/vg/$v); done
lvm vgchange -an vg >>/tmp/log 2>&1 || cat /tmp/log`

func TestGuestVolumes(t *testing.T) {
	dir := t.TempDir()
	var paths, args []string
	for n := range 3 {
		path := filepath.Join(dir, fmt.Sprint(n))
		if err := os.WriteFile(path, make([]byte, 30<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		paths, args = append(paths, path), append(args, "-drive", "if=virtio,format=raw,cache=unsafe,file="+path)
	}
	g := labtest.Up(t, lab.Options{
		Kernel: "6.12", QEMUArgs: args, Modules: []string{"virtio_blk", "dm-mod", "dm-mirror", "dm-raid", "raid1", "dm-snapshot"},
		Files: labtest.Program(t, "/sbin/lvm", "usr/sbin/lvm", "lvm2", "libdevmapper1.02.1", "libdevmapper-event1.02.1", "libaio1t64", "libblkid1", "libedit2",
			"libselinux1", "libsystemd0", "libudev1", "libbsd0", "libmd0", "libtinfo6", "libpcre2-8-0", "libcap2", "libc6", "libnvme1t64"),
	})
	said := labtest.Output(t, g, makeVolumes)
	if err := g.Down(); err != nil {
		t.Fatal(err)
	}
	var devices []disk.Device
	for _, n := range []int{2, 0, 1} { // in whatever order
		f, err := disk.OpenFile(paths[n])
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		devices = append(devices, f)
	}
	vg := group(t, devices)
	want := strings.Split(strings.TrimSpace(said), "\n")
	if len(want) != 6 || len(vg.Missing)+len(vg.Notes) != 0 {
		t.Fatalf("group %+v; the guest said\n%s", vg, said)
	}
	for _, line := range want {
		name, _, _ := strings.Cut(line, " ")
		d, err := volume(t, vg, name).Device()
		if err != nil {
			t.Error(err)
			continue
		}
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(d, 0, d.Size())); err != nil {
			t.Error(err)
		}
		if got := fmt.Sprintf("%s %d %x -", name, d.Size(), h.Sum(nil)); got != strings.TrimSpace(line) {
			t.Errorf("%s, and the guest said %s", got, line)
		}
	}
	if _, err := volume(t, vg, "snap").Device(); !errors.Is(err, disk.ErrUnsupported) {
		t.Errorf("a snapshot: %v", err)
	}
}
