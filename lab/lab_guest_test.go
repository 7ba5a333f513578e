package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// Every kernel boots and runs commands, in shared and in private memory.
func TestGuestKernels(t *testing.T) {
	for i, kernel := range lab.KernelNames() {
		t.Run(kernel, func(t *testing.T) {
			g := labtest.Up(t, lab.Options{Kernel: kernel, Memory: 256 << 20, SMP: 1 + i%2, Private: i%2 == 1})
			if got := strings.TrimSpace(labtest.Output(t, g, "uname -r")); got != g.Kernel.Release {
				t.Errorf("runs %s, not %s", got, g.Kernel.Release)
			}
			var out, errs bytes.Buffer
			status, err := g.Exec(t.Context(), lab.Command{Shell: `printf 'a\0b'; echo c >&2; exit 7`, Stdout: &out, Stderr: &errs})
			if status != 7 || err != nil || out.String() != "a\x00b" || errs.String() != "c\n" {
				t.Errorf("status %d, error %v, output %q and %q", status, err, out.String(), errs.String())
			}
			for _, tool := range []string{g.Kernel.Vmlinuz, g.Kernel.Modules, g.QMP()} {
				if _, err := os.Stat(tool); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// One guest for all that concerns the agent: it survives whatever its clients do.
func TestGuestAgent(t *testing.T) {
	g := labtest.Up(t, lab.Options{Memory: 256 << 20})
	t.Run("large", func(t *testing.T) {
		data := make([]byte, 1_000_000)
		rng := rand.NewChaCha8([32]byte{})
		rng.Read(data[:200_000]) // the rest is zeros: not all of it can be packed
		start := time.Now()
		var out bytes.Buffer
		status, err := g.Exec(t.Context(), lab.Command{Shell: "cat", Stdin: data, Stdout: &out})
		if status != 0 || err != nil || !bytes.Equal(out.Bytes(), data) {
			t.Fatalf("status %d, error %v, %d bytes back, of which the first differ from ours: %v", status, err, out.Len(), !bytes.Equal(out.Bytes(), data))
		}
		t.Logf("1 MB there and back in %v", time.Since(start))
	})
	t.Run("several at once", func(t *testing.T) {
		var wait sync.WaitGroup
		for i := range 4 {
			wait.Go(func() {
				want := strings.Repeat(fmt.Sprintf("%d\n", i), 2000)
				got, err := g.Output(t.Context(), fmt.Sprintf("yes %d | head -2000", i))
				if err != nil || string(got) != want {
					t.Errorf("command %d: %d bytes, %v", i, len(got), err)
				}
			})
		}
		wait.Wait()
	})
	t.Run("timeout", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Output(ctx, "echo $$ >/run/victim; sleep 1000"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a command without end: %v", err)
		}
		labtest.Output(t, g, "! kill -0 $(cat /run/victim)")
	})
	t.Run("background", func(t *testing.T) {
		labtest.Output(t, g, "sleep 1000 & echo $! >/run/helper")
		labtest.Output(t, g, "kill -0 $(cat /run/helper)")
	})
	t.Run("half a client", func(t *testing.T) {
		for _, half := range []string{"OLAB pu", "OLAB put in 16384\nonly this", "OLAB put cmd 8\nsleep 99OLAB run\n", "\x00\xff\x1b[c\x03\x04\x11\x13\x1a"} {
			conn, err := net.Dial("unix", filepath.Join(g.Dir, "agent"))
			if err != nil {
				t.Fatal(err)
			}
			conn.Write([]byte(half))
			time.Sleep(200 * time.Millisecond)
			conn.Close()
			if got := labtest.Output(t, g, "echo fine"); got != "fine\n" {
				t.Errorf("after %q: %q", half, got)
			}
		}
	})
	t.Run("restart", func(t *testing.T) {
		before := labtest.Output(t, g, "cat /proc/sys/kernel/random/boot_id")
		if _, err := g.Output(t.Context(), "reboot -f"); err == nil {
			t.Error("a command that restarts the guest succeeded")
		}
		if after := labtest.Output(t, g, "cat /proc/sys/kernel/random/boot_id"); after == before {
			t.Error("the guest did not restart")
		}
	})
	t.Run("found again", func(t *testing.T) {
		again, err := lab.Open(g.Name)
		if err != nil || again.PID() != g.PID() || again.QMP() != g.QMP() {
			t.Errorf("%+v, %v", again, err)
		}
		if _, err := lab.Up(t.Context(), lab.Options{Name: g.Name}); err == nil || !strings.Contains(err.Error(), "running already") {
			t.Errorf("a second guest of the same name: %v", err)
		}
	})
	t.Run("ended", func(t *testing.T) {
		g.Output(t.Context(), "poweroff -f")
		for end := time.Now().Add(10 * time.Second); g.Running() && time.Now().Before(end); {
			time.Sleep(20 * time.Millisecond)
		}
		if _, err := g.Output(t.Context(), "true"); err == nil || !strings.Contains(err.Error(), "has ended") {
			t.Errorf("a guest that has ended: %v", err)
		}
	})
}

func TestGuestFirmware(t *testing.T) {
	g := labtest.Up(t, lab.Options{Firmware: true})
	if _, err := os.Stat(g.QMP()); err != nil {
		t.Error(err)
	}
}

// A real Debian comes up with systemd and the caller's files.
func TestGuestDebian(t *testing.T) {
	labtest.NeedTool(t, "mmdebstrap")
	labtest.NeedTool(t, "qemu-img")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	g := labtest.Up(t, lab.Options{Userland: lab.Debian, Files: map[string]string{"/lib/greeting": file}})
	got := labtest.Output(t, g, "cat /proc/1/comm /usr/lib/greeting; readlink /lib; systemctl is-active ssh")
	if got != "systemd\nhellousr/lib\nactive\n" {
		t.Errorf("%q", got)
	}
	labtest.NeedTool(t, "depmod")
	if got := labtest.Output(t, g, "modprobe -v loop && grep -c ^loop /proc/modules"); !strings.HasSuffix(got, "\n1\n") {
		t.Errorf("modprobe: %q", got)
	}
}

// An unmodified guest runs on real KVM, inside a guest whose processor has SVM.
func TestGuestKVMHost(t *testing.T) {
	labtest.NeedQEMU(t)
	vmlinuz, initrd, err := lab.BootFiles(t.Context(), lab.Options{Name: "inner"}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	g := labtest.Up(t, lab.Options{KVMHost: true, Files: map[string]string{"/k/vmlinuz": vmlinuz, "/k/initrd": initrd}})
	got := labtest.Output(t, g, `qemu-system-x86_64 -accel kvm -cpu host -m 192 -nodefaults -display none -no-reboot \
	-kernel /k/vmlinuz -initrd /k/initrd -append "console=ttyS0 panic=-1" -serial file:/run/inner.log &
for i in $(seq 600); do
	grep -q 'Run /init' /run/inner.log && break
	sleep 0.2
done
kill $!
grep -E 'Hypervisor detected|Run /init' /run/inner.log`)
	if !strings.Contains(got, "Hypervisor detected: KVM") || !strings.Contains(got, "Run /init") {
		t.Error(got)
	}
}
