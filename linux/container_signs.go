package linux

import (
	"path"
	"strings"
)

// What a container's control group does not show, whoever started it may: the first
// process of a PID namespace is the child of a monitor, whose arguments name the
// container, and most runtimes put "container=" into its environment (systemd's
// container interface).

// containerSigns are what was found there.
type containerSigns struct {
	Container
	name string // given by people, where it is not the identifier
}

// monitorSigns reads the arguments of the process above a container's first.
func monitorSigns(args []string) (c containerSigns) {
	if len(args) == 0 {
		return c
	}
	// LXC's monitor writes a title over them: [lxc monitor] PATH NAME.
	if title, ok := strings.CutPrefix(args[0], "[lxc monitor] "); ok {
		return containerSigns{Container: Container{ID: title[strings.LastIndexByte(title, ' ')+1:], Runtime: "lxc"}}
	}
	program := path.Base(args[0])
	switch {
	case program == "conmon":
		c.ID, c.name, c.Runtime = flagOf(args, "-c", "--cid"), flagOf(args, "-n", "--name"), "podman"
		if strings.HasPrefix(c.name, "k8s_") {
			c.Runtime = "cri-o"
		}
	case strings.HasPrefix(program, "containerd-shim"):
		c.ID, c.Runtime = flagOf(args, "-id", "--id"), "containerd"
		switch flagOf(args, "-namespace", "--namespace") {
		case "moby":
			c.Runtime = "docker"
		case "k8s.io":
			c.ID = "" // one monitor for all containers of a pod
		}
	case program == "systemd-nspawn":
		c.ID, c.Runtime = flagOf(args, "-M", "--machine"), "nspawn"
		if dir := flagOf(args, "-D", "--directory"); c.ID == "" && dir != "" {
			c.ID = path.Base(dir)
		}
	}
	return c
}

// flagOf is the value of a flag with a short and a long name, in any of the forms
// "-n V", "--name V", "--name=V"; for short names of two bytes also "-nV".
func flagOf(args []string, short, long string) string {
	for i, a := range args[1:] {
		if a == "--" {
			break
		}
		if a == short || a == long {
			if i+2 < len(args) {
				return args[i+2]
			}
			break
		}
		if v, ok := strings.CutPrefix(a, long+"="); ok {
			return v
		}
		if v, ok := strings.CutPrefix(a, short); ok && len(short) == 2 && !strings.HasPrefix(a, "--") {
			return v
		}
	}
	return ""
}

// isWord reports whether s is short, and of letters, digits and a few signs.
func isWord(s string) bool {
	const signs = "abcdefghijklmnopqrstuvwxyz0123456789._-"
	return s != "" && len(s) <= 63 && strings.Trim(s, signs) == ""
}

// environSigns reads the environment of a container's first process. All of it is the
// container's own word, once it runs.
func environSigns(vars []EnvVariable) (c containerSigns) {
	for _, v := range vars {
		if v.Name != "container" || !isWord(v.Value) {
			continue
		}
		c.Runtime = v.Value
		if v.Value == "systemd-nspawn" {
			c.Runtime = "nspawn"
		}
	}
	return c
}

// podContainerName is a container's name in its pod: the kubelet keeps the file in which
// it may say why it ended in a folder of that name, pods/UID/containers/NAME, and mounts
// it into the container.
func podContainerName(point, root string) string {
	if point != "/dev/termination-log" {
		return ""
	}
	_, pod, _ := strings.Cut(root, "/pods/")
	if f := strings.Split(pod, "/"); len(f) == 4 && f[1] == "containers" && isWord(f[2]) {
		return f[2]
	}
	return ""
}
