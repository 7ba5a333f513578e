package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const page = 4096

// mapped is a range of our own address space.
type mapped struct {
	start, end, offset uintptr
	perms, path        string
}

func maps() (all []mapped, err error) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var m mapped
		var device string
		var inode uint64
		if _, err := fmt.Sscanf(s.Text(), "%x-%x %s %x %s %d %s", &m.start, &m.end, &m.perms, &m.offset, &device, &inode, &m.path); m.end == 0 {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// ownText is where our code is mapped.
func ownText() (mapped, error) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return mapped{}, err
	}
	all, err := maps()
	for _, m := range all {
		if strings.Contains(m.perms, "x") && m.path == exe {
			return m, err
		}
	}
	return mapped{}, errors.Join(err, errors.New("no text is mapped"))
}

func mmap(at, size uintptr, prot, flags, fd int, offset uintptr) (uintptr, error) {
	a, _, errno := unix.Syscall6(unix.SYS_MMAP, at, size, uintptr(prot), uintptr(flags), uintptr(fd), offset)
	if errno != 0 {
		return 0, fmt.Errorf("mmap: %w", errno)
	}
	return a, nil
}

func mprotect(at, size uintptr, prot int) error {
	if _, _, errno := unix.Syscall(unix.SYS_MPROTECT, at, size, uintptr(prot)); errno != 0 {
		return fmt.Errorf("mprotect: %w", errno)
	}
	return nil
}

// at is memory that the kernel gave us, beyond what the garbage collector knows. Inlined it
// makes the compiler of Go 1.26.8 fail.
//
//go:noinline
func at(a, size uintptr) []byte {
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&a)), size)
}

const (
	readOnlyCode = unix.PROT_READ | unix.PROT_EXEC
	everything   = unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC
	anonymous    = unix.MAP_PRIVATE | unix.MAP_ANON
)

// hollowFile maps another file over our code: a copy, so that we can go on.
func hollowFile(args []string) error {
	text, err := ownText()
	if err != nil {
		return err
	}
	if err := copyAs(args[0]); err != nil {
		return err
	}
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = mmap(text.start, text.end-text.start, readOnlyCode, unix.MAP_PRIVATE|unix.MAP_FIXED, fd, text.offset)
	return err
}

// decoy is a function that nothing calls, so that it can be changed.
//
//go:noinline
func decoy(x []int) (sum int) {
	for i, v := range x {
		sum += i*v ^ len(x)
	}
	return sum
}

var keepDecoy = decoy

// hollowMemory puts memory of no file over our code: a copy, and with "changed" one that
// differs from it in a function that nothing calls.
func hollowMemory(args []string) error {
	text, err := ownText()
	if err != nil {
		return err
	}
	size := text.end - text.start
	a, err := mmap(0, size, unix.PROT_READ|unix.PROT_WRITE, anonymous, -1, 0)
	if err != nil {
		return err
	}
	copy(at(a, size), at(text.start, size))
	if len(args) > 0 && args[0] == "changed" {
		copy(at(a+reflect.ValueOf(keepDecoy).Pointer()-text.start, 8), "\x31\xc0\xc3\x90\x90\x90\x90\x90")
	}
	if err := mprotect(a, size, readOnlyCode); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall6(unix.SYS_MREMAP, a, size, size, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, text.start, 0); errno != 0 {
		return fmt.Errorf("mremap: %w", errno)
	}
	return nil
}

// pauses is code that waits for signals without end, in the system call itself.
const pauses = "\xb8\x22\x00\x00\x00\x0f\x05\xeb\xf7" + // mov $34, %eax; syscall; jmp
	"\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90"

// shell21 is the shortest code that becomes a shell.
const shell21 = "\x31\xf6\x48\xbb\x2f\x62\x69\x6e\x2f\x2f\x73\x68\x56\x53\x54\x5f\x6a\x3b\x58\x31\xd2\x0f\x05"

// writable makes our own code writable, changes a function that nothing calls, and leaves it so.
func writable([]string) error {
	text, err := ownText()
	if err != nil {
		return err
	}
	if err := mprotect(text.start, text.end-text.start, everything); err != nil {
		return err
	}
	copy(at(reflect.ValueOf(keepDecoy).Pointer(), 8), "\x31\xc0\xc3\x90\x90\x90\x90\x90")
	return nil
}

// shellcode has a thread in code that came from no file. With an argument a file of that name
// is mapped as a library first.
func shellcode(args []string) error {
	if err := mapLibraries(args); err != nil {
		return err
	}
	a, err := mmap(0, page, everything, anonymous, -1, 0)
	if err != nil {
		return err
	}
	copy(at(a, page), pauses)
	entry := &a
	go (*(*func())(unsafe.Pointer(&entry)))()
	return nil
}

