package tcg

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/trace/plugin"
)

// dentries are file systems' names in a memory of their own, as a program reads them.
type dentries struct {
	memory []byte
	known  map[string]uint64
}

var dentryLayout = doorLayout{above: 0, name: 8, length: 16, super: 24, mounts: 0, mountParent: 0, mountPoint: 8, mount: 16, root: 0, instance: 24}

// at is the address of the dentry of a path in a file system, or in the one whose name and a colon stand before it.
func (d *dentries) at(path string) uint64 {
	if a, ok := d.known[path]; ok {
		return a
	}
	above, name := uint64(0), "/"
	root := path == "" || strings.HasSuffix(path, ":")
	if !root {
		i := strings.LastIndexByte(path, '/')
		above, name = d.at(path[:i]), path[i+1:]
	}
	a := uint64(len(d.memory))
	if root {
		above = a
	}
	d.memory = le.AppendUint64(d.memory, above)
	d.memory = le.AppendUint64(d.memory, a+32)
	d.memory = le.AppendUint64(d.memory, uint64(len(name)))
	d.memory = le.AppendUint64(d.memory, 0)
	d.memory = append(d.memory, name...)
	d.memory = append(d.memory, make([]byte, 8+-len(name)&7)...)
	d.known[path] = a
	return a
}

// mount mounts a file system at places, the oldest first; a place that is empty is nowhere.
func (d *dentries) mount(fs string, list bool, points ...string) {
	root := d.at(fs)
	put := func(at, v uint64) { le.PutUint64(d.memory[at:], v) }
	super := uint64(len(d.memory))
	d.memory = append(d.memory, make([]byte, 16)...)
	put(root+24, super)
	last := super // the word that leads to the next one
	for _, point := range points {
		on := root
		if point != "" {
			on = d.at(point)
		}
		m := uint64(len(d.memory))
		d.memory = append(d.memory, make([]byte, 40)...)
		put(m, m)
		if point != "" {
			put(m, super) // any other
		}
		put(m+8, on)
		put(m+16, root)
		if list {
			put(last, m+24)
			put(m+24, super)
			last = m + 24
			continue
		}
		put(m+24, le.Uint64(d.memory[super:])) // the newest one comes first
		put(super, m)
	}
}

// runProgram runs an assembled program of one probe (plugin/qemu/protocol.h) as far as ifLog needs it, and reports whether it ends with a
// record.
func runProgram(program, memory []byte, arg uint64) (bool, error) {
	const header, probe, insn = 32, 32, 16 // struct os_program, os_probe, os_insn
	code := program[header+probe*int(le.Uint32(program[4:])):]
	var slots [32]uint64
	for pc := uint32(0); ; pc++ {
		i := code[insn*pc:][:insn]
		dst, src, size, to, imm := &slots[i[1]], slots[i[2]&31], int(i[3]), le.Uint32(i[4:]), le.Uint64(i[8:])
		jump := false
		switch i[0] { // enum os_op
		case 0:
			return true, nil
		case 1:
			return false, nil
		case 2:
			*dst = imm
		case 3:
			*dst = arg
		case 5:
			*dst = src + imm
		case 12:
			at := src + imm
			if at > uint64(len(memory)) || uint64(len(memory))-at < uint64(size) {
				return false, fmt.Errorf("instruction %d reads %d bytes at %#x", pc, size, at)
			}
			var word [8]byte
			copy(word[:], memory[at:][:size])
			*dst = le.Uint64(word[:])
		case 19:
			jump = true
		case 20:
			jump = src == imm
		case 21:
			jump = src != imm
		case 25:
			jump = *dst == src
		default:
			return false, fmt.Errorf("instruction %d: no operation %d here", pc, i[0])
		}
		if jump {
			pc = to - 1
		}
	}
}

// TestIfLog decides of paths in a file system, as the plugin does, whether they are logs.
func TestIfLog(t *testing.T) {
	program := ifLogProgram(t, &dentryLayout)
	d := &dentries{known: map[string]uint64{}}
	d.mount("", true)
	for path, want := range map[string]bool{
		"/var/log/syslog":            true,
		"/var/log/a/b/c/d/e/x":       true, // maxLogDepth
		"/var/log/a/b/c/d/e/f/x":     false,
		"/log/syslog":                true, // of /var
		"/@/var/log/syslog":          true, // openSUSE
		"/@/var/log/journal/ab/x":    true,
		"/root/var/log/messages":     true, // Fedora
		"/a/b/var/log/x":             true,
		"/a/b/c/var/log/x":           false,
		"/@var/log/x":                true,
		"/@log/x":                    true,
		"/@log/journal/ab/x":         true,
		"/@/@var/log/x":              true,
		"/@/log/x":                   false,
		"/srv/a/log/x":               false,
		"/srv/a/@log/x":              false,
		"/srv/var/logs/x":            false,
		"/var/lib/log":               false,
		"/var/log":                   false, // itself
		"/srv/x":                     false,
		"/x":                         false,
		"/srv/log/var/x":             false,
		"/srv/log/var/log/x":         true,
		"/srv/a/b/.bash_history":     true,
		"/srv/a/b/.bash_history.old": false,
		"/srv/a/b/c/d/e/f/g/wtmp":    true,
		"/var/lib/docker/overlay2/0123/diff/var/log/x": false, // seen by its overlay's path
	} {
		a := d.at(path)
		got, err := runProgram(program, d.memory, a)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", path, got, err, want)
		}
	}
}

func ifLogProgram(t *testing.T, o *doorLayout) []byte {
	c := &compiler{Assembler: &plugin.Assembler{}}
	c.Probe(plugin.Probe{Where: plugin.AtAddress, Address: 1, ID: idDoor})
	found := c.Label()
	c.Reg(sA, "rdi")
	c.ifLog(o, sA, found)
	c.Drop()
	c.Set(found)
	c.End()
	_, _, program := fakePlugin(t, c.Assembler, 1<<20)
	return program
}

// TestIfLogMounted does so where the logs have file systems of their own, with the mounts of a file system as the kernel keeps them until
// 6.17 and since.
func TestIfLogMounted(t *testing.T) {
	for _, list := range []bool{true, false} {
		o := dentryLayout
		o.mountList = list
		program := ifLogProgram(t, &o)
		d := &dentries{known: map[string]uint64{}}
		d.mount("", list, "")
		d.mount("logs:", list, "", "/var/log", "/mnt/copy")
		d.mount("audit:", list, "/var/log/audit")
		d.mount("inner:", list, "logs:/audit")
		d.mount("var:", list, "/var")
		d.mount("nested:", list, "var:/log")
		d.mount("data:", list, "/srv/data", "/var/log")
		d.mount("nowhere:", list, "")
		for path, want := range map[string]bool{
			"logs:/syslog":       true,
			"logs:/nginx/access": true,
			"audit:/audit.log":   true,
			"inner:/audit.log":   true,
			"var:/log/syslog":    true,
			"var:/lib/x":         false,
			"nested:/syslog":     true,
			"data:/x":            false,
			"nowhere:/x":         false,
			"/var/log/syslog":    true,
			"/srv/x":             false,
		} {
			if got, err := runProgram(program, d.memory, d.at(path)); err != nil || got != want {
				t.Errorf("list %v, %s: %v, %v, want %v", list, path, got, err, want)
			}
		}
	}
}
