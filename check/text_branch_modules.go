package check

import (
	"encoding/binary"
	"maps"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// A module can name only what the kernel and the modules that it uses export, and the kernel notes
// for each module which others use it (struct module.source_list). So a branch from one module into
// one that has nothing to do with it was written by somebody else. That needs no file of either.

// moduleTies are which modules use which, in both directions: a module that another one uses calls
// it by static calls, as kvm does kvm_amd.
type moduleTies struct {
	known bool // false: this kernel does not note it, or it could not be read
	ties  map[[2]string]bool
	free  map[string]bool // live patches, which may call what they patch without using it
}

// tied reports whether a module may branch into another; true if that is not to be told.
func (w *branchWalk) tied(module, other string) bool {
	if module == other {
		return true
	}
	if w.ties == nil {
		w.ties = w.readTies()
	}
	return !w.ties.known || w.ties.free[module] || w.ties.ties[[2]string{module, other}]
}

func (w *branchWalk) readTies() *moduleTies {
	t := &moduleTies{ties: map[[2]string]bool{}, free: map[string]bool{}}
	modules, err := w.s.Modules()
	if err != nil {
		return t
	}
	if _, err := w.s.Linux.Member("module", "source_list"); err != nil {
		return t // built without CONFIG_MODULE_UNLOAD
	}
	for _, m := range modules {
		if m.Taints&linux.TaintLivepatch != 0 {
			t.free[m.Name] = true
		}
		users, err := m.Dependants(w.ctx)
		if err != nil {
			return t // it has just changed
		}
		for _, u := range users {
			t.ties[[2]string{m.Name, u}], t.ties[[2]string{u, m.Name}] = true, true
		}
	}
	t.known = true
	return t
}

// betweenModules reports whether the branch b at a, which is in the function from of a module and
// leads into another module's function, is to be judged. The jumps that processor features decide
// (static_cpu_has) of an init function are left behind when that is freed, in no function of their own,
// and another module may have its place now: of jumps, those at a function's beginning alone are.
func (w *branchWalk) betweenModules(a virt.Addr, module string, from, to linux.Owner) bool {
	if to.Offset != 0 || strings.HasPrefix(from.Symbol, "__SCT__") || w.tied(module, to.Name) {
		return false
	}
	const beginning, call, jump, jumpIf = 16, 0xe8, 0xe9, 0x0f
	var b [1]byte
	if w.s.Linux.ReadAt(b[:], a) != nil {
		return false
	}
	return from.Offset <= beginning || b[0] != jump && b[0] != jumpIf
}

// addStaticCalls adds the static calls of a module to what may be.
func (w *branchWalk) addStaticCalls(module string) bool {
	if _, ok := w.added[module]; ok {
		return true
	}
	o, err := kobj.LayoutOf(w.s.Linux.Walker, "static calls of modules", func(r *kobj.Resolver, o *struct{ sites, count kobj.Field }) {
		o.sites, o.count = r.Field("module", "static_call_sites"), r.Field("module", "num_static_call_sites")
	})
	if err != nil {
		return true // before 5.10 there are none
	}
	modules, err := w.s.Modules()
	if err != nil {
		return false
	}
	const maxEntries = 1 << 16
	calls := map[virt.Addr]virt.Addr{}
	for _, m := range modules {
		if m.Name != module {
			continue
		}
		r := w.s.Linux.Reader()
		at, n := r.Pointer(m.Addr, o.sites), r.Uint(m.Addr, o.count)
		if r.Err != nil || n > maxEntries {
			return false
		}
		of, ok := staticCalls(w.s, at, n)
		if !ok {
			return false
		}
		maps.Copy(calls, of)
	}
	if w.added == nil {
		w.added = map[string]map[virt.Addr]virt.Addr{}
	}
	w.added[module] = calls
	return true
}

// staticCalls are the n static calls (struct static_call_site) of a table, with their keys.
func staticCalls(s *Subject, table virt.Addr, n uint64) (calls map[virt.Addr]virt.Addr, ok bool) {
	if n == 0 {
		return nil, true
	}
	const entry = 8
	b := make([]byte, entry*n)
	if s.Linux.ReadAt(b, table) != nil {
		return nil, false
	}
	calls = make(map[virt.Addr]virt.Addr, n)
	for i := 0; i < len(b); i += entry {
		at := func(i int) virt.Addr {
			return table + virt.Addr(i) + virt.Addr(int64(int32(binary.LittleEndian.Uint32(b[i:]))))
		}
		calls[at(i)] = at(i+4) &^ 3
	}
	return calls, true
}
