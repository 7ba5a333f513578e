package check

import (
	"path"
	"slices"
	"strings"
)

// places are the folders by which checks judge where a program, a library or the path of a
// helper lies. A folder holds what is below it, and itself.
var places = struct {
	// temporary are where everybody may write, or what lives in memory alone: no package puts
	// a program there, and what is there is gone after a boot or a clean-up.
	temporary []string
	// personal are of users: their own programs are there, and nothing that the system starts.
	personal []string
	// packages are where packages put programs and libraries.
	packages []string
	// distribution are those of them where nobody else does.
	distribution []string
	// runtime is where programs have what they need while they run, and ofRuntime where some systems have programs below it:
	// wrappers of NixOS and Guix, what an initramfs left for shutting down, the host's files in a sandbox.
	runtime, ofRuntime []string
	// system are where only a system itself has programs, in files of its initramfs and such.
	system []string
}{
	temporary: []string{"/tmp", "/var/tmp", "/dev", "/run/user", "/var/run/user", "/proc", "/sys"},
	personal:  []string{"/home", "/root"},
	packages: []string{
		"/usr", "/lib", "/lib32", "/lib64", "/libx32", "/libexec", "/bin", "/sbin", "/opt", "/snap", "/nix/store", "/gnu/store", "/app",
		"/var/lib/flatpak", "/var/lib/snapd", "/run/current-system", "/system",
	},
	distribution: []string{"/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/etc", "/boot"},
	runtime:      []string{"/run", "/var/run"},
	ofRuntime:    []string{"/run/wrappers", "/run/setuid-programs", "/run/privileged", "/run/initramfs", "/run/host"},
	system:       []string{"/etc", "/init", "/busybox"},
}

// below reports whether a file is in one of these folders.
func below(name string, folders []string) bool {
	name = path.Clean(name)
	return slices.ContainsFunc(folders, func(f string) bool {
		rest, ok := strings.CutPrefix(name, f)
		return ok && (rest == "" || rest[0] == '/')
	})
}

// hiddenName reports whether ls leaves a part of a path out.
func hiddenName(name string) bool { return strings.Contains(path.Clean("/"+name), "/.") }

// temporary reports whether a file is where anybody can put one, or out of sight. Programs
// of users have hidden folders in their homes (~/.local, ~/.cache).
func temporary(name string) bool {
	return below(name, places.temporary) || hiddenName(name) && !below(name, places.personal)
}

// packaged reports whether a file is where packages put programs and libraries.
func packaged(name string) bool { return below(name, places.packages) && !hiddenName(name) }

// strange reports whether a file is where no package puts programs and libraries.
func strange(name string) bool {
	return below(name, places.temporary) || below(name, places.personal) || hiddenName(name) || !path.IsAbs(name)
}