// shellcodeFile has the same in a file of data, which it maps as a library would be.
func shellcodeFile(args []string) error {
	if err := os.WriteFile(args[0], append([]byte(pauses), make([]byte, page)...), 0o644); err != nil {
		return err
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	a, err := mmap(0, page, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE, int(f.Fd()), 0)
	if err != nil {
		return err
	}
	entry := &a
	go (*(*func())(unsafe.Pointer(&entry)))()
	return nil
}

// code has code in memory of no file, behind a header, and executes none of it. Further
// arguments are libraries, as of shellcode.
func code(args []string) error {
	header := map[string]string{
		"bare":  "\x55\x48\x89\xe5\x48\x83\xec\x10\x90\x90\x90\x90\x90\x90\x90\x90",
		"words": "\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", // small ones, as sljit's first are
		"sljit": "\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"short": shell21,
	}[args[0]]
	if err := mapLibraries(args[1:]); err != nil {
		return err
	}
	const size = 64 << 10
	flags := anonymous
	switch args[0] {
	case "shared":
		flags = unix.MAP_SHARED | unix.MAP_ANON
	case "memfd":
		fd, err := unix.MemfdCreate("data", 0)
		if err != nil {
			return err
		}
		if _, err = unix.Pwrite(fd, []byte(pauses), 0); err == nil {
			err = unix.Ftruncate(fd, size)
		}
		if err != nil {
			return err
		}
		_, err = mmap(0, size, readOnlyCode, unix.MAP_SHARED, fd, 0)
		return err
	}
	a, err := mmap(0, size, everything, flags, -1, 0)
	if err != nil {
		return err
	}
	b := at(a, size)
	if args[0] == "short" {
		copy(b, header)
		return nil
	}
	copy(b, header+pauses)
	if args[0] == "sljit" { // a piece that is used, of 0x100, one that is free, and the end
		const used, word = 0x100, 8
		put := func(at int, v uint64) { binary.LittleEndian.PutUint64(b[at:], v) }
		put(used+word, used)
		put(used+4*word, size-used-2*word)
		put(size-2*word, 1)
		put(size-word, size-used-2*word)
	}
	return nil
}

// reflective has an ELF file in memory of no file, as a library that was loaded by hand.
func reflective([]string) error {
	const size = 64 << 10
	a, err := mmap(0, size, unix.PROT_READ|unix.PROT_WRITE, anonymous, -1, 0)
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Read(at(a, size)); err != nil {
		return err
	}
	return mprotect(a, size, readOnlyCode)
}

// mapLibraries maps files as the dynamic linker does with libraries; they are copies of this
// program, or in memory alone.
func mapLibraries(names []string) error {
	for _, name := range names {
		var fd int
		var err error
		if base, ok := strings.CutPrefix(name, "memfd:"); ok {
			if fd, err = unix.MemfdCreate(base, 0); err == nil {
				f := os.NewFile(uintptr(fd), base)
				keep, err = append(keep, f), copyTo(f)
			}
		} else if err = copyAs(name); err == nil {
			fd, err = unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			return err
		}
		if _, err := mmap(0, 4*page, readOnlyCode, unix.MAP_PRIVATE|unix.MAP_POPULATE, fd, 0); err != nil {
			return err
		}
	}
	return nil
}

// libraries are mapped by this process, and by five more of as many programs.
func libraries(args []string) error {
	return asPrograms(args, func(n int) (string, error) {
		name := fmt.Sprintf("/bin/tricks-%d", n)
		_ = os.Remove(name)
		return name, os.Link("/tricks", name)
	})
}

// workers are five processes of this program that map a library, as this one does.
func workers(args []string) error {
	return asPrograms(args, func(int) (string, error) { return "/proc/self/exe", nil })
}

func asPrograms(args []string, program func(n int) (string, error)) error {
	for n := range 5 {
		name, err := program(n)
		if err != nil {
			return err
		}
		c := exec.Command(name, append([]string{"library"}, args...)...)
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err == nil {
			_, err = io.ReadFull(out, make([]byte, len("ready")))
		}
		if err != nil {
			return err
		}
		keep = append(keep, out)
	}
	return mapLibraries(args)
}

// keep is what must not be collected, and so closed.
var keep []any

// heap makes the heap executable, and puts something there.
func heap([]string) error {
	end, _, _ := unix.Syscall(unix.SYS_BRK, 0, 0, 0)
	start := (end + page - 1) &^ (page - 1)
	if now, _, _ := unix.Syscall(unix.SYS_BRK, start+4*page, 0, 0); now != start+4*page {
		return errors.New("brk failed")
	}
	copy(at(start, page), pauses)
	return mprotect(start, 4*page, everything)
}

// stack makes the stack executable.
func stack([]string) error {
	all, err := maps()
	for _, m := range all {
		if m.path == "[stack]" {
			return mprotect(m.start, m.end-m.start, everything)
		}
	}
	return errors.Join(err, errors.New("no stack is mapped"))
}

// preload becomes a program that was told to load a library first.
func preload(args []string) error {
	return unix.Exec("/proc/self/exe", []string{"tricks", "idle"}, append(os.Environ(), "LD_PRELOAD="+args[0]))
}
