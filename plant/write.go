package plant

import (
	"bytes"
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// hand writes into a guest as it is now: its only way, so that all that is ever written passes here.
type hand struct {
	space *virt.Space
	mem   phys.Writer
}

func (p *places) hand() (*hand, error) {
	space := p.s.Space.Live()
	w, ok := phys.As[phys.Writer](space.Memory())
	if !ok {
		return nil, refuse("the memory of this machine cannot be written")
	}
	return &hand{space, w}, nil
}

// write writes b at va, and reads it again.
func (h *hand) write(b []byte, va virt.Addr) error {
	for n := 0; n < len(b); {
		at := va + virt.Addr(n)
		pg, err := h.space.Translate(at)
		if err != nil {
			return fmt.Errorf("write at %#x: %w", uint64(at), err)
		}
		step := b[n:][:min(len(b)-n, int(page-uint64(at)%page))]
		if _, err := h.mem.WriteAt(step, pg.PA); err != nil {
			return fmt.Errorf("write at %#x: %w", uint64(at), err)
		}
		n += len(step)
	}
	got := make([]byte, len(b))
	if _, err := h.space.ReadAt(got, va); err != nil {
		return fmt.Errorf("read what was written at %#x: %w", uint64(va), err)
	}
	if !bytes.Equal(got, b) {
		return fmt.Errorf("what was written at %#x is not there: the memory is another's, or somebody changes it", uint64(va))
	}
	return nil
}

// word writes one aligned word and does not read it again: by then the guest may have changed it.
func (h *hand) word(v uint64, va virt.Addr) error {
	pg, err := h.space.Translate(va)
	if err != nil {
		return fmt.Errorf("write at %#x: %w", uint64(va), err)
	}
	if _, err := h.mem.WriteAt(le.AppendUint64(nil, v), pg.PA); err != nil {
		return fmt.Errorf("write at %#x: %w", uint64(va), err)
	}
	return nil
}

func (h *hand) u32(v uint32, va virt.Addr) error { return h.write(le.AppendUint32(nil, v), va) }

// fill writes n bytes of one value.
func (h *hand) fill(v byte, n int, va virt.Addr) error {
	return h.write(bytes.Repeat([]byte{v}, n), va)
}
