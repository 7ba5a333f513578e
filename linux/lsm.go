package linux

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/kernel"
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
	list, hook, lsm, lsmID, idName Field
	key, hl, active, keyFunc       Field
	callSize                       uint32
	enabled                        Field
}

func (s *System) lsmLayout() (*lsmLayout, error) {
	return layoutOf(s.Walker, "security modules", func(r *resolver, o *lsmLayout) {
		r.symbols("static_calls_table", "security_hook_heads", "lsm_names", "lsm_idlist", "lsm_active_cnt")
		const h = "security_hook_list"
		o.hook = r.field(h, "hook")
		o.list = r.optional(h, "list")          // up to 6.11
		o.lsm = r.optional(h, "lsm")            // a name, up to 6.7
		o.lsmID = r.optional(h, "lsmid")        // 6.8
		o.idName = r.optional("lsm_id", "name") // 6.8
		const c = "lsm_static_call"             // 6.12
		o.key, o.hl = r.optional(c, "key"), r.optional(c, "hl")
		o.active = r.optional(c, "active")
		o.keyFunc = r.optional("static_call_key", "func")
		o.enabled = r.optional("static_key", "enabled")
		if has(o.hl) {
			o.callSize = r.size(c)
		}
	})
}

// LSMs are the active security modules in their order, as /sys/kernel/security/lsm
// lists them.
func (s *System) LSMs() ([]string, error) {
	o, err := s.lsmLayout()
	if err != nil {
		return nil, err
	}
	var names []string
	list, ok1 := s.Address("lsm_idlist") // 6.8
	count, ok2 := s.Address("lsm_active_cnt")
	if ok1 && ok2 && has(o.idName) {
		err := safely(func() error {
			r := s.reader()
			n := r.u32(count)
			for i := range min(n, 64) {
				id := r.ptr(list + virt.Addr(8*i))
				names = append(names, r.cString(r.pointer(id, o.idName), 64))
			}
			return r.err
		})
		if err != nil {
			return nil, fmt.Errorf("names of the security modules: %w", err)
		}
		return names, nil
	}
	p, err := s.Pointer("lsm_names")
	if err != nil || p == 0 {
		return nil, fmt.Errorf("names of the security modules: %w: %w", ErrUnsupported, err)
	}
	text, err := s.stringAt(p, 1024)
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
func (s *System) SecurityHooks(ctx context.Context) iter.Seq2[*SecurityHook, error] {
	return func(yield func(*SecurityHook, error) bool) {
		o, err := s.lsmLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		if table, ok := s.Address("static_calls_table"); ok && has(o.hl) {
			members, err := s.Members("lsm_static_calls_table")
			if err != nil {
				yield(nil, err)
				return
			}
			for _, m := range members {
				n := m.Size / max(o.callSize, 1)
				if ctx.Err() != nil || !s.staticHooks(o, m.Name, table+virt.Addr(m.Offset), min(n, 64), yield) {
					return
				}
			}
			return
		}
		heads, ok := s.Address("security_hook_heads")
		if !ok || !has(o.list) {
			yield(nil, fmt.Errorf("security hooks: %w: %w", ErrUnsupported, kernel.ErrNoSymbol))
			return
		}
		members, err := s.Members("security_hook_heads")
		if err != nil {
			yield(nil, err)
			return
		}
		for _, m := range members {
			if !s.listedHooks(ctx, o, m.Name, heads+virt.Addr(m.Offset), yield) {
				return
			}
		}
	}
}

// staticHooks yields what the static calls of one hook call.
func (s *System) staticHooks(o *lsmLayout, hook string, table virt.Addr, n uint32, yield func(*SecurityHook, error) bool) bool {
	order := 0
	for i := range n {
		call := table + virt.Addr(i*o.callSize)
		var h *SecurityHook
		err := safely(func() error {
			r := s.reader()
			hl, active := r.pointer(call, o.hl), r.pointer(call, o.active)
			on := active != 0 && int32(r.u32(active)) > 0 // a static_key_false begins with its count
			var called virt.Addr
			if key := r.pointer(call, o.key); key != 0 {
				called = r.pointer(key, o.keyFunc)
			}
			// Free ones come first. One that is on without an owner is nobody's.
			if r.err != nil || hl == 0 && !on {
				return r.err
			}
			h = &SecurityHook{Hook: hook, Order: order, Addr: hl, Called: called, Active: on}
			if hl == 0 {
				h.Func = called
				return nil
			}
			h.Func = r.pointer(hl, o.hook)
			h.LSM = s.lsmName(&r, o, hl)
			return r.err
		})
		if err != nil {
			err = fmt.Errorf("security hook %s at %#x: %w", hook, uint64(call), err)
		} else if h == nil {
			continue
		}
		order++
		if !yield(h, err) {
			return false
		}
	}
	return true
}

func (s *System) lsmName(r *reader, o *lsmLayout, hl virt.Addr) string {
	name := r.pointer(hl, o.lsm)
	if has(o.lsmID) {
		if id := r.pointer(hl, o.lsmID); id != 0 {
			name = r.pointer(id, o.idName)
		}
	}
	if name == 0 {
		return ""
	}
	return r.cString(name, 64)
}

// listedHooks yields the functions in one hook's list.
func (s *System) listedHooks(ctx context.Context, o *lsmLayout, hook string, head virt.Addr, yield func(*SecurityHook, error) bool) bool {
	order := 0
	for node, err := range s.hlist(ctx, head, 1024) {
		var h *SecurityHook
		if err == nil {
			h = &SecurityHook{Hook: hook, Order: order, Addr: node - virt.Addr(o.list.Offset), Active: true}
			err = safely(func() error {
				r := s.reader()
				h.Func = r.pointer(h.Addr, o.hook)
				h.LSM = s.lsmName(&r, o, h.Addr)
				return r.err
			})
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
