package mapped

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
)

// WriteAt implements [phys.Writer], through a mapping of its own that ends with it. A word of eight bytes at a
// multiple of eight is one store.
func (m *Memory) WriteAt(p []byte, pa phys.Addr) (n int, err error) {
	for n < len(p) {
		at := pa + phys.Addr(n)
		s := m.find(at)
		if s == nil {
			return n, fmt.Errorf("write %d bytes at guest-physical %#x: %w", len(p)-n, uint64(at), phys.ErrNotPresent)
		}
		in := uint64(at - s.Start)
		step := p[n:][:min(uint64(len(p)-n), s.Size()-in)]
		if err := s.file.write(step, s.off+in); err != nil {
			return n, fmt.Errorf("write %d bytes at guest-physical %#x: %w", len(step), uint64(at), err)
		}
		n += len(step)
	}
	return n, nil
}

// write writes p at off of data. Huge pages can be mapped as a whole only.
func (b *backing) write(p []byte, off uint64) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", b.f.Fd()), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	page := uint64(max(st.Blksize, phys.PageSize))
	at := uint64(b.base) + off
	if at+uint64(len(p)) > uint64(st.Size) {
		return fmt.Errorf("%s ends at %#x: %w", b.f.Name(), st.Size, phys.ErrGone)
	}
	from, to := at&^(page-1), (at+uint64(len(p))+page-1)&^(page-1)
	data, err := unix.Mmap(int(f.Fd()), int64(from), int(to-from), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap of %d bytes for writing: %w", to-from, err)
	}
	defer func() { _ = unix.Munmap(data) }()
	return phys.Guard(func() error {
		to := data[at-from:]
		if len(p) == 8 && at%8 == 0 {
			atomic.StoreUint64((*uint64)(unsafe.Pointer(unsafe.SliceData(to))), binary.NativeEndian.Uint64(p))
			return nil
		}
		copy(to, p)
		return nil
	})
}
