package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	linuxtext "github.com/outsight-vmi/outsight/linux/text"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "vdso",
		Title:     "Code of the vDSO that is not the kernel's, in the kernel or in a process",
		Severity:  High,
		Technique: "T1055.009", // Process Injection: Proc Memory
		Source: `the images of the vDSO (vdso_image_64, vdso_image_32, vdso_image_x32; their raw_data) against the vmlinuz, patched for the processor by their own
.altinstructions; and what the page tables of each process have at mm->context.vdso against the pages of those images`,
		Proves: `The code that processes call for the time was changed: in the kernel's image for all of them (severity critical), or in a copy of one process, which only
a write into its memory makes (ptrace, /proc/PID/mem). Intruders change it because hardly anything looks there.`,
		Blind: `A vDSO that a process moved itself, and told the kernel nothing of. Debuggers and uprobes put breakpoints there as well, and CRIU patches the vDSO of the
processes that it restores. Without a boot image the kernel's own image of the vDSO is taken as it is.`,
		Next: `Disassemble the changed code with the command shown, and see who traces the process: the view ptrace, and open files of /proc/PID/mem.`,
		Example: `The vDSO of one process was patched:

    $ outsight check lab:demo
    SEVERITY  CONFIDENCE  CHECK  TITLE
    high      likely      vdso   the vDSO of process 512 (sleep) is a copy that differs from the kernel's at +0xa20
    $ outsight disassemble lab:demo --pid 512 0x7ffd3a5f1a20`,
		Steady: true,
		Run:    vdso,
	})
}

func vdso(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		t, images, trust, err := s.VDSOs(ctx)
		switch {
		case err == nil:
			s.differences(ctx, t, yield, func(linuxtext.Difference) image.Trust { return trust })
		case noReference(err):
			if images, err = vdsosInMemory(s.Linux); err != nil {
				yield(nil, err)
				return
			}
		default:
			yield(nil, err)
			return
		}
		ps, err := s.Programs()
		if err != nil {
			yield(nil, err)
			return
		}
		v, err := newVDSOPages(s.Linux, images)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, p := range ps.all {
			if ctx.Err() != nil {
				return
			}
			if f := dataOfVDSO(p); f != nil && !yield(f, nil) {
				return
			}
			f, err := v.judge(p)
			if err != nil {
				err = fmt.Errorf("vDSO of process %d: %w", p.PID, err)
			}
			if (f != nil || err != nil) && !yield(f, err) {
				return
			}
		}
	}
}

// dataOfVDSO judges the pages with the time beside the vDSO, in a process: the kernel maps them for
// reading alone, and lets nobody change that (no VM_MAYWRITE, no VM_MAYEXEC).
func dataOfVDSO(p *program) *Finding {
	for _, m := range p.maps {
		if !strings.HasPrefix(m.Path, "[vvar") || m.File != 0 || m.Flags&(linux.VMExec|linux.VMWrite) == 0 {
			continue
		}
		what := "executable"
		if m.Flags&linux.VMExec == 0 {
			what = "writable"
		}
		f := p.finding(fmt.Sprintf("has the kernel's pages %s at %#x mapped as %s", m.Path, uint64(m.Start), what), Certain)
		f.Aspect = m.Path
		f.Expected, f.Seen = "pages that can only be read", what
		f.Basis = "the process's mappings"
		f.Show = fmt.Sprintf("outsight maps {} --where 'pid == %d'", p.PID)
		return f
	}
	return nil
}

// vdsosInMemory finds the images of the vDSO by the guest's own word.
func vdsosInMemory(s *linux.System) (all []linuxtext.VDSO, err error) {
	const maxSize = 64 << 10
	for _, k := range []struct{ kind, old, now string }{
		{"64", "vdso_image_64", "vdso64_image"}, {"32", "vdso_image_32", "vdso32_image"}, {"x32", "vdso_image_x32", "vdsox32_image"},
	} {
		a, ok := s.Address(k.old)
		if !ok {
			if a, ok = s.Address(k.now); !ok {
				continue
			}
		}
		var b [16]byte // struct vdso_image: data, size
		if _, err := s.Space.ReadAt(b[:], a); err != nil {
			return nil, fmt.Errorf("vDSO for %s: %w", k.kind, err)
		}
		start, size := virt.Addr(binary.LittleEndian.Uint64(b[:])), binary.LittleEndian.Uint64(b[8:])
		if size == 0 || size > maxSize {
			return nil, fmt.Errorf("vDSO for %s at %#x: %w: it has %d bytes", k.kind, uint64(a), kobj.ErrBroken, size)
		}
		all = append(all, linuxtext.VDSO{Name: k.kind, Start: start, End: start + virt.Addr(size)})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("vDSO: %w: the kernel does not name its images", kobj.ErrUnsupported)
	}
	return all, nil
}

