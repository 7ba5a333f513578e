package linux

import (
	"strings"
	"testing"
)

func TestMonitorSigns(t *testing.T) {
	const id = id64
	for args, want := range map[string]containerSigns{
		"": {},
		"/usr/bin/conmon --api-version 1 -c " + id + " -u " + id + " -r /usr/bin/crun -n brave_bell -s":        {Container{id, "podman"}, "brave_bell"},
		"/usr/bin/conmon -b /run/x -c " + id + " -n k8s_app_web-0_default_0f2e_0 -P /run/y":                    {Container{id, "cri-o"}, "k8s_app_web-0_default_0f2e_0"},
		"/usr/bin/conmon --cid=" + id + " --name=web":                                                          {Container{id, "podman"}, "web"},
		"/usr/bin/containerd-shim-runc-v2 -namespace moby -id " + id + " -address /run/containerd.sock":        {Container{id, "docker"}, ""},
		"/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id " + id + " -address /run/containerd.sock":      {Container{"", "containerd"}, ""},
		"/usr/bin/containerd-shim-runc-v2 -namespace default -id box1 -address /run/containerd.sock":           {Container{"box1", "containerd"}, ""},
		"/usr/bin/systemd-nspawn --quiet --keep-unit --directory=/var/lib/box --machine=box --as-pid2 sleep 9": {Container{"box", "nspawn"}, ""},
		"systemd-nspawn -D /var/lib/machines/sid -b":                                                           {Container{"sid", "nspawn"}, ""},
		"systemd-nspawn -Msid -D /x":    {Container{"sid", "nspawn"}, ""},
		"systemd-nspawn -- --machine=x": {Container{"", "nspawn"}, ""},
		"systemd-nspawn -M":             {Container{"", "nspawn"}, ""},
		"/sbin/init":                    {},
	} {
		if got := monitorSigns(strings.Split(args, " ")); got != want {
			t.Errorf("%q: %+v, not %+v", args, got, want)
		}
	}
	if got := monitorSigns([]string{"[lxc monitor] /var/lib/lxc web"}); got != (containerSigns{Container{"web", "lxc"}, ""}) {
		t.Errorf("lxc: %+v", got)
	}
	if got := monitorSigns(nil); got != (containerSigns{}) {
		t.Errorf("none: %+v", got)
	}
}

func TestEnvironSigns(t *testing.T) {
	for env, want := range map[string]string{
		"": "", "container=systemd-nspawn": "nspawn", "A=b\x00container=podman": "podman",
		"container=\x1b[2J": "", "container=": "", "containers=lxc": "", "container": "",
	} {
		if got := environSigns(splitEnviron(env)); got.Runtime != want || got.ID != "" {
			t.Errorf("%q: %+v", env, got)
		}
	}
}

func TestPodContainerName(t *testing.T) {
	const log = "/var/lib/kubelet/pods/0f2e1d3c-1111-2222-3333-444455556666/containers/app/8f1c2a3b"
	for _, c := range []struct{ point, root, want string }{
		{"/dev/termination-log", log, "app"},
		{"/dev/termination-log", log[len("/var"):], "app"}, // /var is a file system of its own
		{"/dev/termination-log", "/dev/termination-log", ""},
		{"/etc/hosts", log, ""},
	} {
		if got := podContainerName(c.point, c.root); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func FuzzMonitorSigns(f *testing.F) {
	f.Add("conmon\x00-c\x00a\x00-n\x00b")
	f.Add("[lxc monitor] /a b")
	f.Add("systemd-nspawn\x00-M")
	f.Fuzz(func(t *testing.T, args string) {
		if c := monitorSigns(splitArgs([]byte(args))); len(c.ID)+len(c.name) > 2*len(args) {
			t.Errorf("%q: %+v", args, c)
		}
		environSigns(splitEnviron(args))
	})
}
