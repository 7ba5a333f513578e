package qemu

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// config is what a command line of QEMU says that matters here.
type config struct {
	name      string
	id        string // -id, which Proxmox's QEMU has: the VMID
	machine   string // type: "q35"; "": the default
	accel     string // "kvm", "tcg"; "": the default, TCG unless built otherwise
	ram       uint64 // in bytes
	cpus      int
	low       uint64    // max-ram-below-4g, in bytes; 0: default
	backends  []backend // memory backends in the order of the command line
	main      string    // id of the backend that is all of RAM
	numa      []string  // ids of the backends that are RAM together
	memPath   string    // -mem-path
	maxram    uint64    // -m maxmem, in bytes; 0: nothing can be plugged in
	dimms     []dimm
	qmp       []string // paths of QMP sockets, as given
	stopped   bool     // -S
	kernel    string   // -kernel
	initrd    string   // -initrd
	plugin    string   // socket of a -plugin
	readFiles []string // -readconfig

	chardevs map[string]string // socket path by id
	monitors []string          // ids of chardevs with a QMP monitor
	agent    string            // id of the chardev of the guest agent's port
}

// backend is a -object memory-backend-*.
type backend struct {
	kind  string // "memory-backend-memfd"
	id    string
	size  uint64 // in bytes
	share bool
	path  string
}

// valued are the flags of interest that take a value, without dashes.
var valued = map[string]func(c *config, v string){
	"name": func(c *config, v string) { c.name = parseOptions(v, "guest")["guest"] },
	"id":   func(c *config, v string) { c.id = v },
	"machine": func(c *config, v string) {
		o := parseOptions(v, "type")
		c.setMachine(o)
	},
	"accel": func(c *config, v string) {
		if c.accel == "" { // the first that works is taken
			c.accel = parseOptions(v, "accel")["accel"]
		}
	},
	"m":        func(c *config, v string) { c.setMemory(parseOptions(v, "size")) },
	"mem-path": func(c *config, v string) { c.memPath = v },
	"kernel":   func(c *config, v string) { c.kernel = v },
	"initrd":   func(c *config, v string) { c.initrd = v },
	"smp":      func(c *config, v string) { c.setSMP(parseOptions(v, "cpus")) },
	"object":   func(c *config, v string) { c.addObject(parseOptions(v, "qom-type")) },
	"numa": func(c *config, v string) {
		if o := parseOptions(v, "type"); o["type"] == "node" && o["memdev"] != "" {
			c.numa = append(c.numa, o["memdev"])
		}
	},
	"qmp":        func(c *config, v string) { c.addQMP(v) },
	"qmp-pretty": func(c *config, v string) { c.addQMP(v) },
	"chardev":    func(c *config, v string) { c.addChardev(parseOptions(v, "backend")) },
	"mon":        func(c *config, v string) { c.addMonitor(parseOptions(v, "chardev")) },
	"device":     func(c *config, v string) { c.addDevice(parseOptions(v, "driver")) },
	"plugin": func(c *config, v string) {
		if s := parseOptions(v, "file")["socket"]; s != "" {
			c.plugin = s
		}
	},
	"readconfig": func(c *config, v string) { c.readFiles = append(c.readFiles, v) },
}

// parseCommandLine reads the arguments of a QEMU, without the program.
func parseCommandLine(args []string) *config {
	c := &config{ram: 128 << 20, cpus: 1, chardevs: map[string]string{}}
	for i := 0; i < len(args); i++ {
		if !strings.HasPrefix(args[i], "-") {
			continue
		}
		flag := strings.TrimPrefix(strings.TrimPrefix(args[i], "-"), "-")
		switch flag {
		case "S":
			c.stopped = true
			continue
		case "enable-kvm":
			c.accel = "kvm"
			continue
		case "M":
			flag = "machine"
		}
		if set := valued[flag]; set != nil && i+1 < len(args) {
			i++
			set(c, args[i])
		}
	}
	return c
}

func (c *config) setMachine(o options) {
	if t := o["type"]; t != "" {
		c.machine = t
	}
	if a := o["accel"]; a != "" && c.accel == "" {
		c.accel, _, _ = strings.Cut(a, ":") // "kvm:tcg": the first that works
	}
	if b := o["memory-backend"]; b != "" {
		c.main = b
	}
	if l := parseSize(o["max-ram-below-4g"], 1); l != 0 {
		c.low = l
	}
	if k := o["kernel"]; k != "" {
		c.kernel = k
	}
	if i := o["initrd"]; i != "" {
		c.initrd = i
	}
}

