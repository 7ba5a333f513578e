package check

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"testing"

	"github.com/outsight-vmi/outsight/phys"
)

// firstPage is that of an ELF file with program headers.
func firstPage(t testing.TB, progs ...elf.Prog64) []byte {
	t.Helper()
	var b bytes.Buffer
	h := elf.Header64{Phoff: 64, Phentsize: 56, Phnum: uint16(len(progs))}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	for _, part := range []any{h, progs, make([]byte, phys.PageSize)} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()[:phys.PageSize]
}

func TestSegments(t *testing.T) {
	load := func(flags elf.ProgFlag, offset uint64) elf.Prog64 {
		return elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(flags), Off: offset, Filesz: 0x1800}
	}
	stack := elf.Prog64{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W)}
	b := firstPage(t, load(elf.PF_R, 0), load(elf.PF_R|elf.PF_X, 0x2000), load(elf.PF_R|elf.PF_W, 0x4000), load(elf.PF_R|elf.PF_W|elf.PF_X, 0x6000), stack)
	for offset, want := range map[uint64]bool{0: false, 0x2000: true, 0x3000: true, 0x4000: false, 0x6000: false, 0x9000: false} {
		if got := readOnlyCode(b, offset); got != want {
			t.Errorf("code at %#x that nobody may write to: %v, not %v", offset, got, want)
		}
	}
	if f := stackFlags(b); f != elf.PF_R|elf.PF_W {
		t.Errorf("flags of the stack: %v", f)
	}
	if f := stackFlags(firstPage(t, load(elf.PF_R, 0))); f != elf.PF_X {
		t.Errorf("flags of the stack of a program that says nothing of it: %v", f)
	}
	binary.LittleEndian.PutUint16(b[56:], 0xffff)
	if f := stackFlags(b); f != 0 {
		t.Errorf("flags of the stack by headers that end behind the page: %v", f)
	}
}

func FuzzSegments(f *testing.F) {
	f.Add(firstPage(f, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_X)}), uint64(0))
	f.Add([]byte(elf.ELFMAG), uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, offset uint64) {
		stackFlags(b)
		readOnlyCode(b, offset)
		headers, all := segments(b)
		n := 0
		for range headers {
			n++
		}
		if !all && n > 0 {
			t.Errorf("%d headers of a page that does not hold all", n)
		}
	})
}

func TestLooksLikeCode(t *testing.T) {
	page := make([]byte, phys.PageSize)
	for _, c := range []struct {
		bytes string
		want  bool
	}{
		{"", false},
		{"\x01\x02\x03\x04\x05\x06\x07\x08\x09", false},
		{"\x48\x31\xf6\x56\x48\xbf\x2f\x62\x69\x6e\x2f\x2f\x73\x68\x57\x54\x5f\x6a\x3b\x58\x99\x0f\x05", true}, // execve("/bin//sh")
		{"\x31\xc0\xcd\x80", false},
		{"\x6a\x0b\x58\x99\x52\x68\xcd\x80", true},
		{"123456789012345678901234", true},
	} {
		clear(page)
		copy(page[100:], c.bytes)
		if got := looksLikeCode(page); got != c.want {
			t.Errorf("% x: %v", c.bytes, got)
		}
	}
}

func TestIsOneOf(t *testing.T) {
	for name, want := range map[string]bool{
		"node": true, "nodejs": true, "node-22": true, "nodeagent": false, "node_exporter": false, "rr": true, "rrdcached": false, "bun": true, "bunzip2": false,
		"php8.4": true, "php-fpm8.2": true, "libjvm.so": true, "libnode.so.115": true, "qemu-system-x86_64": true, "opcache.so": true, "codec": false, "python3.13": true,
		"python3.11": false, "libQt5WebEngineCore.so.5": true, "": false, "ruby3.1": true, "memcheck-amd64-linux": true,
	} {
		if got := isOneOf(name, compilers); got != want {
			t.Errorf("%s has a compiler: %v", name, got)
		}
	}
}
