package microvm

import (
	"encoding/json"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/vm/proc"

	"golang.org/x/sys/unix"
)

// config is what a command line and the file that it names say. All of it is a hint: a
// machine may have been configured over the API.
type config struct {
	vmm   string
	name  string
	api   string   // path of the API's socket, as the process sees it; "": none
	ram   uint64   // in bytes; 0: unknown
	cpus  int      // 0: unknown
	files []string // of which RAM is a mapping
	// kernel is the path of what is booted, as the process sees it; "": unknown.
	kernel string
	initrd string
}

// defaultSocket is where Firecracker's API listens by default.
const defaultSocket = "/run/firecracker.socket"

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 1 << 20

// configOf is what the command line of p says, with the file that it names.
func configOf(vmm string, p proc.Process) config {
	if vmm == cloudHypervisor {
		return parseCloudHypervisor(p.Args)
	}
	c, file := parseFirecracker(p.Args)
	if file != "" {
		// The name is the process's choice: a pipe would never open otherwise.
		if f, err := os.OpenFile(p.Path(file), os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			defer f.Close()
			if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
				c.readFile(f)
			}
		}
	}
	return c
}

// arguments calls f with every flag, without dashes, and each of its values.
func arguments(args []string, f func(flag, value string)) {
	flag := ""
	for i, a := range args {
		switch {
		case i == 0:
		case a == "--": // what follows is somebody else's
			return
		case strings.HasPrefix(a, "--"):
			var value string
			var has bool
			flag, value, has = strings.Cut(a[2:], "=")
			f(flag, value)
			if has {
				flag = ""
			}
		case flag != "":
			f(flag, a)
		}
	}
}

// parseFirecracker reads a command line of Firecracker. file is its configuration file.
func parseFirecracker(args []string) (c config, file string) {
	c = config{vmm: firecracker, api: defaultSocket}
	none := false
	arguments(args, func(flag, value string) {
		switch {
		case flag == "no-api":
			none = true
		case value == "":
		case flag == "id":
			c.name = value
		case flag == "api-sock":
			c.api = value
		case flag == "config-file":
			file = value
		}
	})
	if none {
		c.api = ""
	}
	return c, file
}

// machineConfig is what Firecracker's configuration file and API say of a machine.
type machineConfig struct {
	CPUs int    `json:"vcpu_count"`
	MiB  uint64 `json:"mem_size_mib"`
}

func (m machineConfig) ram() uint64 {
	if m.MiB > 1<<32 {
		return 0
	}
	return m.MiB << 20
}

func (c *config) readFile(r io.Reader) {
	var file struct {
		Machine machineConfig `json:"machine-config"`
		Boot    struct {
			Kernel string `json:"kernel_image_path"`
			Initrd string `json:"initrd_path"`
		} `json:"boot-source"`
	}
	if json.NewDecoder(io.LimitReader(r, maxConfig)).Decode(&file) == nil {
		c.ram, c.cpus = file.Machine.ram(), max(file.Machine.CPUs, 0)
		c.kernel, c.initrd = file.Boot.Kernel, file.Boot.Initrd
	}
}

// parseCloudHypervisor reads a command line of Cloud Hypervisor.
func parseCloudHypervisor(args []string) config {
	c := config{vmm: cloudHypervisor}
	arguments(args, func(flag, value string) {
		o := options(value)
		switch flag {
		case "api-socket":
			c.api = o["path"]
			if !strings.Contains(value, "=") {
				c.api = value
			}
		case "kernel":
			c.kernel = value
		case "initramfs":
			c.initrd = value
		case "memory":
			c.ram += parseSize(o["size"])
		case "memory-zone":
			c.ram += parseSize(o["size"])
			if f := o["file"]; f != "" {
				c.files = append(c.files, f)
			}
		case "cpus":
			if n, err := strconv.Atoi(o["boot"]); err == nil && n > 0 {
				c.cpus = n
			}
		}
	})
	return c
}

// options takes "size=512M,shared=on" apart.
func options(s string) map[string]string {
	o := map[string]string{}
	for part := range strings.SplitSeq(s, ",") {
		k, v, _ := strings.Cut(part, "=")
		o[k] = v
	}
	return o
}

// parseSize parses "512M". It is 0 for an invalid size.
func parseSize(s string) uint64 {
	shift := 0
	if s != "" {
		switch s[len(s)-1] {
		case 'K', 'k':
			shift = 10
		case 'M', 'm':
			shift = 20
		case 'G', 'g':
			shift = 30
		}
	}
	if shift > 0 {
		s = s[:len(s)-1]
	}
	v, err := strconv.ParseUint(s, 10, 62-shift)
	if err != nil {
		return 0
	}
	return v << shift
}
