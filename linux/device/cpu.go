package device

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"strings"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Processor is what the kernel knows of one processor.
type Processor struct {
	Number                    int
	Online, Present, Possible bool
	// Info is where the struct cpuinfo_x86 lies; 0 where the processor has no area of
	// its own. What follows is read from it, and is empty for a processor that was
	// never started: its Vendor is empty then.
	Info                    virt.Addr
	Vendor, ModelName       string
	Family, Model, Stepping int
	Microcode               uint32 // revision
	Cache                   int64  // bytes of the last level; 0: not known
	Package, Die, Core      int64
	APIC                    uint32 // number of its interrupt controller
	PhysBits, VirtBits      int    // of addresses
	Flags, Bugs             []string
}

// processorLayout is struct cpuinfo_x86, which is the processor's, and the names of
// the bits in it.
type processorLayout struct {
	vendor, modelName, family, model, stepping kobj.Field
	microcode, cache, pkg, die, core, apic     kobj.Field
	physBits, virtBits, caps                   kobj.Field
	info                                       string // variable of each processor's
	names, bugs                                virt.Addr
	nNames, nBugs                              int
}

// maxCapabilities bounds the words of capabilities, those for bugs included: 22 and 2
// in 2025.
const maxCapabilities = 64

func processorLayoutOf(s *linux.System) (*processorLayout, error) {
	return kobj.LayoutOf(s.Walker, "processors", func(r *kobj.Resolver, o *processorLayout) {
		r.Prefetch("cpu_info", "boot_cpu_data", "x86_cap_flags", "x86_bug_flags")
		const c = "cpuinfo_x86"
		o.vendor, o.modelName = r.Field(c, "x86_vendor_id"), r.Field(c, "x86_model_id")
		o.family, o.model, o.stepping = r.Field(c, "x86"), r.Field(c, "x86_model"), r.Field(c, "x86_stepping")
		o.microcode, o.cache = r.Field(c, "microcode"), r.Field(c, "x86_cache_size")
		o.pkg, o.core = r.Field(c, "topo.pkg_id", "phys_proc_id"), r.Field(c, "topo.core_id", "cpu_core_id") // 6.7
		o.die, o.apic = r.Field(c, "topo.die_id", "cpu_die_id"), r.Field(c, "topo.apicid", "apicid")
		o.physBits, o.virtBits = r.Field(c, "x86_phys_bits"), r.Field(c, "x86_virt_bits")
		o.caps = r.Field(c, "x86_capability")
		o.info = "cpu_info"
		if _, ok := s.Symbol(o.info); !ok {
			o.info = "" // one processor only: boot_cpu_data is its
		}
		// The names of capabilities are an array of pointers, 32 for each word, and those
		// of bugs, which stand behind them in the bitmap, another.
		words := int(min(o.caps.Size/4, maxCapabilities))
		var size uint64
		if o.bugs, size, _ = s.TableAt("x86_bug_flags"); o.bugs != 0 {
			o.nBugs = int(min(size/(32*8), uint64(words)))
		}
		if o.names, size, _ = s.TableAt("x86_cap_flags"); o.names != 0 {
			o.nNames = int(min(size/(32*8), uint64(words-o.nBugs)))
		}
	})
}

// processorMasks are the addresses of the kernel's sets of processors.
type processorMasks struct{ online, present, possible virt.Addr }

func processorMasksOf(s *linux.System) (*processorMasks, error) {
	return kobj.LayoutOf(s.Walker, "sets of processors", func(r *kobj.Resolver, o *processorMasks) {
		const online, present, possible = "__cpu_online_mask", "__cpu_present_mask", "__cpu_possible_mask"
		r.Prefetch(online, present, possible)
		for name, at := range map[string]*virt.Addr{online: &o.online, present: &o.present, possible: &o.possible} {
			a, err := s.SymbolAddr(name)
			if err != nil {
				r.Errs = append(r.Errs, err)
			}
			*at = a
		}
	})
}

// ProcessorCount is how many processors there are of a kind.
type ProcessorCount struct {
	Online   int // run tasks
	Present  int // are plugged in
	Possible int // could be
}

// CountProcessors counts the processors by the kernel's masks.
func CountProcessors(s *linux.System) (n ProcessorCount, err error) {
	o, err := processorMasksOf(s)
	if err != nil {
		return n, err
	}
	mask := make([]byte, s.CPUMaskSize())
	for count, at := range map[*int]virt.Addr{&n.Online: o.online, &n.Present: o.present, &n.Possible: o.possible} {
		if err := s.ReadAt(mask, at); err != nil {
			return ProcessorCount{}, fmt.Errorf("processors: mask at %#x: %w", uint64(at), err)
		}
		for _, b := range mask {
			*count += bits.OnesCount8(b)
		}
	}
	return n, nil
}

