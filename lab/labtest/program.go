package labtest

import (
	"debug/elf"
	"path/filepath"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
)

// The folders of a Debian root that programs and libraries are in.
const (
	libraries = "usr/lib/x86_64-linux-gnu"
	loader    = "/lib64/ld-linux-x86-64.so.2"
)

// Program is a program of Debian's with the libraries that it needs, as files for
// [lab.Options] of a guest that has none: the path of the program in the guest, that in its
// package, and the packages of it and of its libraries.
func Program(t testing.TB, path, inPackage string, packages ...string) map[string]string {
	t.Helper()
	root, err := lab.Unpacked(t.Context(), "amd64", packages...)
	if err != nil {
		t.Fatal(err)
	}
	in := func(base string) string { return filepath.Join(root, libraries, base) }
	files := map[string]string{path: filepath.Join(root, inPackage), loader: in(filepath.Base(loader))}
	for queue := []string{files[path]}; len(queue) > 0; queue = queue[1:] {
		f, err := elf.Open(queue[0])
		if err != nil {
			t.Fatal(err)
		}
		needed, err := f.ImportedLibraries()
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		for _, base := range needed {
			if to := "/" + libraries + "/" + base; files[to] == "" {
				files[to] = in(base)
				queue = append(queue, files[to])
			}
		}
	}
	return files
}

// AgentModule is what a guest's kernel needs for [StartGuestAgent], beside a port.
const AgentModule = "virtio_console"

// GuestAgent are the files of Debian's QEMU guest agent.
func GuestAgent(t testing.TB) map[string]string {
	t.Helper()
	return Program(t, "/usr/sbin/qemu-ga", "usr/sbin/qemu-ga",
		"qemu-guest-agent", "libglib2.0-0t64", "liburing2", "libudev1", "libnuma1", "libpcre2-8-0", "libc6", "libcap2", "libatomic1")
}

// StartGuestAgent starts the agent of a guest that has its files and [AgentModule]. It
// answers a moment later.
func StartGuestAgent(t testing.TB, g *lab.Guest) {
	t.Helper()
	Output(t, g, "modprobe "+AgentModule+"; mkdir -p /var/run /var/local/run; qemu-ga -d -m virtio-serial -p $(ls /dev/vport*) && echo ok")
}