func (c *config) setMemory(o options) {
	if n := parseSize(o["size"], 1<<20); n != 0 {
		c.ram = n
	}
	if n := parseSize(o["maxmem"], 1<<20); n != 0 {
		c.maxram = n
	}
}

func (c *config) setSMP(o options) {
	n, err := strconv.Atoi(o["cpus"])
	if err != nil {
		n = 1
		for _, k := range []string{"drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads"} {
			if v, err := strconv.Atoi(o[k]); err == nil && v > 0 && v < 1<<16 {
				n *= v
			}
		}
	}
	if n > 0 && n < 1<<20 {
		c.cpus = n
	}
}

func (c *config) addObject(o options) {
	kind := o["qom-type"]
	if !strings.HasPrefix(kind, "memory-backend-") || kind == "memory-backend-epc" {
		return
	}
	share := o.on("share")
	if _, said := o["share"]; !said {
		share = kind == "memory-backend-memfd" || kind == "memory-backend-shm"
	}
	c.backends = append(c.backends, backend{
		kind: kind, id: o["id"], size: parseSize(o["size"], 1), share: share, path: o["mem-path"],
	})
}

// addQMP takes -qmp unix:PATH,server=on,wait=off.
func (c *config) addQMP(v string) {
	if path, ok := strings.CutPrefix(v, "unix:"); ok {
		if p := parseOptions(path, "path")["path"]; p != "" {
			c.qmp = append(c.qmp, p)
		}
	} else if id, ok := strings.CutPrefix(v, "chardev:"); ok {
		c.monitors = append(c.monitors, id)
	}
}

func (c *config) addChardev(o options) {
	path := o["path"]
	if o["backend"] != "socket" {
		// The JSON form nests: {"id":..., "backend":{"type":"socket","data":{"addr":...}}}
		if o["backend.type"] != "socket" {
			return
		}
		path = o["backend.data.addr.data.path"]
	}
	server := o.on("server") || o.on("backend.data.server") || o["backend.type"] != "" && o["backend.data.server"] == ""
	if path != "" && o["id"] != "" && server {
		c.chardevs[o["id"]] = path
	}
}

func (c *config) addMonitor(o options) {
	if o["mode"] == "control" {
		c.monitors = append(c.monitors, o["chardev"])
	}
}

// alias is what else the manager of the machine calls it. Incus and LXD give QEMU a name
// without its project, and keep its files in a folder PROJECT_NAME, or NAME in the
// default project (internal/project in Incus).
func (c *config) alias() string {
	if c.id != "" {
		return c.id
	}
	for _, f := range c.readFiles {
		if filepath.Base(f) != "qemu.conf" {
			continue
		}
		if dir := filepath.Base(filepath.Dir(f)); strings.HasSuffix(dir, "_"+c.name) && c.name != "" {
			return dir
		}
	}
	return ""
}

// sockets are the paths of QMP sockets, as given.
func (c *config) sockets() []string {
	paths := slices.Clone(c.qmp)
	for _, id := range c.monitors {
		if p := c.chardevs[id]; p != "" && !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	return paths
}

// blocks are the pieces of RAM in the order of their guest-physical addresses.
// Without any backend it is one unnamed private block.
func (c *config) blocks() []backend {
	ids := c.numa
	if len(ids) == 0 && c.main != "" {
		ids = []string{c.main}
	}
	var out []backend
	for _, id := range ids {
		for _, b := range c.backends {
			if b.id == id {
				out = append(out, b)
			}
		}
	}
	if len(out) == 0 {
		out = []backend{{kind: "default", size: c.ram, path: c.memPath}}
	}
	return out
}

// shared reports whether all of RAM is in memory that others can map.
func (c *config) shared() bool {
	for _, b := range c.blocks() {
		if !b.share || b.kind == "memory-backend-ram" {
			return false
		}
	}
	return true
}

// isQEMU reports whether program is a system emulator, and for which
// architecture: "" if the name does not say.
func isQEMU(program string) (arch string, ok bool) {
	program = filepath.Base(program)
	if program == "kvm" || program == "qemu-kvm" { // Proxmox; RHEL
		return "", true
	}
	// Also NixOS's .qemu-system-x86_64-wrapped.
	_, rest, ok := strings.Cut(program, "qemu-system-")
	if !ok {
		return "", false
	}
	arch, _, _ = strings.Cut(rest, "-")
	if arch == "amd64" {
		arch = "x86_64"
	}
	return arch, true
}
