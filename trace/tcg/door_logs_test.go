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

var dentryLayout = &doorLayout{above: 0, name: 8, length: 16}

// at is the address of the dentry of a path in a file system.
func (d *dentries) at(path string) uint64 {
	if a, ok := d.known[path]; ok {
		return a
	}
	above, name := uint64(0), "/"
	if path != "" {
		i := strings.LastIndexByte(path, '/')
		above, name = d.at(path[:i]), path[i+1:]
	}
	a := uint64(len(d.memory))
	if path == "" {
		above = a
	}
	d.memory = le.AppendUint64(d.memory, above)
	d.memory = le.AppendUint64(d.memory, a+24)
	d.memory = le.AppendUint64(d.memory, uint64(len(name)))
	d.memory = append(d.memory, name...)
	d.memory = append(d.memory, make([]byte, 8+-len(name)&7)...)
	d.known[path] = a
	return a
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
	c := &compiler{Assembler: &plugin.Assembler{}}
	c.Probe(plugin.Probe{Where: plugin.AtAddress, Address: 1, ID: idDoor})
	found := c.Label()
	c.Reg(sA, "rdi")
	c.ifLog(dentryLayout, sA, found)
	c.Drop()
	c.Set(found)
	c.End()
	_, _, program := fakePlugin(t, c.Assembler, 1<<20)
	d := &dentries{known: map[string]uint64{}}
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
