// Package kernel finds out which Linux kernel runs in a guest, from the guest's
// memory alone: where it lies, its KASLR offset, its symbols and its types.
//
// [Find] needs no symbol file and no help from the guest. A kernel's read-only
// data begins on a large page's boundary with the kernel's banner; after it are
// its symbol table (package kallsyms) and its type information (package btf). What
// looks like a kernel is accepted only if its own page tables map it: copies left
// by the decompressor, by an earlier boot or by kexec do not pass. Kernels
// built otherwise are found by a scan of all memory for the shape of a symbol
// table.
package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Virtual addresses that amd64 Linux fixes at build time.
const (
	// startKernelMap is where the kernel's image is mapped from
	// (__START_KERNEL_map); it may take 1 GiB (KERNEL_IMAGE_SIZE).
	startKernelMap = 0xffff_ffff_8000_0000
	imageMax       = 1 << 30
	// linkText is where _text is linked: startKernelMap + CONFIG_PHYSICAL_START,
	// which every distribution leaves at 16 MiB.
	linkText = startKernelMap + 0x100_0000
	// directBase4 and directBase5 are the direct map's place without
	// CONFIG_RANDOMIZE_MEMORY (Documentation/arch/x86/x86_64/mm.rst).
	directBase4 = 0xffff_8880_0000_0000
	directBase5 = 0xff11_0000_0000_0000
)

// Kernel is a kernel found in a guest.
type Kernel struct {
	*Profile
	Memory phys.Memory // under the layout that was proven
	Space  *virt.Space // the kernel's address space, direct map included
	Text   virt.Addr   // of _text
	TextPA phys.Addr   // of _text
	PTI    bool        // page-table isolation: every process has two roots
	// Layout names the guest-physical map that was proven against the page
	// tables; empty if the source of the memory knew its map itself.
	Layout string
	State  State
	// Vmcoreinfo is the kernel's own note for crash-dump tools; nil if there is
	// none yet.
	Vmcoreinfo Vmcoreinfo
	// Inconsistencies are contradictions between what the kernel says of itself in
	// different places, one sentence each. A healthy guest shows none.
	Inconsistencies []string

	lost       string // what the memory is known to lack; empty: nothing
	vmcoreinfo []byte // as text
	cache      *cacheEntry
}

// Over is the same kernel in other memory: the same guest at another time. Nothing is
// searched or proven again, but its state is read, and the direct map is trusted only
// where that memory still shows it.
func (k *Kernel) Over(mem phys.Memory) *Kernel {
	c := *k
	c.Memory, c.Space = mem, k.Space.Over(mem)
	c.readState()
	return &c
}

// VmcoreinfoText is [Kernel.Vmcoreinfo] as the kernel wrote it, up to a page; nil
// if there is none.
func (k *Kernel) VmcoreinfoText() []byte { return k.vmcoreinfo }

// Offset is by how much KASLR moved the kernel, in bytes.
func (k *Kernel) Offset() uint64 { return uint64(k.Text) - linkText }

// PhysBase is the kernel's phys_base: what to add to an image address, less
// __START_KERNEL_map, to get its guest-physical address.
func (k *Kernel) PhysBase() int64 { return int64(k.TextPA) - int64(k.Text-startKernelMap) }

// Address is where a symbol is in this guest. Per-CPU symbols have none.
func (k *Kernel) Address(name string) (virt.Addr, bool) {
	s, ok := k.Symbol(name)
	if !ok || s.Percpu {
		return 0, false
	}
	return k.Text + virt.Addr(s.Rel), true
}

// Pointer reads the 64-bit variable of that name.
func (k *Kernel) Pointer(name string) (virt.Addr, error) {
	a, ok := k.Address(name)
	if !ok {
		return 0, fmt.Errorf("symbol %s: %w", name, ErrNoSymbol)
	}
	v, err := k.Space.U64(a)
	if err != nil {
		return 0, fmt.Errorf("variable %s: %w", name, err)
	}
	return virt.Addr(v), nil
}

// ErrNoSymbol says that the kernel's table has no symbol of a name.
var ErrNoSymbol = errors.New("not in the kernel's symbol table")