// Processors yields the processors that are or can be in the guest, by number. An
// error beside one says what of it could not be read.
func Processors(ctx context.Context, s *linux.System) iter.Seq2[*Processor, error] {
	return func(yield func(*Processor, error) bool) {
		o, err := processorLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		sets, err := processorMasksOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		var masks [3][]byte
		for i, at := range [...]virt.Addr{sets.online, sets.present, sets.possible} {
			masks[i] = make([]byte, s.CPUMaskSize())
			if err := s.ReadAt(masks[i], at); err != nil {
				yield(nil, fmt.Errorf("processors: mask at %#x: %w", uint64(at), err))
				return
			}
		}
		if s.CPUAreasErr != nil && !yield(nil, s.CPUAreasErr) {
			return
		}
		names, err := processorNames(s, o)
		if err != nil && !yield(nil, err) {
			return
		}
		in := func(mask []byte, n int) bool { return mask[n/8]>>(n%8)&1 != 0 }
		for n := range 8 * len(masks[0]) {
			p := &Processor{Number: n, Online: in(masks[0], n), Present: in(masks[1], n), Possible: in(masks[2], n)}
			if !p.Online && !p.Present && !p.Possible {
				continue
			}
			if n%256 == 255 && ctx.Err() != nil {
				yield(nil, ctx.Err())
				return
			}
			if !yield(p, processor(s, o, p, names)) {
				return
			}
		}
	}
}

// processorNames reads the names of all bits of capabilities; those without one are
// empty.
func processorNames(s *linux.System, o *processorLayout) ([]string, error) {
	bugsAt := int(min(o.caps.Size/4, maxCapabilities)) - o.nBugs
	names := make([]string, 32*(bugsAt+o.nBugs))
	var errs []error
	for _, t := range []struct {
		table   virt.Addr
		words   int
		first   int
		missing string
	}{{o.names, o.nNames, 0, "x86_cap_flags"}, {o.bugs, o.nBugs, bugsAt, "x86_bug_flags"}} {
		if t.words == 0 {
			errs = append(errs, fmt.Errorf("names of the processors' flags: symbol %s: %w", t.missing, kernel.ErrNoSymbol))
			continue
		}
		pointers, err := s.Pointers(t.table, 32*t.words)
		if err != nil {
			errs = append(errs, fmt.Errorf("names of the processors' flags: %w", err))
			continue
		}
		for i, p := range pointers {
			if p == 0 {
				continue
			}
			name, err := s.StringAt(p, 32)
			if err != nil {
				errs = append(errs, fmt.Errorf("name of flag %d of the processors, at %#x: %w", 32*t.first+i, uint64(p), err))
				name = fmt.Sprintf("bit%d", 32*t.first+i)
			}
			names[32*t.first+i] = name
		}
	}
	return names, errors.Join(errs...)
}

// processor reads what is known of p.
func processor(s *linux.System, o *processorLayout, p *Processor, names []string) error {
	switch {
	case o.info == "" && p.Number == 0:
		p.Info, _ = s.Address("boot_cpu_data")
	case p.Number >= len(s.CPUAreas) || o.info == "":
		if !p.Online {
			return nil // it was never started, and has no area
		}
		return fmt.Errorf("processor %d: %w: it is online and has no area", p.Number, kobj.ErrBroken)
	default:
		a, err := s.PerCPU(o.info, p.Number)
		if err != nil {
			return err
		}
		p.Info = a
	}
	r, a := s.Reader(), p.Info
	id := func(f kobj.Field) int64 {
		v := r.Uint(a, f)
		if v == 1<<(8*f.Size)-1 { // BAD_APICID and the like: not known
			return -1
		}
		return int64(v)
	}
	p.Vendor = kobj.CString(r.Bytes(o.vendor.At(a), int(min(o.vendor.Size, 64))))
	p.ModelName = strings.TrimSpace(kobj.CString(r.Bytes(o.modelName.At(a), int(min(o.modelName.Size, 256)))))
	p.Family, p.Model, p.Stepping = int(r.Uint(a, o.family)), int(r.Uint(a, o.model)), int(r.Uint(a, o.stepping))
	p.Microcode, p.APIC = uint32(r.Uint(a, o.microcode)), uint32(r.Uint(a, o.apic))
	p.Cache = 1024 * max(0, r.Int(a, o.cache))
	p.Package, p.Die, p.Core = id(o.pkg), id(o.die), id(o.core)
	p.PhysBits, p.VirtBits = int(r.Uint(a, o.physBits)), int(r.Uint(a, o.virtBits))
	p.Flags, p.Bugs = capabilities(r.Bytes(o.caps.At(a), int(min(o.caps.Size, 4*maxCapabilities))), names, o.nBugs)
	if r.Err != nil {
		return fmt.Errorf("processor %d at %#x: %w", p.Number, uint64(a), r.Err)
	}
	return nil
}

// capabilities are the names of the bits set in caps, whose last words are bugs. Bits
// without a name are not shown to anyone.
func capabilities(caps []byte, names []string, bugWords int) (flags, bugs []string) {
	for i, name := range names[:min(len(names), 8*len(caps))] {
		if name == "" || caps[i/8]>>(i%8)&1 == 0 {
			continue
		}
		if i >= 8*len(caps)-32*bugWords {
			bugs = append(bugs, name)
		} else {
			flags = append(flags, name)
		}
	}
	return flags, bugs
}

// ProcessorKHz is the frequency that the kernel believes its processors to run at, in
// kHz, as it was measured at boot.
func ProcessorKHz(s *linux.System) (uint32, error) {
	a, err := s.SymbolAddr("cpu_khz")
	if err != nil {
		return 0, err
	}
	return s.Space.U32(a)
}
