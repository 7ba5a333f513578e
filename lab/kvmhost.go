package lab

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A guest that is a KVM host holds this machine's own QEMU with its libraries, the firmware
// that QEMU needs to boot a kernel, and the modules of KVM. Under TCG the emulated
// processor has AMD's SVM, so kvm_amd runs as on real hardware, only slowly.

// kvmModules are loaded at boot. vmx can not be emulated, so kvm_amd it is. The balloon is
// for [awake].
var kvmModules = []string{"irqbypass", "kvm", "kvm_amd", "virtio_balloon"}

// awake is a device that interrupts the guest once a second. Up to QEMU 10.1 a processor
// changes its interrupt_request without a lock when it enters or leaves a guest of its own
// (target/i386/tcg/system/svm_helper.c), and forgets what another thread requested at that
// moment: if it was the timer of a processor that goes idle then, nothing would wake it
// any more. The next interrupt does.
const awake = "virtio-balloon-pci,guest-stats-polling-interval=1"

// firmwareFiles are what a q35 machine without devices needs. Names are looked up where
// QEMU itself would look.
var firmwareFiles = []string{"bios-256k.bin", "kvmvapic.bin", "linuxboot.bin", "linuxboot_dma.bin", "pvh.bin"}

// addQEMU puts QEMU into an initramfs.
func addQEMU(ctx context.Context, c *cpioWriter) error {
	qemu, err := exec.LookPath(qemuProgram)
	if err != nil {
		return fmt.Errorf("lab: %w: apt-get install %s", ErrNoQEMU, packageOf(qemuProgram))
	}
	c.hostFile("/usr/bin/"+qemuProgram, qemu)
	libraries, err := sharedLibraries(ctx, qemu)
	if err != nil {
		return err
	}
	for _, lib := range libraries {
		c.hostFile(lib, lib)
	}
	places, err := firmwarePlaces(ctx, qemu)
	if err != nil {
		return err
	}
	for _, name := range firmwareFiles {
		i := slices.IndexFunc(places, func(dir string) bool {
			_, err := os.Stat(filepath.Join(dir, name))
			return err == nil
		})
		if i < 0 {
			return fmt.Errorf("lab: QEMU's %s is not in %s: apt-get install seabios qemu-system-data", name, strings.Join(places, ", "))
		}
		c.hostFile("/usr/share/qemu/"+name, filepath.Join(places[i], name))
	}
	return nil
}

// sharedLibraries lists what the dynamic linker loads for a program, and the linker itself,
// by the paths at which it looks for them.
func sharedLibraries(ctx context.Context, program string) ([]string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, fmt.Errorf("lab: %s: %w", program, err)
	}
	defer f.Close()
	var linker string
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			name := make([]byte, min(p.Filesz, 4096))
			if _, err := p.ReadAt(name, 0); err != nil {
				return nil, fmt.Errorf("lab: %s: %w", program, err)
			}
			linker = string(bytes.TrimRight(name, "\x00"))
		}
	}
	if linker == "" {
		return nil, nil // static
	}
	out, err := run(ctx, "", nil, linker, "--list", program)
	if err != nil {
		return nil, fmt.Errorf("lab: libraries of %s: %w", program, err)
	}
	list := []string{linker}
	scan := bufio.NewScanner(bytes.NewReader(out))
	for scan.Scan() {
		// "libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x…)"
		_, path, ok := strings.Cut(scan.Text(), " => ")
		path, _, _ = strings.Cut(path, " (")
		if ok && filepath.IsAbs(path) && !slices.Contains(list, path) {
			list = append(list, path)
		}
	}
	return list, scan.Err()
}

func firmwarePlaces(ctx context.Context, qemu string) ([]string, error) {
	out, err := run(ctx, "", nil, qemu, "-L", "help")
	if err != nil {
		return nil, fmt.Errorf("lab: where QEMU has its firmware: %w", err)
	}
	places := strings.Fields(string(out))
	if len(places) == 0 {
		return nil, errors.New("lab: QEMU does not say where its firmware is")
	}
	return places, nil
}

// BootFiles makes what a guest of these options boots from, for use elsewhere: the kernel
// and an initramfs, written to dir. A test puts them into the Files of a KVM host, and
// boots them there with Options.Kernel and Options.Initrd.
func BootFiles(ctx context.Context, o Options, dir string) (vmlinuz, initrd string, err error) {
	if err := o.complete(); err != nil {
		return "", "", err
	}
	if o.Firmware || o.Userland != Busybox {
		return "", "", errors.New("lab: only a busybox guest consists of a kernel and an initramfs alone")
	}
	k, err := FindKernel(ctx, o.Kernel, o.Progress)
	if err != nil {
		return "", "", err
	}
	initrd = filepath.Join(dir, "initrd")
	if err := writeInitramfs(ctx, initrd, o, k); err != nil {
		return "", "", err
	}
	return k.Vmlinuz, initrd, nil
}
