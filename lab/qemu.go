package lab

import (
	"fmt"
	"strconv"
)

const qemuProgram = "qemu-system-x86_64"

// qemuArgs is the command line of a guest. Paths are relative to its directory, in which
// QEMU is started: unix socket paths are short that way.
func qemuArgs(o Options, k Kernel, disk, modules bool) []string {
	size := strconv.FormatUint(o.Memory/mebi, 10) + "M"
	args := []string{
		"-name", "guest=" + o.Name,
		"-nodefaults", "-no-user-config", "-display", "none",
		"-accel", o.Accel, "-cpu", o.CPU, "-smp", strconv.Itoa(o.SMP), "-m", size,
		"-chardev", "socket,id=qmp,path=qmp,server=on,wait=off", "-mon", "chardev=qmp,mode=control",
		"-chardev", "file,id=console,path=console.log,append=on", "-serial", "chardev:console",
		"-pidfile", "pid",
	}
	if o.Plugin != "" {
		args = append(args, "-plugin", o.Plugin+",socket=trace")
	}
	if o.Private {
		args = append(args, "-machine", o.Machine)
	} else {
		args = append(args, "-machine", o.Machine+",memory-backend=ram",
			"-object", "memory-backend-memfd,id=ram,size="+size+",share=on")
	}
	if o.Firmware {
		return append(args, o.QEMUArgs...)
	}
	args = append(args,
		"-chardev", "socket,id=agent,path=agent,server=on,wait=off", "-serial", "chardev:agent",
		"-kernel", k.Vmlinuz, "-initrd", "initrd", "-append", kernelArgs(o))
	if o.KVMHost {
		args = append(args, "-device", awake)
	}
	if disk {
		args = append(args, "-drive", "if=none,id=root,file=disk.qcow2,format=qcow2,discard=unmap",
			"-device", "virtio-blk-pci,drive=root", "-nic", "user,model=virtio-net-pci,restrict=on")
	} else {
		args = append(args, "-nic", "none")
	}
	if modules {
		args = append(args, "-drive", "if=none,id=modules,format=raw,readonly=on,file="+modulesDisk, "-device", "virtio-blk-pci,drive=modules,serial="+modulesDisk)
	}
	return append(args, o.QEMUArgs...)
}

// kernelArgs is the kernel's command line. KASLR stays on; a panic reboots.
func kernelArgs(o Options) string {
	s := fmt.Sprintf("console=ttyS0 panic=-1 outsight.name=%s", o.Name)
	if o.Append != "" {
		s += " " + o.Append
	}
	return s
}
