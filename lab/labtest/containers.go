package labtest

import (
	"embed"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
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
	NeedQEMU(t)
	NeedTool(t, "mmdebstrap")
	o.Userland = lab.Debian
	o.Packages = []string{"docker.io", "docker-cli", "podman", "crun", "lxc"}
	o.Modules = slices.Concat(o.Modules, []string{"overlay", "veth", "bridge"})
	o.Files = map[string]string{"/truth": Program(t, "truth"), "/cri": Program(t, "cri")}
	dir := t.TempDir()
	for name, guest := range containerPaths {
		data, err := containerFiles.ReadFile("containers/" + name)
		if err != nil {
			t.Fatal(err)
		}
		o.Files[guest] = filepath.Join(dir, name)
		if err := os.WriteFile(o.Files[guest], data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	g := Up(t, o)
	Output(t, g, "/containers")
	return g
}
