package labtest

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
)

// RAM is the memory of a guest, to be changed behind its back: as an attacker could who had
// its kernel. Offsets are guest-physical addresses.
type RAM struct {
	f    *os.File
	base int64
}

// OpenRAM opens the memory of a guest whose RAM is one piece: up to 2 GiB. It is closed at
// the end of the test.
func OpenRAM(t testing.TB, g *lab.Guest) *RAM {
	t.Helper()
	dir := "/proc/" + strconv.Itoa(g.PID())
	maps, err := os.Open(dir + "/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var start, end uint64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &start, &end, &mode); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		if end-start != g.Memory || !strings.HasPrefix(mode, "rw") {
			continue
		}
		f, err := os.OpenFile(dir+"/mem", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return &RAM{f, int64(start)}
	}
	t.Fatalf("QEMU has no mapping of the size of the guest's RAM, %d bytes", g.Memory)
	return nil
}

// ReadAt implements [io.ReaderAt].
func (r *RAM) ReadAt(p []byte, pa int64) (int, error) { return r.f.ReadAt(p, r.base+pa) }

// WriteAt implements [io.WriterAt].
func (r *RAM) WriteAt(p []byte, pa int64) (int, error) { return r.f.WriteAt(p, r.base+pa) }
