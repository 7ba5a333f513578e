package microvm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outsight-vmi/outsight/vm/proc"
)

func TestConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vm.json")
	if err := os.WriteFile(file, []byte(`{"boot-source":{"kernel_image_path":"/k/vmlinux"},"machine-config":{"vcpu_count":2,"mem_size_mib":256}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]config{
		"firecracker": {vmm: firecracker, api: defaultSocket},
		"firecracker --no-api --config-file " + file:                                       {vmm: firecracker, ram: 256 << 20, cpus: 2, kernel: "/k/vmlinux"},
		"firecracker --id web --api-sock=/run/web.sock":                                    {vmm: firecracker, name: "web", api: "/run/web.sock"},
		"firecracker --id web --api-sock a -- --id other":                                  {vmm: firecracker, name: "web", api: "a"},
		"cloud-hypervisor --memory size=512M,shared=on --cpus boot=4 --api-socket /run/ch": {vmm: cloudHypervisor, ram: 512 << 20, cpus: 4, api: "/run/ch"},
		"cloud-hypervisor --api-socket path=/run/ch --memory=size=2G":                      {vmm: cloudHypervisor, ram: 2 << 30, api: "/run/ch"},
		"cloud-hypervisor --kernel vmlinux --memory size=1G":                               {vmm: cloudHypervisor, ram: 1 << 30, kernel: "vmlinux"},
		"cloud-hypervisor --api-socket fd=3":                                               {vmm: cloudHypervisor},
		"cloud-hypervisor --memory size=0 --memory-zone id=a,size=1G id=b,size=1G,file=/r": {vmm: cloudHypervisor, ram: 2 << 30, files: []string{"/r"}},
		"cloud-hypervisor --memory size=99999999999999999999G --cpus boot=-1":              {vmm: cloudHypervisor},
	} {
		args := strings.Fields(line)
		got := configOf(args[0], proc.Process{PID: os.Getpid(), Args: args})
		if d := cmp.Diff(want, got, cmp.AllowUnexported(config{})); d != "" {
			t.Errorf("%s: %s", line, d)
		}
	}
}

func TestRecognise(t *testing.T) {
	for exe, want := range map[string]string{
		"/usr/bin/firecracker":                     firecracker,
		"/opt/firecracker-v1.10.1-x86_64":          firecracker,
		"/usr/bin/firecracker (deleted)":           firecracker,
		"/usr/local/bin/cloud-hypervisor-static":   cloudHypervisor,
		"/usr/local/bin/cloud-hypervisor":          cloudHypervisor,
		"/usr/local/bin/firecracker-containerd":    "",
		"/usr/bin/cloud-hypervisor-something-else": "",
	} {
		i, ok := Driver{}.Recognise(proc.Process{Exe: exe, Args: []string{"x", "--no-api"}})
		if i.VMM != want || ok != (want != "") {
			t.Errorf("%s: %q %v", exe, i.VMM, ok)
		}
	}
}

func FuzzCommandLines(f *testing.F) {
	f.Add("firecracker --id web --config-file x", `{"machine-config":{"vcpu_count":2,"mem_size_mib":256}}`)
	f.Add("cloud-hypervisor --memory size=512M --memory-zone id=b,size=1G,file=/r --api-socket path=x", "")
	f.Fuzz(func(_ *testing.T, line, file string) {
		args := strings.Fields(line)
		c, _ := parseFirecracker(args)
		c.readFile(strings.NewReader(file))
		_ = parseCloudHypervisor(args)
	})
}
