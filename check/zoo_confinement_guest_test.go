package check_test

import (
	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/virt"
)

const (
	confinedSleep = "/tricks confined /bin/busybox sleep 1000"
	containedIn   = "unshare -m -p -f sh -c \"echo ready; exec sleep 1000\""
)

// confinementTricks take off a process what confines it. It sleeps meanwhile, and gets it back before it wakes up: without its
// mode, the kernel does not know what to do with its next system call.
var confinementTricks = []programTrick{
	{name: "healthy: confined process", command: confinedSleep},
	{name: "healthy: process in namespaces of its own", command: containedIn},
	{name: "filters of system calls switched off", command: confinedSleep, want: []string{"lifted-confinement"}, outside: func(z *zoo) {
		z.write(z.confined()+z.offset("task_struct", "seccomp.mode"), make([]byte, 4))
	}},
	{name: "system calls past their filters", command: confinedSleep, want: []string{"lifted-confinement"}, outside: func(z *zoo) {
		at, bit := z.confined(), uint64(1)
		if _, err := z.look.Linux.Member("thread_info", "syscall_work"); err == nil {
			at += z.offset("task_struct", "thread_info.syscall_work")
		} else { // 5.10
			at, bit = at+z.offset("task_struct", "thread_info.flags"), 1<<8
		}
		z.put(at, uint64(z.ptr(at))&^bit)
	}},
	{name: "namespaces of process 1", command: containedIn, want: []string{"lifted-confinement"}, outside: func(z *zoo) {
		at := z.offset("task_struct", "nsproxy")
		z.put(z.running("sleep")+at, uint64(z.ptr(z.process(1)+at)))
	}},
	{name: "root folder of process 1", command: containedIn, want: []string{"lifted-confinement"}, outside: func(z *zoo) {
		fs, root := z.offset("task_struct", "fs"), z.offset("fs_struct", "root")
		z.write(z.ptr(z.running("sleep")+fs)+root, z.read(z.ptr(z.process(1)+fs)+root, 16))
	}},
	{name: "filters of system calls taken off", command: confinedSleep, want: []string{"lifted-confinement"}, outside: func(z *zoo) {
		z.seen()
		seccomp := z.confined() + z.offset("task_struct", "seccomp")
		z.write(seccomp, make([]byte, 16))
	}},
	{name: "may gain privileges again", command: confinedSleep, want: []string{"lifted-confinement"}, outside: func(z *zoo) {
		z.seen()
		at := z.confined() + z.offset("task_struct", "atomic_flags")
		z.put(at, uint64(z.ptr(at))&^1)
	}},
	{name: "bounding set grown", command: confinedSleep, want: []string{"lifted-confinement"}, outside: func(z *zoo) {
		z.seen()
		at := z.ptr(z.confined()+z.offset("task_struct", "real_cred")) + z.offset("cred", "cap_bset")
		z.put(at, uint64(z.ptr(at))|1<<16) // CAP_SYS_MODULE
	}},
}

// seen has the checks see what a trick is going to change, as --every does.
func (z *zoo) seen() {
	z.Helper()
	if _, err := check.Run(z.Context(), z.session, check.All(), remember(z.session)); err != nil {
		z.Fatal(err)
	}
}

// confined is the task_struct of the process that confinedSleep starts.
func (z *zoo) confined() virt.Addr {
	z.Helper()
	return z.processWith("/bin/busybox", "sleep", "1000")
}
