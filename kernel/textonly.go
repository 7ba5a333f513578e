package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// A kernel that was built without CONFIG_KALLSYMS_ALL names its functions only, and the
// ends of some sections (scripts/kallsyms.c, symbol_valid). The few variables that everything else
// depends on are found by their content: page tables by where they lead, init_task by being
// its own parent, types by their header. What is found is put into the profile, as if the
// table had named it.

// imageSpan is how far after its text an image's tables and data are looked for, in bytes.
const imageSpan = 96 << 20

// namesData reports whether the table names variables too.
func (im *image) namesData() bool {
	_, ok := im.profile.Symbol("linux_banner")
	return ok
}

// define adds a symbol that was found in another way.
func (im *image) define(name string, at phys.Addr) {
	p := im.profile
	p.mu.Lock()
	defer p.mu.Unlock()
	p.memo.Symbols[name] = &Symbol{Name: name, Rel: int64(at) - int64(im.text)}
	p.dirty = true
}

// textBefore is where _text is in an image whose read-only data begins at rodata: the
// linker puts that on the first large page after the text (arch/x86/kernel/vmlinux.lds.S).
func (im *image) textBefore(rodata phys.Addr) (phys.Addr, bool) {
	if s, ok := im.profile.Symbol("__start_rodata"); ok { // newer tables name where sections begin and end
		if s.Rel <= 0 || s.Rel > int64(min(rodata, windowMax)) {
			return 0, false
		}
		return rodata - phys.Addr(s.Rel), true
	}
	t, err := im.profile.Table()
	if err != nil {
		return 0, false
	}
	// After the read-only data and the variables comes the text of the init functions.
	last := int64(math.MinInt64)
	for s := range t.All() {
		if s.Percpu || s.Rel < 0 {
			continue
		}
		if last >= 0 && s.Rel-last >= align {
			break
		}
		last = s.Rel
	}
	if last < 0 {
		return 0, false
	}
	size := phys.Addr(last+align) &^ (align - 1)
	if size > rodata || size > windowMax {
		return 0, false
	}
	return rodata - size, true
}

// rodataBefore is where the read-only data begins that a symbol table at tables is in: the
// nearest large page before it that begins with a kernel's banner.
func (im *image) rodataBefore(tables phys.Addr, page []byte) (rodata phys.Addr, banner string, ok bool) {
	rodata = tables &^ (align - 1)
	for range windowMax / align {
		if _, err := im.mem.ReadAt(page, rodata); err == nil {
			if banner, ok := findBanner(page); ok {
				return rodata, banner, true
			}
		}
		if rodata < align {
			break
		}
		rodata -= align
	}
	return 0, "", false
}

// anchorText completes an image whose table, at tables, names functions only.
func (im *image) anchorText(tables phys.Addr) error {
	page := make([]byte, phys.PageSize)
	rodata, banner, ok := im.rodataBefore(tables, page)
	if !ok {
		return fmt.Errorf("symbol table at %#x names functions only (built without CONFIG_KALLSYMS_ALL), and no kernel's banner is before it", uint64(tables))
	}
	text, ok := im.textBefore(rodata)
	if !ok {
		return fmt.Errorf("symbol table at %#x names functions only (built without CONFIG_KALLSYMS_ALL), and they fit nowhere before the banner at %#x", uint64(tables), uint64(rodata))
	}
	im.text = text
	im.setBanner(banner)
	im.define("linux_banner", rodata+phys.Addr(bytes.Index(page, []byte(banner))))
	im.numberedBanner(rodata)
	im.define("__start_rodata", rodata)
	d := dataSearch{im: im, rodata: rodata}
	if err := d.run(); err != nil {
		return err
	}
	if d.types == 0 {
		return fmt.Errorf("kernel %s has no type information (CONFIG_DEBUG_INFO_BTF): it cannot be read without", im.profile.Release)
	}
	im.define("__start_BTF", d.types)
	if err := im.findTypes(); err != nil {
		return err
	}
	if !d.tables() {
		return fmt.Errorf("kernel %s was built without CONFIG_KALLSYMS_ALL, and its page tables were not found in its image at %#x: it has not set them up, or is not running", im.profile.Release, uint64(text))
	}
	im.profile.BuildID = d.buildID
	return nil
}

