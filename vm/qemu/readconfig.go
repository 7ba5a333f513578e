package qemu

import (
	"bufio"
	"io"
	"strings"
)

// maxConfig bounds a -readconfig file, in bytes.
const maxConfig = 1 << 20

// readConfig adds what a -readconfig file says: Incus writes its machines' memory
// and monitors there.
//
//	[object "mem0"]
//	qom-type = "memory-backend-memfd"
func (c *config) readConfig(r io.Reader) {
	var group, id string
	o := options{}
	flush := func() {
		if id != "" {
			o["id"] = id
		}
		switch group {
		case "machine":
			c.setMachine(o)
		case "accel":
			c.accel = o["accel"]
		case "memory":
			c.setMemory(o)
		case "smp-opts":
			c.setSMP(o)
		case "object":
			c.addObject(o)
		case "chardev":
			c.addChardev(o)
		case "device":
			c.addDevice(o)
		case "mon":
			c.addMonitor(o)
		case "numa":
			if o["type"] == "node" && o["memdev"] != "" {
				c.numa = append(c.numa, o["memdev"])
			}
		case "name":
			if g := o["guest"]; g != "" {
				c.name = g
			}
		}
		o = options{}
	}
	s := bufio.NewScanner(io.LimitReader(r, maxConfig))
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			flush()
			group, id, _ = strings.Cut(strings.Trim(line, "[]"), " ")
			id = strings.Trim(strings.TrimSpace(id), `"`)
		default:
			if k, v, ok := strings.Cut(line, "="); ok {
				o[strings.TrimSpace(k)] = strings.Trim(strings.TrimSpace(v), `"`)
			}
		}
	}
	flush()
}