const (
	present  = 1
	addrMask = 0x000f_ffff_ffff_f000
)

// settle proves that the image is a running kernel, by its own page tables, and
// makes a Kernel of it.
func (im *image) settle() (*Kernel, error) {
	k := &Kernel{Profile: im.profile, Memory: im.mem, TextPA: im.text}
	levels, text, err := im.topLevel()
	if err != nil {
		return nil, err
	}
	if err := k.place(im, levels, text); err != nil {
		return nil, err
	}
	root, _ := im.at("init_top_pgt")
	root += k.TextPA - im.text
	k.Space = virt.New(k.Memory, root, levels)
	if !k.findText() {
		return nil, fmt.Errorf("kernel %s at %#x is not mapped by its own page tables: a copy, or not started yet", k.Release, uint64(k.TextPA))
	}
	if err := k.findDirectMap(); err != nil {
		return nil, err
	}
	if _, named := k.Symbol("init_uts_ns"); !named {
		k.follow()
		k.followCode()
	}
	k.readState()
	k.readVmcoreinfo()
	return k, nil
}

// topLevel reads the entry of the kernel's top-level page table that maps the
// kernel itself. It points into the image again, at level3_kernel_pgt (or
// level4_kernel_pgt under LA57), and so shows two things at once: the paging
// mode, and the guest-physical address at which the kernel believes it is loaded.
func (im *image) topLevel() (levels int, text phys.Addr, err error) {
	root, ok := im.at("init_top_pgt")
	if !ok {
		return 0, 0, fmt.Errorf("kernel %s has no init_top_pgt: it is not an amd64 kernel", im.profile.Release)
	}
	var b [8]byte
	if _, err := im.mem.ReadAt(b[:], root+511*8); err != nil {
		return 0, 0, fmt.Errorf("top-level page table of kernel %s: %w", im.profile.Release, err)
	}
	e := binary.LittleEndian.Uint64(b[:])
	if e&present == 0 {
		return 0, 0, fmt.Errorf("kernel %s at %#x has not set up its page tables", im.profile.Release, uint64(im.text))
	}
	for levels, name := range map[int]string{virt.Levels4: "level3_kernel_pgt", virt.Levels5: "level4_kernel_pgt"} {
		s, ok := im.profile.Symbol(name)
		if !ok {
			continue
		}
		text := phys.Addr(e&addrMask) - phys.Addr(s.Rel)
		if text == im.text {
			return levels, text, nil
		}
		// Under a guessed layout only the offset within a page can be relied
		// on; under a known one this is a copy that does not run.
		if _, placeable := phys.As[phys.Placeable](im.mem); placeable && im.guess && text%align == 0 {
			return levels, text, nil
		}
	}
	return 0, 0, fmt.Errorf("kernel %s at %#x does not run there: its page tables point to %#x", im.profile.Release, uint64(im.text), e&addrMask)
}

// findText finds where the page tables map _text: the KASLR offset, proven.
func (k *Kernel) findText() bool {
	for m := range k.Space.Mappings(startKernelMap, startKernelMap+imageMax-1) {
		if k.TextPA >= m.PA && uint64(k.TextPA-m.PA) < m.Size {
			k.Text = m.VA + virt.Addr(k.TextPA-m.PA)
			return true
		}
	}
	return false
}

// findDirectMap finds the linear mapping of all RAM and switches the fast path
// on. The mapping itself is verified piece by piece, when used.
func (k *Kernel) findDirectMap() error {
	base := virt.Addr(directBase4)
	if k.Space.Levels() == virt.Levels5 {
		base = directBase5
	}
	if _, randomized := k.Symbol("page_offset_base"); randomized {
		b, err := k.Pointer("page_offset_base")
		if err != nil {
			return fmt.Errorf("direct map: %w", err)
		}
		base = b
	} else if found, ok := k.searchDirectMap(); ok {
		base = found // not randomized, or built without CONFIG_KALLSYMS_ALL
	}
	space := k.Space.WithDirectMap(base)
	if pa, ok := space.DirectMapped(base + virt.Addr(k.TextPA)); !ok || pa != k.TextPA {
		// Not fatal: every access then walks the page tables.
		k.Inconsistencies = append(k.Inconsistencies, fmt.Sprintf("the direct map at %#x does not lead to the kernel's text at %#x", uint64(base), uint64(k.TextPA)))
	}
	k.Space = space
	return nil
}

