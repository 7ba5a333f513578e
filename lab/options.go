package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/lab/state"
)

// Userlands that a guest can have.
const (
	Busybox = "busybox" // an initramfs with busybox: boots in seconds
	Debian  = "debian"  // a real Debian with systemd on a virtio disk
)

// Accelerators that a guest can run with.
const (
	TCG = "tcg"
	KVM = "kvm"
)

// DefaultKernel is the kernel of a guest that names none.
const DefaultKernel = "6.12"

// Options say what guest to boot. The zero value boots a busybox guest.
type Options struct {
	Name     string   // name to find the guest by; "" picks one from the kernel
	Kernel   string   // "5.10", "6.1", "6.12", "7.2", or the path of a vmlinuz; "" is DefaultKernel
	Initrd   string   // a ready initramfs (see BootFiles) instead of one made from Files
	Userland string   // Busybox (also "") or Debian
	Packages []string // of Debian's, beyond those that a Debian guest has anyway
	Memory   uint64   // bytes; 0 is 512 MiB
	SMP      int      // virtual CPUs; 0 is 1
	Accel    string   // TCG (also "") or KVM
	CPU      string   // QEMU's -cpu; "" is max with TCG and host with KVM
	Machine  string   // QEMU's -machine; "" is q35
	Private  bool     // ordinary private RAM instead of a shared memfd
	Append   string   // more kernel arguments

	// Files are put into the initramfs: guest path → host file.
	// In a Debian guest they are copied to the root file system at boot.
	Files map[string]string

	// Modules are loaded at boot, in this order, each after those that it needs. After a
	// name may follow parameters, as on modprobe's command line: "dummy numdummies=2". One
	// that the kernel package does not have is taken to be built in. A Debian guest has all of
	// them where modprobe looks.
	Modules []string

	Firmware bool      // boot no kernel: the guest stays in its firmware, without an agent
	KVMHost  bool      // a guest that is itself a KVM host (AMD SVM under TCG) with QEMU inside
	Plugin   string    // path of outsight's plugin for QEMU, which lets the guest be traced; "": none
	QEMUArgs []string  // more arguments for QEMU
	Progress io.Writer // reports slow steps; nil is silent

	// quiet is for how long a boot may print nothing before it counts as hung; 0 is
	// what a healthy guest needs on a busy machine.
	quiet time.Duration
}

const mebi = 1 << 20

// kvmHostCPU has what kvm_amd asks of a processor and TCG can give.
const kvmHostCPU = "EPYC,+svm,+npt,+nrip-save"

// ErrOptions is the kind of an error in [Options], which are invalid on any machine.
var ErrOptions = errors.New("invalid options of a guest")

// optionsError is an ErrOptions that says which.
type optionsError struct{ error }

func (optionsError) Is(target error) bool { return target == ErrOptions }

func invalidf(format string, args ...any) error { return optionsError{fmt.Errorf(format, args...)} }

// complete fills in the defaults and refuses what cannot work.
func (o *Options) complete() error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("lab: guests are amd64 only, this host is %s", runtime.GOARCH)
	}
	if o.Name != "" && !state.ValidName(o.Name) {
		return invalidf("lab: invalid guest name %q: use up to 40 letters, digits, dots and dashes", o.Name)
	}
	if o.Kernel == "" {
		o.Kernel = DefaultKernel
	}
	if o.Userland == "" {
		o.Userland = Busybox
	}
	if o.Userland != Busybox && o.Userland != Debian {
		return invalidf("lab: unknown userland %q: take %s or %s", o.Userland, Busybox, Debian)
	}
	if len(o.Packages) > 0 && o.Userland != Debian {
		return invalidf("lab: packages need a Debian userland, not %s", o.Userland)
	}
	for _, p := range o.Packages {
		if !packageRE().MatchString(p) {
			return invalidf("lab: invalid name of a Debian package: %q", p)
		}
	}
	for _, m := range o.Modules {
		if !moduleRE().MatchString(m) {
			return invalidf("lab: invalid kernel module %q: give a name, followed by parameters as name=value", m)
		}
	}
	if o.KVMHost {
		if o.Userland != Busybox || o.Firmware {
			return invalidf("lab: a KVM host has a busybox userland and a kernel")
		}
		if o.Memory == 0 {
			o.Memory = 2560 * mebi
		}
		if o.CPU == "" {
			o.CPU = kvmHostCPU
		}
	}
	if o.Memory == 0 {
		o.Memory = 512 * mebi
	}
	if o.Memory < 64*mebi || o.Memory%mebi != 0 {
		return invalidf("lab: invalid memory size of %d bytes: give at least 64 MiB, in whole MiB", o.Memory)
	}
	if o.SMP == 0 {
		o.SMP = 1
	}
	if o.SMP < 0 || o.SMP > 255 {
		return invalidf("lab: %d virtual CPUs: give 1 to 255", o.SMP)
	}
	switch o.Accel {
	case "":
		// Not KVM where /dev/kvm can be opened: nested hosts often have one that
		// cannot run a stock kernel. Whoever wants KVM says so.
		o.Accel = TCG
	case TCG:
	case KVM:
		if o.Plugin != "" {
			return invalidf("lab: a traced guest needs accelerator tcg, not kvm: QEMU's plugins see only what it translates")
		}
		f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err != nil {
			return fmt.Errorf("lab: kvm cannot be used (%w): take --accel tcg, or load kvm and join its group", err)
		}
		f.Close()
	default:
		return invalidf("lab: unknown accelerator %q: take %s or %s", o.Accel, TCG, KVM)
	}
	if o.CPU == "" {
		o.CPU = map[string]string{TCG: "max", KVM: "host"}[o.Accel]
	}
	if o.Machine == "" {
		o.Machine = "q35"
	}
	if o.quiet == 0 {
		o.quiet = 40 * time.Second
		if o.Userland == Debian || o.KVMHost {
			o.quiet = 3 * time.Minute
		}
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	return nil
}

// baseName is what a guest without a name is called, before a number is added.
func (o *Options) baseName() string {
	switch {
	case o.Firmware:
		return "firmware"
	case o.KVMHost:
		return "kvm-host"
	case strings.Contains(o.Kernel, "/"):
		base := regexp.MustCompile(`[^A-Za-z0-9.-]+`).ReplaceAllString(filepath.Base(o.Kernel), "-")
		return strings.Trim(base[:min(len(base), 30)], ".-")
	case o.Userland == Debian:
		return "debian-" + o.Kernel
	}
	return "linux-" + o.Kernel
}
