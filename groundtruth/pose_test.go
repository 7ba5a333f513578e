package groundtruth

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/vm"
)

// Guests with a hole in their RAM, too large for a KVM host under TCG: the RAM of a guest
// of QEMU's is laid out by a process as Firecracker and Cloud Hypervisor would have it. It
// poses as one of them.

// posture is how the process has the RAM.
type posture struct {
	name   string
	vmm    string
	how    string // see TestPose
	source vm.Source
}

var postures = []posture{
	{"two that became one", "firecracker", "anonymous", vm.SourcePrivate},
	{"one memfd", "firecracker", "guest_mem", vm.SourceShared},
	{"of a snapshot", "firecracker", "file", vm.SourcePrivate},
	{"anonymous", "cloud-hypervisor", "anonymous", vm.SourcePrivate},
	{"a memfd each", "cloud-hypervisor", "ch_ram", vm.SourceShared},
}

// TestGuestPose looks at a guest of 4 GiB through each posture, with the hole where the
// monitors have it. QEMU has no machine with the hole of Firecracker before 1.13.
func TestGuestPose(t *testing.T) {
	labtest.NeedQEMU(t)
	g := guests.UpCrowd(t, lab.Options{Kernel: "6.12", Machine: "pc", Memory: 4 * gib})
	for _, p := range postures {
		w := witness{t: t, g: g}
		w.agree("posture "+p.name, func() seen {
			path := filepath.Join(t.TempDir(), "memory.raw")
			defer os.Remove(path)
			dump(t, g, path, false)
			pid, end := p.pose(t, path, phys.LowPC)
			defer end()
			return look(t, fmt.Sprintf("pid:%d", pid), vm.Options{}, p.source, false)
		})
	}
}

// pose starts a process that has the RAM in the file at path.
func (p posture) pose(t *testing.T, path string, low uint64) (pid int, end func()) {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, p.vmm)
	if err := exec.Command("cp", self, program).Run(); err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.run", "^TestPose$", "-test.timeout", "0", "pose"}
	if p.vmm == "firecracker" {
		config := filepath.Join(dir, "vm.json")
		if err := os.WriteFile(config, []byte(`{"machine-config":{"vcpu_count":1,"mem_size_mib":4096}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--no-api", "--config-file", config)
	} else {
		args = append(args, "--memory", "size=4G")
	}
	c := exec.Command(program, args...)
	c.Env = append(os.Environ(), "OUTSIGHT_POSE="+p.how, "OUTSIGHT_POSE_FILE="+path, fmt.Sprintf("OUTSIGHT_POSE_LOW=%d", low))
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = t.Output()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		in.Close()
		_ = c.Wait() // it did what it was for
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "READY") {
		end()
		t.Fatalf("the process says %q: %v", line, err)
	}
	return c.Process.Pid, end
}

// TestPose is the process that TestGuestPose starts.
func TestPose(t *testing.T) {
	how := os.Getenv("OUTSIGHT_POSE")
	if how == "" {
		t.Skip("is a process of TestGuestPose")
	}
	f, err := os.Open(os.Getenv("OUTSIGHT_POSE_FILE"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var low int64
	if _, err := fmt.Sscan(os.Getenv("OUTSIGHT_POSE_LOW"), &low); err != nil {
		t.Fatal(err)
	}
	sizes := []int64{low, st.Size() - low}
	fds := []int{-1, -1}
	offsets := []int64{0, 0}
	flags := unix.MAP_NORESERVE
	switch how {
	case "anonymous":
		flags |= unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	case "guest_mem":
		flags |= unix.MAP_SHARED
		fds[0] = memfd(t, how, st.Size())
		fds[1], offsets[1] = fds[0], low
	case "ch_ram":
		flags |= unix.MAP_SHARED
		fds[0], fds[1] = memfd(t, how, sizes[0]), memfd(t, how, sizes[1])
	case "file":
		flags |= unix.MAP_PRIVATE
		fds[0], fds[1], offsets[1] = int(f.Fd()), int(f.Fd()), low
	}
	var regions [2][]byte
	for i := range regions {
		if regions[i], err = unix.Mmap(fds[i], offsets[i], int(sizes[i]), unix.PROT_READ|unix.PROT_WRITE, flags); err != nil {
			t.Fatal(err)
		}
	}
	if how != "file" {
		fill(t, f, 0, regions[0])
		fill(t, f, low, regions[1])
	}
	fmt.Println("READY")
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, r := range regions {
		if err := unix.Munmap(r); err != nil {
			t.Error(err)
		}
	}
}

func memfd(t *testing.T, name string, size int64) int {
	t.Helper()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err == nil {
		err = unix.Ftruncate(fd, size)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// fill copies what f has from offset at on to region, but for holes.
func fill(t *testing.T, f *os.File, at int64, region []byte) {
	t.Helper()
	for pos, end := at, at+int64(len(region)); pos < end; {
		data, err := unix.Seek(int(f.Fd()), pos, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && data >= end {
			return
		}
		hole, err2 := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err = errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		hole = min(hole, end)
		if _, err := f.ReadAt(region[data-at:hole-at], data); err != nil {
			t.Fatal(err)
		}
		pos = hole
	}
}