// State is the kernel's system_state.
type State int32

// The states (include/linux/kernel.h). The numbers moved in 6.0, so they are
// looked up by name.
const (
	StateUnknown State = iota
	StateBooting       // SYSTEM_BOOTING, SYSTEM_SCHEDULING, SYSTEM_FREEING_INITMEM
	StateRunning
	StateHalted     // SYSTEM_HALT
	StatePoweredOff // SYSTEM_POWER_OFF
	StateRestarting // SYSTEM_RESTART
	StateSuspended  // SYSTEM_SUSPEND
)

func (s State) String() string {
	return [...]string{"unknown", "booting", "running", "halted", "powered off", "restarting", "suspended"}[s]
}

var stateNames = map[string]State{
	"SYSTEM_BOOTING": StateBooting, "SYSTEM_SCHEDULING": StateBooting, "SYSTEM_FREEING_INITMEM": StateBooting,
	"SYSTEM_RUNNING": StateRunning, "SYSTEM_HALT": StateHalted, "SYSTEM_POWER_OFF": StatePoweredOff,
	"SYSTEM_RESTART": StateRestarting, "SYSTEM_SUSPEND": StateSuspended,
}

func (k *Kernel) readState() {
	a, ok := k.Address("system_state")
	if !ok {
		return
	}
	v, err := k.Space.U32(a)
	if err != nil {
		return
	}
	for name, state := range stateNames {
		if n, err := k.EnumValue("system_states", name); err == nil && n == int64(v) {
			k.State = state
		}
	}
	const ptiWord, ptiBit = 7, 11 // X86_FEATURE_PTI (arch/x86/include/asm/cpufeatures.h)
	if a, ok := k.Address("boot_cpu_data"); ok {
		if f, err := k.Field("cpuinfo_x86", "x86_capability"); err == nil {
			caps, err := k.Space.U32(a + virt.Addr(f.Offset+4*ptiWord))
			k.PTI = err == nil && caps&(1<<ptiBit) != 0
		}
	}
}

// readVmcoreinfo reads the kernel's note and compares it with what was found.
func (k *Kernel) readVmcoreinfo() {
	p, err := k.Pointer("vmcoreinfo_data")
	if err != nil || p == 0 {
		return
	}
	b := make([]byte, maxVmcoreinfo)
	if _, err := k.Space.ReadAt(b, p); err != nil || !bytes.HasPrefix(b, []byte("OSRELEASE=")) {
		return
	}
	v := ParseVmcoreinfo(b)
	k.Vmcoreinfo = v
	k.vmcoreinfo, _, _ = bytes.Cut(b, []byte{0})
	inconsistent := func(what string, says, found any) {
		k.Inconsistencies = append(k.Inconsistencies, fmt.Sprintf("%s: vmcoreinfo says %v, memory says %v", what, says, found))
	}
	if r := v["OSRELEASE"]; r != k.Release {
		inconsistent("release", r, k.Release)
	}
	if id := validID(v["BUILD-ID"]); id != "" && id != k.BuildID {
		if k.BuildID == "" {
			k.BuildID = id
		} else {
			inconsistent("build-id", id, k.BuildID)
		}
	}
	if off, ok := v.KernelOffset(); ok && off != k.Offset() {
		inconsistent("KASLR offset", fmt.Sprintf("%#x", off), fmt.Sprintf("%#x", k.Offset()))
	}
	if l5, ok := v.Number("pgtable_l5_enabled"); ok && (l5 != 0) != (k.Space.Levels() == virt.Levels5) {
		inconsistent("5-level paging", l5 != 0, k.Space.Levels() == virt.Levels5)
	}
	if base, ok := v.Number("phys_base"); ok && base != k.PhysBase() {
		inconsistent("phys_base", fmt.Sprintf("%#x", base), fmt.Sprintf("%#x", k.PhysBase()))
	}
}
