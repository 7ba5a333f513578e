package linux

import "strings"

// Container is the container that a process runs in, as the name of its control
// group shows; the zero value for none.
type Container struct {
	ID      string // the runtime's identifier, or the container's name
	Runtime string // "docker", "containerd", "cri-o", "podman", "lxc", "nspawn"; "" if unknown
}

// scopes are the names that runtimes give a container's systemd scope, before the
// identifier.
var scopes = []struct{ prefix, runtime string }{
	{"docker-", "docker"},
	{"cri-containerd-", "containerd"},
	{"nerdctl-", "containerd"},
	{"crio-", "cri-o"},
	{"libpod-", "podman"},
}

// ContainerOf derives the container from the path of a control group. The
// innermost one is meant where containers nest.
func ContainerOf(cgroup string) Container {
	parts := strings.Split(cgroup, "/")
	for i := len(parts) - 1; i >= 1; i-- {
		if c := containerPart(parts[i], parts[i-1], cgroup); c.ID != "" {
			return c
		}
	}
	return Container{}
}

func containerPart(part, parent, whole string) Container {
	name := strings.TrimSuffix(part, ".scope")
	for _, s := range scopes {
		if id, ok := strings.CutPrefix(name, s.prefix); ok && isID(id) {
			return Container{id, s.runtime}
		}
	}
	switch {
	case isID(name):
		c := Container{ID: name}
		switch {
		case parent == "docker":
			c.Runtime = "docker"
		case strings.HasPrefix(parent, "libpod"):
			c.Runtime = "podman"
		case strings.Contains(whole, "/kubepods"):
			c.Runtime = "containerd" // its cgroupfs driver; Docker's shim did the same
		}
		return c
	case parent == "lxc" || parent == "lxc.payload":
		return Container{part, "lxc"}
	case strings.HasPrefix(part, "lxc.payload."):
		return Container{strings.TrimPrefix(part, "lxc.payload."), "lxc"}
	case parent == "machine.slice" && strings.HasPrefix(part, "systemd-nspawn@"):
		return Container{strings.TrimSuffix(strings.TrimPrefix(part, "systemd-nspawn@"), ".service"), "nspawn"}
	case parent == "machine.slice" && strings.HasPrefix(part, "machine-") && !strings.HasPrefix(part, "machine-qemu"):
		return Container{unescapeUnit(strings.TrimPrefix(name, "machine-")), "nspawn"}
	}
	return Container{}
}

// isID reports whether s is a 64-digit hexadecimal identifier.
func isID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// unescapeUnit undoes systemd's escaping of '-' in unit names.
func unescapeUnit(s string) string { return strings.ReplaceAll(s, `\x2d`, "-") }
