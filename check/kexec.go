package check

import (
	"bytes"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/mm"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// kexecPages are the pages from which a kernel that is loaded for kexec will be started: each is
// executable as long as that is (machine_kexec_prepare, since 6.14), and a copy of the kernel's own
// code. A page that holds anything else is not among them.
func (s *Subject) kexecPages() (known []run) {
	section, ok := s.kexecSection()
	if !ok {
		return nil
	}
	page := func(a virt.Addr) { known = append(known, run{start: a, end: a + phys.PageSize}) }
	if o, err := kobj.LayoutOf(s.Linux.Walker, "kexec", func(r *kobj.Resolver, o *struct{ page kobj.Field }) { o.page = r.Field("kimage", "control_code_page") }); err == nil {
		for _, name := range []string{"kexec_image", "kexec_crash_image"} {
			image := s.pointerAt(name)
			if image == 0 {
				continue
			}
			r := s.Linux.Reader()
			pa, ok := mm.StructPage(s.Linux, r.Pointer(image, o.page))
			if a := s.Linux.Space.DirectBase() + virt.Addr(pa); r.Err == nil && ok && section.copiedTo(s, a, kexecCode) {
				page(a)
			}
		}
	}
	// Before the image is in its variable its page is executable already, while the segments are read
	// and summed up: for seconds, with a large initrd. What is not code is the kernel's still, too.
	if a := s.pointerAt("kexec_va_control_page"); a != 0 && a%phys.PageSize == 0 && s.loadsKexec() && section.copiedTo(s, a, len(section.bytes)) {
		page(a)
	}
	return known
}

// pointerAt is the pointer in a variable of the kernel; 0 if it has none.
func (s *Subject) pointerAt(name string) virt.Addr {
	a, ok := s.Linux.Address(name)
	if !ok {
		return 0
	}
	r := s.Linux.Reader()
	v := r.Ptr(a)
	if r.Err != nil {
		return 0
	}
	return v
}

// loadsKexec reports whether a kernel is being loaded for kexec, or taken away again.
func (s *Subject) loadsKexec() bool {
	a, ok := s.Linux.Address("__kexec_lock") // an atomic_t since 6.0 (05c6257433b7)
	if !ok {
		return false
	}
	held, err := s.Linux.Space.U32(a)
	return err == nil && held == 1
}

// kexecCode is how much of the code is compared of an image that is loaded: what it needs to know
// lies elsewhere in the page, and the kernel's own is that of the image that was loaded last.
const kexecCode = 256

// kexecSection is the code that starts another kernel, and its data, in the kernel.
type kexecSection struct {
	bytes []byte
	entry int // of relocate_kernel
}

func (s *Subject) kexecSection() (k kexecSection, ok bool) {
	start, ok := s.Linux.Address("__relocate_kernel_start")
	end, ok2 := s.Linux.Address("__relocate_kernel_end")
	entry, ok3 := s.Linux.Address("relocate_kernel")
	if !ok || !ok2 || !ok3 || entry < start || end <= start || end-start > phys.PageSize || end-entry < kexecCode {
		return k, false
	}
	k = kexecSection{bytes: make([]byte, end-start), entry: int(entry - start)}
	_, err := s.Linux.Space.ReadAt(k.bytes, start)
	return k, err == nil
}

// copiedTo reports whether n bytes of the section, or all, are in the page at a too.
func (k kexecSection) copiedTo(s *Subject, a virt.Addr, n int) bool {
	from := 0
	if n < len(k.bytes) {
		from = k.entry
	}
	is := make([]byte, n)
	_, err := s.Linux.Space.ReadAt(is, a+virt.Addr(from))
	return err == nil && bytes.Equal(is, k.bytes[from:][:n])
}