// numberedBanner looks for the banner that the kernel shows, with the number and the time
// of the build: since 6.1 the first one was linked in before these were known
// (init/version.c), and that of the last step lies anywhere behind it.
func (im *image) numberedBanner(rodata phys.Addr) {
	numbered := func(banner string) bool {
		_, after, ok := strings.Cut(banner, ") #")
		return ok && after != "" && after[0] >= '0' && after[0] <= '9'
	}
	if numbered(im.profile.Banner) {
		return
	}
	const piece, longest = 1 << 20, 1 << 10
	prefix := append(slices.Clone(bannerPrefix), im.profile.Release+" "...)
	b := make([]byte, piece+longest)
	for at := rodata; at < rodata+windowMax; at += piece {
		n, _ := im.mem.ReadAt(b, at)
		for off := 0; off < n; off += len(prefix) {
			i := bytes.Index(b[off:n], prefix)
			if i < 0 {
				break
			}
			off += i
			line, _, ended := bytes.Cut(b[off:min(n, off+longest)], []byte{'\n'})
			if ended && numbered(string(line)) {
				im.setBanner(string(line))
				im.define("linux_banner", at+phys.Addr(off))
				return
			}
		}
		if n < piece {
			return
		}
	}
}

// dataSearch looks through an image's read-only data and variables.
type dataSearch struct {
	im      *image
	rodata  phys.Addr
	types   phys.Addr // of BTF; 0: none
	size    uint64    // of it
	roots   []phys.Addr
	buildID string
}

// run reads the image once, a piece at a time.
func (d *dataSearch) run() error {
	const piece = 1 << 20
	b := make([]byte, piece)
	for at := d.im.text; at < d.im.text+imageSpan; at += piece {
		n, err := d.im.mem.ReadAt(b, at)
		if n < piece && at <= d.rodata {
			return fmt.Errorf("image of kernel %s at %#x: %w", d.im.profile.Release, uint64(at), err)
		}
		for off := 0; off+phys.PageSize <= n; off += phys.PageSize {
			page := b[off : off+phys.PageSize]
			if d.leadsIntoImage(page, 511) {
				d.roots = append(d.roots, at+phys.Addr(off))
			}
		}
		if at >= d.rodata {
			d.lookForTypes(b[:n], at)
			d.lookForID(b[:n])
		}
		if n < piece {
			break
		}
	}
	return nil
}

// leadsIntoImage reports whether entry i of a page table is a table in the image.
func (d *dataSearch) leadsIntoImage(page []byte, i int) bool {
	e := binary.LittleEndian.Uint64(page[8*i:])
	pa := phys.Addr(e & addrMask)
	return e&present != 0 && e&(1<<7) == 0 && pa > d.im.text && pa < d.im.text+imageSpan
}

// lookForTypes finds the header of the kernel's types: of several the largest, since
// those of modules and of the decompressor are smaller or not here.
func (d *dataSearch) lookForTypes(b []byte, at phys.Addr) {
	magic := []byte{0x9f, 0xeb, 1, 0}
	for off := 0; ; off += 4 {
		i := bytes.Index(b[off:], magic)
		if i < 0 {
			return
		}
		off += i &^ 3
		if i%4 != 0 || off+32 > len(b) {
			continue
		}
		const least = 1 << 10
		if h, err := btf.ParseHeader(b[off : off+32]); err == nil && h.Size() > max(d.size, least) {
			d.types, d.size = at+phys.Addr(off), h.Size()
		}
	}
}

