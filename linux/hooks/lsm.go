package hooks

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// SecurityHook is one function that a security module put on one of the kernel's
// security hooks.
type SecurityHook struct {
	Hook   string // such as file_open
	LSM    string // name of the module
	Order  int    // place among those of the same hook, from 0
	Func   virt.Addr
	Called virt.Addr // by the hook's code, where static calls are used (since 6.12)
	// Active says that the kernel calls it. Of static calls a key can switch it off.
	Active bool
	Addr   virt.Addr // struct security_hook_list
}

type lsmLayout struct {
	list, hook, lsm, lsmID, idName kobj.Field
	key, hl, active, keyFunc       kobj.Field
	callSize                       uint32
	enabled                        kobj.Field
}

func lsmLayoutOf(s *linux.System) (*lsmLayout, error) {
	return kobj.LayoutOf(s.Walker, "security modules", func(r *kobj.Resolver, o *lsmLayout) {
		r.Prefetch("static_calls_table", "security_hook_heads", "lsm_names", "lsm_idlist", "lsm_active_cnt")
		const h = "security_hook_list"
		o.hook = r.Field(h, "hook")
		o.list = r.Optional(h, "list")          // up to 6.11
		o.lsm = r.Optional(h, "lsm")            // a name, up to 6.7
		o.lsmID = r.Optional(h, "lsmid")        // 6.8
		o.idName = r.Optional("lsm_id", "name") // 6.8
		const c = "lsm_static_call"             // 6.12
		o.key, o.hl = r.Optional(c, "key"), r.Optional(c, "hl")
		o.active = r.Optional(c, "active")
		o.keyFunc = r.Optional("static_call_key", "func")
		o.enabled = r.Optional("static_key", "enabled")
		if o.hl.Present() {
			o.callSize = r.Size(c)
		}
	})
}

// LSMs are the active security modules in their order, as /sys/kernel/security/lsm
// lists them.
func LSMs(s *linux.System) ([]string, error) {
	o, err := lsmLayoutOf(s)
	if err != nil {
		return nil, err
	}
	var names []string
	list, ok1 := s.Address("lsm_idlist") // 6.8
	count, ok2 := s.Address("lsm_active_cnt")
	if ok1 && ok2 && o.idName.Present() {
		r := s.Reader()
		n := r.U32(count)
		for i := range min(n, 64) {
			id := r.Ptr(list + virt.Addr(8*i))
			names = append(names, r.CString(r.Pointer(id, o.idName), 64))
		}
		if err := r.Err; err != nil {
			return nil, fmt.Errorf("names of the security modules: %w", err)
		}
		return names, nil
	}
	p, err := s.Pointer("lsm_names")
	if err != nil || p == 0 {
		return nil, fmt.Errorf("names of the security modules: %w: %w", kobj.ErrUnsupported, err)
	}
	text, err := s.StringAt(p, 1024)
	if err != nil {
		return nil, fmt.Errorf("names of the security modules: %w", err)
	}
	return splitComma(text), nil
}

func splitComma(text string) []string {
	var words []string
	for start, i := 0, 0; i <= len(text); i++ {
		if i == len(text) || text[i] == ',' {
			if i > start {
				words = append(words, text[start:i])
			}
			start = i + 1
		}
	}
	return words
}

// SecurityHooks yields the functions on the kernel's security hooks, hook by hook
// in the order in which they are called.
func SecurityHooks(ctx context.Context, s *linux.System) iter.Seq2[*SecurityHook, error] {
	return func(yield func(*SecurityHook, error) bool) {
		o, err := lsmLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		if table, ok := s.Address("static_calls_table"); ok && o.hl.Present() {
			members, err := s.Members("lsm_static_calls_table")
			if err != nil {
				yield(nil, err)
				return
			}
			for _, m := range members {
				n := m.Size / max(o.callSize, 1)
				if ctx.Err() != nil || !staticHooks(s, o, m.Name, table+virt.Addr(m.Offset), min(n, 64), yield) {
					return
				}
			}
			return
		}
		heads, ok := s.Address("security_hook_heads")
		if !ok || !o.list.Present() {
			yield(nil, fmt.Errorf("security hooks: %w: %w", kobj.ErrUnsupported, kernel.ErrNoSymbol))
			return
		}
		members, err := s.Members("security_hook_heads")
		if err != nil {
			yield(nil, err)
			return
		}
		for _, m := range members {
			if !listedHooks(ctx, s, o, m.Name, heads+virt.Addr(m.Offset), yield) {
				return
			}
		}
	}
}

// staticHooks yields what the static calls of one hook call.
func staticHooks(s *linux.System, o *lsmLayout, hook string, table virt.Addr, n uint32, yield func(*SecurityHook, error) bool) bool {
	order := 0
	for i := range n {
		call := table + virt.Addr(i*o.callSize)
		h, err := staticHook(s, o, call)
		switch {
		case err != nil:
			err = fmt.Errorf("security hook %s at %#x: %w", hook, uint64(call), err)
		case h == nil:
			continue
		}
		if h != nil {
			h.Hook, h.Order = hook, order
		}
		order++
		if !yield(h, err) {
			return false
		}
	}
	return true
}

// staticHook is what the static call at call calls; nil if it is free.
func staticHook(s *linux.System, o *lsmLayout, call virt.Addr) (*SecurityHook, error) {
	r := s.Reader()
	hl, active := r.Pointer(call, o.hl), r.Pointer(call, o.active)
	on := active != 0 && int32(r.U32(active)) > 0 // a static_key_false begins with its count
	var called virt.Addr
	if key := r.Pointer(call, o.key); key != 0 {
		called = r.Pointer(key, o.keyFunc)
	}
	// Free ones come first. One that is on has no security module that it is known of.
	if r.Err != nil || hl == 0 && !on {
		return nil, r.Err
	}
	h := &SecurityHook{Addr: hl, Called: called, Active: on}
	if hl == 0 {
		h.Func = called
		return h, nil
	}
	h.Func = r.Pointer(hl, o.hook)
	h.LSM = lsmName(&r, o, hl)
	return h, r.Err
}

func lsmName(r *kobj.Reader, o *lsmLayout, hl virt.Addr) string {
	name := r.Pointer(hl, o.lsm)
	if o.lsmID.Present() {
		if id := r.Pointer(hl, o.lsmID); id != 0 {
			name = r.Pointer(id, o.idName)
		}
	}
	if name == 0 {
		return ""
	}
	return r.CString(name, 64)
}

// listedHooks yields the functions in one hook's list.
func listedHooks(ctx context.Context, s *linux.System, o *lsmLayout, hook string, head virt.Addr, yield func(*SecurityHook, error) bool) bool {
	order := 0
	for node, err := range s.HList(ctx, head, 1024) {
		var h *SecurityHook
		if err == nil {
			h = &SecurityHook{Hook: hook, Order: order, Addr: node - virt.Addr(o.list.Offset), Active: true}
			r := s.Reader()
			h.Func = r.Pointer(h.Addr, o.hook)
			h.LSM = lsmName(&r, o, h.Addr)
			err = r.Err
		}
		order++
		if err != nil {
			h, err = nil, fmt.Errorf("security hook %s: %w", hook, err)
		}
		if !yield(h, err) {
			return false
		}
	}
	return true
}
