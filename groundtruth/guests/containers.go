package guests

import (
	"embed"
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// containerFiles set up a guest with containers of every runtime that Debian has.
//
//go:embed containers
var containerFiles embed.FS

var containerPaths = map[string]string{
	"setup":       "/containers",
	"daemon.json": "/etc/docker/daemon.json",
	"config.toml": "/etc/containerd/config.toml",
}

// UpContainers boots a Debian guest in which containers of docker, podman, containerd, its
// Kubernetes interface, LXC and systemd-nspawn run, with /truth in it.
func UpContainers(t testing.TB, o lab.Options) *lab.Guest {
	t.Helper()
	labtest.NeedQEMU(t)
	labtest.NeedTool(t, "mmdebstrap")
	o.Userland = lab.Debian
	o.Packages = []string{"docker.io", "docker-cli", "podman", "crun", "lxc"}
	o.Modules = slices.Concat(o.Modules, []string{"overlay", "veth", "bridge"})
	o.Files = embeddedFiles(t, containerFiles, "containers", containerPaths, 0o755)
	o.Files["/truth"], o.Files["/cri"] = Program(t, "truth"), Program(t, "cri")
	g := labtest.Up(t, o)
	labtest.Output(t, g, "/containers")
	return g
}
