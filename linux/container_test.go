package linux

import "testing"

func TestContainerOf(t *testing.T) {
	const id, id2 = id64, "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
	for path, want := range map[string]Container{
		"":                                 {},
		"/":                                {},
		"/init.scope":                      {},
		"/system.slice/ssh.service":        {},
		"/system.slice/docker.service":     {},
		"/system.slice/containerd.service": {},
		"/system.slice/docker-short.scope": {},
		"/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope": {},
		"/machine.slice": {},
		"/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator": {},
		"/lxc":                                         {},
		"/lxc.monitor.box":                             {},
		"/system.slice/docker-" + id + "0.scope":       {},
		"/system.slice/docker-" + id + ".scope":        {id, "docker"},
		"/docker/" + id:                                {id, "docker"},
		"/docker/" + id + "/system.slice/cron.service": {id, "docker"},
		"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + id + ".scope":                          {id, "docker"},
		"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1234.slice/cri-containerd-" + id + ".scope": {id, "containerd"},
		"/kubepods/besteffort/pod8e5d/" + id:                                                         {id, "containerd"},
		"/kubepods.slice/kubepods-pod77.slice/crio-" + id + ".scope":                                 {id, "cri-o"},
		"/kubepods/burstable/pod77/crio-" + id:                                                       {id, "cri-o"},
		"/system.slice/nerdctl-" + id + ".scope":                                                     {id, "containerd"},
		"/machine.slice/libpod-" + id + ".scope":                                                     {id, "podman"},
		"/machine.slice/libpod-" + id + ".scope/container":                                           {id, "podman"},
		"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope/container": {id, "podman"},
		"/libpod_parent/libpod-" + id:                                                                {id, "podman"},
		"/libpod_parent/" + id:                                                                       {id, "podman"},
		"/machine.slice/libpod-conmon-" + id + ".scope":                                              {}, // the monitor, outside
		"/machine.slice/libpod-" + id + ".scope/docker/" + id2:                                       {id2, "docker"},
		"/docker/" + id + "/docker/" + id2:                                                           {id2, "docker"},
		"/docker/" + id + "/kubepods/besteffort/pod1/" + id2:                                         {id2, "containerd"}, // kind
		"/lxc/web":                            {"web", "lxc"},
		"/lxc/web/system.slice/nginx.service": {"web", "lxc"},
		"/lxc.payload/web/init.scope":         {"web", "lxc"},
		"/lxc.payload.web":                    {"web", "lxc"},
		"/lxc.payload.web/system.slice/docker-" + id + ".scope":        {id, "docker"},
		"/machine.slice/systemd-nspawn@sid.service/payload/init.scope": {"sid", "nspawn"},
		"/machine.slice/machine-sid.scope/payload":                     {"sid", "nspawn"},
		"/machine.slice/machine-my\\x2dbox.scope":                      {"my-box", "nspawn"},
		"/some/where/" + id: {id, ""},
		"/\x1b[2J/\xff":     {},
	} {
		if got := ContainerOf(path); got != want {
			t.Errorf("%q is %+v, want %+v", path, got, want)
		}
	}
}

func FuzzContainerOf(f *testing.F) {
	f.Add("/system.slice/docker-" + id64 + ".scope")
	f.Add("/machine.slice/machine-a.scope")
	f.Fuzz(func(t *testing.T, path string) {
		if c := ContainerOf(path); len(c.ID) > len(path) || c.ID == "" && c.Runtime != "" {
			t.Errorf("%q is %+v", path, c)
		}
	})
}
