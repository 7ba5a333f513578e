package plant

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// places is where things are, and go, in one guest.
type places struct {
	s *linux.System

	code    virt.Addr // of the blob
	data    virt.Addr
	room    uint64    // of data, in bytes
	mailbox virt.Addr // one page

	work     virt.Addr // shepherd, a struct delayed_work
	slot     virt.Addr // its function
	original virt.Addr // what it must be: vmstat_shepherd
	sysBPF   virt.Addr // kern_sys_bpf
	closeFD  virt.Addr // close_fd
	files    virt.Addr // init_files, which all kworkers share
	jiffies  virt.Addr

	o *layout
}

type layout struct {
	fn, timer, expires, pprev      kobj.Field // delayed_work
	fdt, maxFDs, fds, fop, private kobj.Field
}

const (
	// symbolGap is how far what is written in the filler of the entry code stays from symbols.
	symbolGap = 256
	// bssGap is how far the last variable before the mailbox must be away: kallsyms has no sizes, and the largest
	// variables of distributions' kernels have 272 KiB (preferred_node_policy, with 1024 nodes).
	bssGap = 320 << 10
	// blobVersion is counted up whenever the blob's bytes change: each version has a place of its own, because a
	// QEMU that translates may keep what it translated there before.
	blobVersion = 1
	blobRoom    = 1024
	page        = phys.PageSize
)

// find looks for all places, and checks that they are what they must be. Nothing is written.
func find(s *linux.System) (*places, error) {
	p, err := locate(s)
	if err != nil {
		return nil, err
	}
	return p, p.checkTypes()
}

// locate looks for all places, by symbols and layouts alone: the types of functions are in no index, and take long to find.
func locate(s *linux.System) (*places, error) {
	p := &places{s: s}
	for _, n := range []struct {
		name string
		to   *virt.Addr
	}{
		{"vmstat_shepherd", &p.original},
		{"shepherd", &p.work},
		{"kern_sys_bpf", &p.sysBPF},
		{"close_fd", &p.closeFD},
		{"init_files", &p.files},
		{"jiffies_64", &p.jiffies},
	} {
		a, ok := s.Address(n.name)
		if !ok {
			return nil, refuse("kernel %s has no %s", s.Release, n.name)
		}
		*n.to = a
	}
	if _, ok := s.Symbol("__cfi_vmstat_shepherd"); ok {
		return nil, refuse("kernel %s checks where its pointers lead (kCFI), and would stop at a function that it does not know", s.Release)
	}
	var err error
	p.o, err = kobj.LayoutOf(s.Walker, "planted probes", func(r *kobj.Resolver, o *layout) {
		o.fn, o.timer = r.Field("delayed_work", "work.func"), r.Field("delayed_work", "timer")
		o.expires, o.pprev = r.Field("delayed_work", "timer.expires"), r.Field("delayed_work", "timer.entry.pprev")
		o.fdt, o.maxFDs, o.fds = r.Field("files_struct", "fdt"), r.Field("fdtable", "max_fds"), r.Field("fdtable", "fd")
		o.fop, o.private = r.Field("file", "f_op"), r.Field("file", "private_data")
	})
	if err != nil {
		return nil, refuse("%v", err)
	}
	p.slot = p.o.fn.At(p.work)
	if p.slot%8 != 0 {
		return nil, refuse("the function of the work item shepherd is not aligned, at %#x", uint64(p.slot))
	}
	if err := p.findCode(); err != nil {
		return nil, err
	}
	return p, p.findMailbox()
}

// prototypes are what the blob calls, and is called as.
var prototypes = map[string]string{
	"kern_sys_bpf":    "int(int, union bpf_attr *, unsigned int)",
	"close_fd":        "int(unsigned int)",
	"vmstat_shepherd": "void(struct work_struct *)",
}

func (p *places) checkTypes() error {
	types, err := p.s.Types()
	if err != nil {
		return refuse("the types of kernel %s: %v", p.s.Release, err)
	}
	for name, want := range prototypes {
		if got := prototype(types, name); got != want {
			return refuse("%s is %q, expected %q", name, got, want)
		}
	}
	return nil
}

