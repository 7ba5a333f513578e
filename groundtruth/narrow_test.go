package groundtruth

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// TestGuest32Bit looks at a 32-bit program with the verbs that interpret what is in a
// process. Its history is compared with that of other shells.
func TestGuest32Bit(t *testing.T) {
	labtest.NeedQEMU(t)
	for _, kernel := range []string{"5.10", "6.12", "7.2"} {
		t.Run(kernel, func(t *testing.T) {
			g := guests.UpServer(t, lab.Options{Kernel: kernel, Memory: gib / 2, SMP: 2})
			t.Run("history", func(t *testing.T) { viewCases["history"].compare(t, g) })
			busybox32(t, g, "qemu:"+g.QMP())
		})
	}
}

func busybox32(t *testing.T, g *lab.Guest, target string) {
	const program = "/shells/i386/busybox"
	pid := strings.Fields(labtest.Output(t, g, "for p in /proc/[0-9]*; do [ \"$(readlink $p/exe)\" = "+program+" ] && echo ${p#/proc/}; done; :"))
	if len(pid) == 0 {
		t.Fatal("the server started no 32-bit shell")
	}
	outside := func(args ...string) []byte {
		t.Helper()
		a := run(t, nil, args...)
		if a.status != 0 {
			t.Fatalf("outsight %s: status %d: %s", strings.Join(args, " "), a.status, a.stderr)
		}
		return []byte(a.stdout)
	}
	image := rowsOf(t, "elfs", target, "--pid", pid[0], "--columns", "start,class,type,machine,path,entry", "--where", `path == "`+program+`"`)
	if len(image) != 1 || fmt.Sprint(image[0]["class"]) != "32" || image[0]["machine"] != "386" || image[0]["type"] != "EXEC" {
		t.Fatalf("ELF images of %s: %v", program, image)
	}
	start, _ := image[0]["start"].(string)

	// Code: the entry point of static programs begins so (sysdeps/i386/start.S).
	entry, _ := image[0]["entry"].(string)
	code := string(outside("disassemble", target, "--pid", pid[0], entry, "8", "--columns", "instruction", "--no-header"))
	if !strings.Contains(code, "xor %ebp,%ebp") || !strings.Contains(code, "pop %esi") || !strings.Contains(code, "mov %esp,%ecx") {
		t.Errorf("the entry point of a 32-bit program: %q", code)
	}
	if wide := string(outside("disassemble", target, "--pid", pid[0], entry, "8", "--columns", "instruction", "--no-header", "--bits", "64")); !strings.Contains(wide, "%rsi") {
		t.Errorf("the same as 64-bit code: %q", wide)
	}

	// The image, against the file: what is in its loaded segments.
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	a := run(t, nil, "extract", target, "--pid", pid[0], "--address", start, "--elf", "-o", path)
	if a.status != 0 && a.status != 3 { // 3: not all of it is in memory
		t.Fatalf("extract --elf: status %d: %s", a.status, a.stderr)
	}
	got, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	root, err := lab.Unpacked(t.Context(), "i386", "bash-static", "zsh-static", "busybox-static")
	if err != nil {
		t.Fatal(err)
	}
	want, err := elf.Open(filepath.Join(root, "usr/bin/busybox"))
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	if got.Class != elf.ELFCLASS32 || got.Machine != elf.EM_386 || got.Entry != want.Entry || len(got.Progs) != len(want.Progs) {
		t.Errorf("the image has the header %+v, want %+v", got.FileHeader, want.FileHeader)
	}
	pages := samePages(t, got, want)
	if pages < 16 {
		t.Errorf("only %d pages of code are as in the file", pages)
	}

	// The process as a core file, whose segments are the mappings.
	core := filepath.Join(dir, "core")
	outside("extract", target, "--pid", pid[0], "-o", core)
	f, err := elf.Open(core)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	maps := strings.Count(labtest.Output(t, g, "cat /proc/"+pid[0]+"/maps"), "\n")
	if f.Class != elf.ELFCLASS32 || f.Machine != elf.EM_386 || f.Type != elf.ET_CORE || len(f.Progs) != maps {
		t.Errorf("core file: %+v with %d segments; the guest has %d mappings", f.FileHeader, len(f.Progs), maps)
	}

	// Words: the program's argc and argv[0] are at its first stack pointer, below the strings.
	stack := strings.Fields(labtest.Output(t, g, "grep stack /proc/"+pid[0]+"/maps; cut -d' ' -f28 /proc/"+pid[0]+"/stat"))
	sp, err := strconv.ParseUint(stack[len(stack)-1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(outside("read", target, "--pid", pid[0], "--words", fmt.Sprintf("%#x", sp), "8")))
	if len(words) < 4 || words[1] != "00000003" || len(words[3]) != 8 {
		t.Errorf("words at the stack's start: %q; want argc 3 in 8 digits", words)
	}
	hits := rowsOf(t, "search", target, "--pid", pid[0], "--pointer", "0x"+words[3], "--columns", "address")
	found := false
	for _, h := range hits {
		found = found || h["address"] == fmt.Sprintf("%#x", sp+4)
	}
	if !found {
		t.Errorf("search for the pointer at %#x: %v", sp+4, hits)
	}
	if err := os.Remove(core); err != nil {
		t.Error(err)
	}
}

// samePages counts the pages of code that two files have in common, and fails for one that
// is neither the same nor missing.
func samePages(t *testing.T, got, want *elf.File) (n int) {
	t.Helper()
	for i, p := range want.Progs {
		if p.Type != elf.PT_LOAD || p.Flags&elf.PF_X == 0 || i >= len(got.Progs) {
			continue
		}
		a, b := make([]byte, p.Filesz), make([]byte, p.Filesz)
		if _, err := p.ReadAt(a, 0); err != nil {
			t.Fatal(err)
		}
		_, _ = got.Progs[i].ReadAt(b, 0) // its end may be missing
		for off := 0; off < len(a); off += 4096 {
			x, y := a[off:min(off+4096, len(a))], b[off:min(off+4096, len(b))]
			switch {
			case bytes.Equal(x, y):
				n++
			case bytes.Count(y, []byte{0}) != len(y):
				t.Errorf("the page at %#x differs from the file's", p.Vaddr+uint64(off))
			}
		}
	}
	return n
}