// lookForID finds the note with the build-id.
func (d *dataSearch) lookForID(b []byte) {
	if d.buildID != "" {
		return
	}
	// A SHA-1: namesz 4, descsz 20, type NT_GNU_BUILD_ID.
	head := []byte{4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, 'G', 'N', 'U', 0}
	if i := bytes.Index(b, head); i >= 0 && i+len(head)+20 <= len(b) {
		d.buildID = buildID(b[i : i+len(head)+20])
	}
}

// tables finds the kernel's top-level page table among the pages that could be one: it maps
// the text as kernels are mapped, and, unlike those of early boot and of user mode, all of
// memory too.
func (d *dataSearch) tables() bool {
	for _, root := range d.roots {
		for _, levels := range []int{virt.Levels4, virt.Levels5} {
			k := &Kernel{Profile: d.im.profile, Memory: d.im.mem, TextPA: d.im.text, Space: virt.New(d.im.mem, root, levels)}
			if !k.findText() {
				continue
			}
			if _, ok := k.searchDirectMap(); !ok {
				continue
			}
			var b [8]byte
			if _, err := d.im.mem.ReadAt(b[:], root+511*8); err != nil {
				continue
			}
			name := "level3_kernel_pgt"
			if levels == virt.Levels5 {
				name = "level4_kernel_pgt"
			}
			d.im.define("init_top_pgt", root)
			d.im.define(name, phys.Addr(binary.LittleEndian.Uint64(b[:])&addrMask))
			return d.initTask(k)
		}
	}
	return false
}

// initTask finds the first task, which is its own parent.
func (d *dataSearch) initTask(k *Kernel) bool {
	var at [3]btf.Field
	for i, path := range []string{"comm", "pid", "real_parent"} {
		f, err := k.Field("task_struct", path)
		if err != nil {
			return false
		}
		at[i] = f
	}
	const piece = 1 << 20
	b := make([]byte, piece+64)
	for pos := d.rodata; pos < d.im.text+imageSpan; pos += piece {
		n, _ := d.im.mem.ReadAt(b, pos)
		for off := 0; off < n; {
			i := bytes.Index(b[off:n], []byte("swapper"))
			if i < 0 {
				break
			}
			off += i
			pa := pos + phys.Addr(off) - phys.Addr(at[0].Offset)
			va := k.Text + virt.Addr(pa-d.im.text)
			off++
			pid, err := k.Space.U32(va + virt.Addr(at[1].Offset))
			if err != nil || pid != 0 {
				continue
			}
			if parent, err := k.Space.U64(va + virt.Addr(at[2].Offset)); err == nil && virt.Addr(parent) == va {
				d.im.define("init_task", pa)
				return true
			}
		}
		if n < piece {
			break
		}
	}
	return false
}

// searchDirectMap finds where the page tables map all of memory in one piece: the first
// part of the kernel's half that leads to the kernel's text at its distance from the start
// of memory (Documentation/arch/x86/x86_64/mm.rst; with KASLR it begins at any GiB).
func (k *Kernel) searchDirectMap() (base virt.Addr, ok bool) {
	const gib = 1 << 30
	first := virt.Addr(0xffff_8000_0000_0000)
	if k.Space.Levels() == virt.Levels5 {
		first = virt.Addr(0xff) << 56
	}
	tries := 0
	for m := range k.Space.Mappings(first, startKernelMap-1) {
		if base := m.VA - virt.Addr(m.PA); base%gib == 0 {
			if page, err := k.Space.Translate(base + virt.Addr(k.TextPA)); err == nil && page.PA == k.TextPA {
				return base, true
			}
		}
		if tries++; tries > 1024 {
			break
		}
	}
	return 0, false
}