// prototype is how a function is declared, without names; empty: not at all.
func prototype(types *btf.Spec, name string) string {
	id := types.Declared(name)
	t, ok := types.Type(id)
	if !ok || t.Kind() != btf.KindFunc {
		return ""
	}
	proto, ok := types.Type(t.Ref())
	if !ok {
		return ""
	}
	var args []string
	for _, a := range types.Params(id) {
		args = append(args, strings.TrimSpace(types.Declare(a.Type, "")))
	}
	result := "void"
	if r := proto.Ref(); r != 0 {
		result = strings.TrimSpace(types.Declare(r, ""))
	}
	return result + "(" + strings.Join(args, ", ") + ")"
}

// findCode finds room in what the linker fills up behind the entry code, up to the next 2 MiB
// (ALIGN_ENTRY_TEXT_END, with CONFIG_PAGE_TABLE_ISOLATION): executable, read-only to the guest, and int3 all over.
func (p *places) findCode() error {
	e, ok := p.s.Extent("__entry_text_end")
	if !ok || e.Percpu {
		return refuse("kernel %s has no __entry_text_end", p.s.Release)
	}
	at, _ := p.s.Address("__entry_text_end")
	from := (at + symbolGap + page - 1) &^ (page - 1)
	to := at + virt.Addr(e.Size)
	if next := (at + 2<<20 - 1) &^ (2<<20 - 1); to > next {
		to = next
	}
	if to < from+symbolGap+2*page {
		return refuse("there is no room behind the entry code at %#x", uint64(at))
	}
	p.code, p.data = from+blobRoom*(blobVersion-1), from+page
	p.room = uint64(min(to-symbolGap-p.data, maxCode+64<<10))
	return nil
}

// findMailbox finds the last page of the gap between the kernel's variables and those that it shares with a hypervisor
// (.bss..decrypted, which begins at 2 MiB): writable, and nobody's.
func (p *places) findMailbox() error {
	start, ok := p.s.Symbol("__start_bss_decrypted")
	if !ok {
		return refuse("kernel %s has no gap behind its variables (built without CONFIG_AMD_MEM_ENCRYPT)", p.s.Release)
	}
	at, _ := p.s.Address("__start_bss_decrypted")
	table, err := p.s.Table()
	if err != nil {
		return refuse("symbols: %v", err)
	}
	p.mailbox = at - page
	name, off, ok := table.At(start.Rel - page)
	if !ok || off < bssGap {
		return refuse("the gap behind the kernel's variables is too small: %s is %#x bytes before it", name, off)
	}
	return nil
}

// usable checks that nothing is where things are to go. keep says that what this outsight planted may be there.
func (p *places) usable(space *virt.Space, code []byte) error {
	for a := p.code &^ (page - 1); a < p.data+virt.Addr(p.room); a += page {
		pg, err := space.Translate(a)
		if err != nil || !pg.Executable() || pg.User() {
			return refuse("the filler of the entry code at %#x cannot be executed by the kernel", uint64(a))
		}
	}
	pg, err := space.Translate(p.mailbox)
	if err != nil || pg.Executable() || !pg.Writable() || pg.User() {
		return refuse("the gap behind the kernel's variables at %#x is not the kernel's writable memory", uint64(p.mailbox))
	}
	b := make([]byte, blobRoom)
	if _, err := space.ReadAt(b, p.code); err != nil {
		return err
	}
	if !bytes.HasPrefix(b, code) || !filled(b[len(code):], int3) {
		if !filled(b, int3) {
			return refuse("something else is at %#x, where the linker leaves int3: another's code, or a tampered kernel; see outsight check", uint64(p.code))
		}
	}
	b = make([]byte, p.room)
	if _, err := space.ReadAt(b, p.data); err != nil {
		return err
	}
	if !filled(b, int3) {
		return refuse("something else is at %#x, where the linker leaves int3: another's code, or a tampered kernel; see outsight check", uint64(p.data))
	}
	b = make([]byte, page)
	if _, err := space.ReadAt(b, p.mailbox); err != nil {
		return err
	}
	if !filled(b, 0) {
		return refuse("something is at %#x, in the gap behind the kernel's variables", uint64(p.mailbox))
	}
	return nil
}

const int3 = 0xcc

func filled(b []byte, v byte) bool {
	for _, c := range b {
		if c != v {
			return false
		}
	}
	return true
}

// RefusedError is why nothing is planted in a guest: it is not one in which that is known to be safe.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

func refuse(format string, args ...any) error { return &RefusedError{fmt.Sprintf(format, args...)} }
