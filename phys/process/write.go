package process

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
)

// WriteAt implements [phys.Writer], through a descriptor of its own that ends with it.
func (m *Memory) WriteAt(p []byte, pa phys.Addr) (n int, err error) {
	// By the descriptor that reads: a later process of the same PID is never written to.
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", m.mem.Fd()), os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("write %d bytes at guest-physical %#x: process %d: %w", len(p), uint64(pa), m.pid, err)
	}
	defer f.Close()
	for n < len(p) {
		at := pa + phys.Addr(n)
		s := m.find(at)
		if s == nil {
			return n, fmt.Errorf("write %d bytes at guest-physical %#x: %w", len(p)-n, uint64(at), phys.ErrNotPresent)
		}
		in := uint64(at - s.Start)
		step := p[n:][:min(uint64(len(p)-n), s.Size()-in)]
		k, err := unix.Pwrite(int(f.Fd()), step, int64(s.hva+in))
		if n += max(k, 0); k > 0 || errors.Is(err, unix.EINTR) {
			continue
		}
		return n, fmt.Errorf("write %d bytes at guest-physical %#x: process %d: %w", len(p)-n, uint64(at), m.pid, errors.Join(err, phys.ErrGone))
	}
	return n, nil
}