// follow defines the symbols that types lead to from init_task, in a kernel whose table
// names functions only.
func (k *Kernel) follow() {
	task, ok := k.Address("init_task")
	if !ok {
		return
	}
	for _, step := range []struct{ name, from, path string }{
		{"init_nsproxy", "", "nsproxy"},
		{"init_uts_ns", "nsproxy", "uts_ns"},
		{"init_ipc_ns", "nsproxy", "ipc_ns"},
		{"init_net", "nsproxy", "net_ns"},
		{"init_cgroup_ns", "nsproxy", "cgroup_ns"},
		{"init_cred", "", "cred"},
		{"init_signals", "", "signal"},
		{"init_files", "", "files"},
		{"init_fs", "", "fs"},
	} {
		at, structure := task, "task_struct"
		if step.from != "" {
			f, err := k.Field("task_struct", step.from)
			if err != nil {
				continue
			}
			p, err := k.Space.U64(task + virt.Addr(f.Offset))
			if err != nil || p == 0 {
				continue
			}
			at, structure = virt.Addr(p), step.from
		}
		f, err := k.Field(structure, step.path)
		if err != nil {
			continue
		}
		p, err := k.Space.U64(at + virt.Addr(f.Offset))
		if err != nil {
			continue
		}
		k.defineAt(step.name, virt.Addr(p))
	}
	k.headOf("net_namespace_list", "init_net", "net", "list")
	k.defineSuperBlocks(task)
	// The initial PID namespace is that of the first number of the first task.
	if f, err := k.Field("task_struct", "thread_pid"); err == nil {
		pid, err := k.Space.U64(task + virt.Addr(f.Offset))
		numbers, err2 := k.Field("pid", "numbers")
		ns, err3 := k.Field("upid", "ns")
		if err == nil && err2 == nil && err3 == nil && pid != 0 {
			if p, err := k.Space.U64(virt.Addr(pid) + virt.Addr(numbers.Offset+ns.Offset)); err == nil {
				k.defineAt("init_pid_ns", virt.Addr(p))
			}
		}
	}
}

// headOf defines the head of the list that a structure in the image is in, of which the
// head is the only other element in the image.
func (k *Kernel) headOf(name, element, structure, path string) {
	at, ok := k.Address(element)
	if !ok {
		return
	}
	if f, err := k.Field(structure, path); err == nil {
		k.defineHead(name, at+virt.Addr(f.Offset), at+virt.Addr(f.Offset))
	}
}

// defineSuperBlocks defines the list of file systems that are mounted, by that of the
// first task's root.
func (k *Kernel) defineSuperBlocks(task virt.Addr) {
	at := task
	for _, step := range []struct{ structure, path string }{
		{"task_struct", "fs"}, {"fs_struct", "root.mnt"}, {"vfsmount", "mnt_sb"},
	} {
		f, err := k.Field(step.structure, step.path)
		if err != nil {
			return
		}
		p, err := k.Space.U64(at + virt.Addr(f.Offset))
		if err != nil || p == 0 {
			return
		}
		at = virt.Addr(p)
	}
	if f, err := k.Field("super_block", "s_list"); err == nil {
		k.defineHead("super_blocks", at+virt.Addr(f.Offset), 0)
	}
}

// defineHead follows a list from one of its elements to the head, which is in the image,
// as no element is but one.
func (k *Kernel) defineHead(name string, first, but virt.Addr) {
	at := first
	for range maxProof {
		next, err := k.Space.U64(at)
		if err != nil {
			return
		}
		back, err := k.Space.U64(virt.Addr(next) + 8)
		if err != nil || virt.Addr(back) != at {
			return
		}
		if at = virt.Addr(next); at != but && at >= k.Text && at-k.Text < imageSpan {
			k.defineAt(name, at)
			return
		}
		if at == first {
			return
		}
	}
}

// defineAt adds a symbol at an address in the image that the table does not name.
func (k *Kernel) defineAt(name string, at virt.Addr) {
	if at < k.Text || at-k.Text >= imageSpan {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.memo.Symbols[name]; s == nil {
		k.memo.Symbols[name] = &Symbol{Name: name, Rel: int64(at - k.Text)}
		k.dirty = true
	}
}
