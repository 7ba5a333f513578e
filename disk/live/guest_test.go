package live_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/disk/live"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
)

// victim is set in the environment of a process that opens disks to be killed.
const victim = "OUTSIGHT_TEST_VICTIM"

func TestMain(m *testing.M) {
	if target := os.Getenv(victim); target != "" {
		machine, err := local.Open(context.Background(), target)
		if err == nil {
			_, err = moment(machine, target)
		}
		fmt.Println("open", err)
		time.Sleep(time.Hour)
	}
	os.Exit(m.Run())
}

func moment(m *vm.Machine, target string) (*live.Snapshot, error) {
	drives, err := live.Drives(context.Background(), m.Control.Monitor)
	if err != nil {
		return nil, err
	}
	return live.Open(context.Background(), target, m, drives)
}

const size = 16 << 20

// up starts a guest with a disk of its own, and opens its machine.
func up(t *testing.T, name string) (*lab.Guest, *vm.Machine, string) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "data.raw")
	if err := os.WriteFile(image, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	g := labtest.Up(t, lab.Options{Name: name, Kernel: lab.DefaultKernel, Modules: []string{"virtio_blk"}, QEMUArgs: []string{
		"-drive", "if=none,id=data,format=raw,file=" + image, "-device", "virtio-blk-pci,drive=data",
	}})
	target := "lab:" + g.Name
	m, err := local.Open(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return g, m, target
}

// fill has the guest write one letter to all of its disk.
func fill(t *testing.T, g *lab.Guest, letter string) {
	t.Helper()
	labtest.Output(t, g, fmt.Sprintf("test -b /dev/vda && tr '\\0' %s </dev/zero | dd of=/dev/vda bs=64k count=%d iflag=fullblock conv=fsync 2>/dev/null; sync", letter, size/(64<<10)))
}

// left are the nodes of ours in a monitor.
func left(t *testing.T, m vm.Monitor) (names []string) {
	t.Helper()
	var nodes []struct {
		Name string `json:"node-name"`
	}
	if err := m.QMP(t.Context(), "query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if strings.HasPrefix(n.Name, "outsight-") {
			names = append(names, n.Name)
		}
	}
	return names
}

// TestGuestMoment reads a disk as it was, while the guest overwrites all of it.
func TestGuestMoment(t *testing.T) {
	g, m, target := up(t, "moment")
	fill(t, g, "A")
	s, err := moment(m, target)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Devices) != 1 || s.Devices[0].Size() != size || s.Drives[0].Name != "data" {
		t.Fatalf("%+v", s)
	}
	fill(t, g, "B")
	whole := func(s *live.Snapshot, letter string) {
		t.Helper()
		b := make([]byte, size)
		if _, err := s.Devices[0].ReadAt(b, 0); err != nil && err != io.EOF { //nolint:errorlint // ReadAt gives it as it is
			t.Fatal(err)
		}
		if n := bytes.Count(b, []byte(letter)); n != size {
			t.Errorf("%d of %d bytes are %s; they begin with %q", n, size, letter, b[:8])
		}
	}
	whole(s, "A")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if names := left(t, m.Control.Monitor); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
	// The guest has noticed nothing, and another moment is another.
	if out := labtest.Output(t, g, "dmesg | grep -i 'error.*vda' || echo none; head -c 4 /dev/vda"); strings.TrimSpace(out) != "none\nBBBB" {
		t.Errorf("the guest says %q", out)
	}
	fill(t, g, "C")
	again, err := moment(m, target)
	if err != nil {
		t.Fatal(err)
	}
	whole(again, "C")
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// TestGuestKilled kills a process that has disks open: its guardian takes everything down.
func TestGuestKilled(t *testing.T) {
	g, m, target := up(t, "killed")
	fill(t, g, "A")
	if err := m.Close(); err != nil { // a QMP socket has one client
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), victim+"="+target)
	says, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 200)
	n, err := says.Read(b)
	if err != nil || strings.TrimSpace(string(b[:n])) != "open <nil>" {
		t.Fatalf("%q, %v", b[:n], err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	began := time.Now()
	for {
		m, err := local.Open(t.Context(), target)
		if err == nil && m.Control.Monitor != nil {
			names := left(t, m.Control.Monitor)
			m.Close()
			if len(names) == 0 {
				break
			}
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("the guardian has not taken it down: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	fill(t, g, "B") // the guest goes on
}
