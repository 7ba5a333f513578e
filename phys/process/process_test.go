package process_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/process"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// ram maps size bytes of anonymous memory in this process and says where.
func ram(t testing.TB, size int) ([]byte, process.Mapping) {
	t.Helper()
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	// Small pages, so that what counts as populated is exact.
	_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE)
	return b, process.Mapping{HVA: addressOf(b), Size: uint64(size), Anonymous: true}
}

func open(t testing.TB, maps []process.Mapping, l phys.Layout) *process.Memory {
	t.Helper()
	m, err := process.Open(os.Getpid(), maps, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestReadAcrossMappings(t *testing.T) {
	a, ma := ram(t, 1<<20)
	b, mb := ram(t, 1<<20)
	copy(a[1<<20-4:], "tail")
	copy(b, "head")
	b[1<<19] = 'x'
	m := open(t, []process.Mapping{ma, mb}, phys.Split("", 2<<20, 1<<20+1<<19))
	got := make([]byte, 8)
	if n, err := m.ReadAt(got, 1<<20-4); n != 8 || err != nil || string(got) != "tailhead" {
		t.Fatalf("%d %q %v", n, got, err)
	}
	if _, err := m.ReadAt(got, 4<<30); err != nil || got[0] != 'x' {
		t.Fatalf("above the hole: %q %v", got, err)
	}
	if n, err := m.ReadAt(got, 1<<20+1<<19-2); n != 2 || !errors.Is(err, phys.ErrNotPresent) {
		t.Fatalf("into the hole: %d %v", n, err)
	}
}

func TestNextPopulated(t *testing.T) {
	b, where := ram(t, 16<<20)
	want := map[phys.Addr]bool{}
	for _, page := range []int{0, 1, 1023, 1024, 3000, 4095} {
		b[page*phys.PageSize] = 1
		want[phys.Addr(page*phys.PageSize)] = true
	}
	m := open(t, []process.Mapping{where}, phys.Identity(16<<20))
	got := map[phys.Addr]bool{}
	for at := phys.Addr(0); ; {
		r, ok := m.NextPopulated(at)
		if !ok {
			break
		}
		if r.Start < at || r.End <= r.Start {
			t.Fatalf("after %v: %v", at, r)
		}
		for a := r.Start; a < r.End; a += phys.PageSize {
			got[a] = true
		}
		at = r.End
	}
	for a := range want {
		if !got[a] {
			t.Errorf("%v is populated and was not found", a)
		}
	}
	if len(got) > len(want)+1 { // the probe of Open may map the first page
		t.Errorf("found %d pages, want %d", len(got), len(want))
	}
}

func TestProcessExits(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var stack process.Mapping
	for stack.Size == 0 { // until it has become sleep
		maps, err := proc.Maps(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		exe, _ := os.Readlink("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/exe")
		for _, m := range maps {
			if m.Path == "[stack]" && !strings.Contains(exe, "test") {
				stack = process.Mapping{HVA: m.Start, Size: m.Size()}
			}
		}
	}
	m, err := process.Open(cmd.Process.Pid, []process.Mapping{stack}, phys.Identity(stack.Size))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	var b [8]byte
	if _, err := m.ReadAt(b[:], 0); !errors.Is(err, phys.ErrGone) {
		t.Errorf("read: %v", err)
	}
	if _, err := process.Open(cmd.Process.Pid, []process.Mapping{stack}, phys.Identity(1)); err == nil {
		t.Error("opened a process that is gone")
	}
}

func TestReadAllocatesNothing(t *testing.T) {
	_, where := ram(t, 1<<20)
	var m phys.Memory = open(t, []process.Mapping{where}, phys.Identity(1<<20))
	buf := make([]byte, 8)
	if n := testing.AllocsPerRun(100, func() { _, _ = m.ReadAt(buf, 0x8000) }); n != 0 {
		t.Errorf("%v allocations a read", n)
	}
}

func BenchmarkRead8Process(b *testing.B) {
	const size = 64 << 20
	mem, where := ram(b, size)
	for i := 0; i < size; i += phys.PageSize {
		mem[i] = 1
	}
	m := open(b, []process.Mapping{where}, phys.Identity(size))
	b.Run("one", func(b *testing.B) {
		buf := make([]byte, 8)
		b.ReportAllocs()
		for b.Loop() {
			_, _ = m.ReadAt(buf, phys.Addr(rand.Uint64N(size)&^7))
		}
	})
}

// TestLookahead: one question does not look through all of a long gap, and whoever continues
// asking comes to its end.
func TestLookahead(t *testing.T) {
	const size = 512 << 20
	b, mapping := ram(t, size)
	b[size-1] = 1
	m, err := process.Open(os.Getpid(), []process.Mapping{mapping}, phys.Identity(size))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	asked := 0
	for at := phys.Addr(0); ; asked++ {
		r, ok := m.NextPopulated(at)
		if !ok || r.Start < at || r.End <= r.Start {
			t.Fatalf("after %#x: %v, %v", uint64(at), r, ok)
		}
		if at = r.End; at == size {
			break
		}
	}
	if asked < 4 || asked > 16 {
		t.Errorf("%d questions", asked)
	}
}

func TestWriteAcrossMappings(t *testing.T) {
	a, ma := ram(t, 1<<20)
	b, mb := ram(t, 1<<20)
	m := open(t, []process.Mapping{ma, mb}, phys.Split("", 2<<20, 1<<20+1<<19))
	if n, err := m.WriteAt([]byte("tailhead"), 1<<20-4); n != 8 || err != nil {
		t.Fatal(n, err)
	}
	if string(a[1<<20-4:]) != "tail" || string(b[:4]) != "head" {
		t.Errorf("%q %q", a[1<<20-4:], b[:4])
	}
	if n, err := m.WriteAt([]byte("1234"), 1<<20+1<<19-2); n != 2 || !errors.Is(err, phys.ErrNotPresent) {
		t.Errorf("into the hole: %d %v", n, err)
	}
}