// vdsoPages are the pages of the kernel's images of vDSOs.
type vdsoPages struct {
	s      *linux.System
	images []vdsoImage
	room   [phys.PageSize]byte
}

type vdsoImage struct {
	linuxtext.VDSO
	pages []phys.Addr
	data  []byte // in whole pages
}

func newVDSOPages(s *linux.System, images []linuxtext.VDSO) (*vdsoPages, error) {
	v := &vdsoPages{s: s}
	for _, i := range images {
		n := int((i.End - i.Start + phys.PageSize - 1) / phys.PageSize)
		k := vdsoImage{VDSO: i, data: make([]byte, n*phys.PageSize)}
		if _, err := s.Space.ReadAt(k.data, i.Start); err != nil {
			return nil, fmt.Errorf("image of the %s vDSO: %w", i.Name, err)
		}
		for p := range n {
			page, err := s.Space.Translate(i.Start + virt.Addr(p*phys.PageSize))
			if err != nil {
				return nil, fmt.Errorf("image of the %s vDSO: %w", i.Name, err)
			}
			k.pages = append(k.pages, page.PA)
		}
		v.images = append(v.images, k)
	}
	return v, nil
}

// judge compares the vDSO of one process.
func (v *vdsoPages) judge(p *program) (*Finding, error) {
	if p.vdso == 0 {
		return nil, nil
	}
	var m *linux.Mapping
	for _, k := range p.maps {
		if k.Start == p.vdso && k.Flags&linux.VMExec != 0 {
			m = k
		}
	}
	if m == nil {
		return nil, nil // it unmapped its vDSO
	}
	space, err := v.s.UserSpace(p.MM)
	if err != nil {
		return nil, err
	}
	for n := range min(int((m.End-m.Start)/phys.PageSize), 16) {
		at := m.Start + virt.Addr(n*phys.PageSize)
		page, err := space.Translate(at)
		if err != nil {
			var fault *virt.Fault
			if errors.As(err, &fault) {
				continue // it has not called this yet
			}
			return nil, err
		}
		if v.has(n, page.PA) {
			continue
		}
		if _, err := space.ReadAt(v.room[:], at); err != nil {
			return nil, err
		}
		want, from, to := v.nearest(n, v.room[:])
		if from == to {
			continue // a copy that is the same: somebody wrote there, and wrote it back
		}
		got := bytes.Clone(v.room[from:to])
		f := &Finding{
			Confidence: Likely,
			Title:      fmt.Sprintf("the vDSO of process %d (%s) is a copy that differs from the kernel's at +%#x", p.PID, p.Comm, n*phys.PageSize+from),
			Object:     Object{Kind: "process", Name: p.Comm, PID: p.PID, Addr: at + virt.Addr(from)},
			Expected:   describeCode(want[from:to], at+virt.Addr(from)),
			Seen:       describeCode(got, at+virt.Addr(from)),
			Evidence: []Evidence{
				{Text: "as in the kernel", Addr: at + virt.Addr(from), Bytes: bytes.Clone(want[from:to])},
				{Text: "as in the process", Addr: at + virt.Addr(from), Bytes: got},
				{Text: fmt.Sprintf("its page is at %#x of the guest's memory, none of the kernel's", uint64(page.PA))},
			},
			Basis: "the process's page against the kernel's image of the vDSO",
			Show:  fmt.Sprintf("outsight disassemble {} --pid %d %#x", p.PID, uint64(at)+uint64(from)),
		}
		return f, nil
	}
	return nil, nil
}

// has reports whether an image has its page number n at a.
func (v *vdsoPages) has(n int, a phys.Addr) bool {
	for _, i := range v.images {
		if n < len(i.pages) && i.pages[n] == a&^(phys.PageSize-1) {
			return true
		}
	}
	return false
}

// nearest finds the image whose page number n is most like b, and the first piece of it that
// differs, of at most 16 bytes.
func (v *vdsoPages) nearest(n int, b []byte) (want []byte, from, to int) {
	best := len(b) + 1
	for _, i := range v.images {
		if n >= len(i.pages) {
			continue
		}
		k := i.data[n*phys.PageSize:][:phys.PageSize]
		differ, first := 0, 0
		for at := range k {
			if k[at] != b[at] {
				if differ == 0 {
					first = at
				}
				differ++
			}
		}
		if differ < best {
			best, want, from, to = differ, k, first, first
			if differ > 0 {
				to = min(first+16, len(k))
			}
		}
	}
	if want == nil { // behind the end of every image
		return make([]byte, phys.PageSize), 0, min(16, len(b))
	}
	return want, from, to
}
