package check

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// familyOps make the sockets of a family.
var familyOps = operations{structure: "net_proto_family", functions: []string{"create"}}

// families judges who makes sockets.
func (w *opsWalk) families(context.Context, *opsLayout) {
	a, ok := w.s.Linux.Address("net_families")
	if !ok {
		return
	}
	const families = 45 // AF_MAX of 5.10
	table, err := w.s.Linux.Pointers(a, families)
	if err != nil {
		w.fail(fmt.Errorf("net_families: %w", err))
		return
	}
	// Those that come with Linux; other families are for others to add.
	own := map[int]string{1: "unix", 2: "inet", 10: "inet6", 16: "netlink", 17: "packet"}
	for number, p := range table {
		name := func() string { return fmt.Sprintf("net_families[%d]", number) }
		w.judge(&familyOps, p, name)
		if of := own[number]; of != "" && p != 0 {
			if holder := w.owners.HolderAt(p); holder.Kind == linux.OwnerModule {
				w.strange(&familyOps, p, holder.Name, "", "those who make sockets of the family "+of, name)
			}
		}
	}
}

// linkMessages stands for the functions that serve a message of rtnetlink.
var linkMessages = operations{structure: "rtnl_link"}

const (
	linkFamilies = 129 // RTNL_FAMILY_MAX and one, since 5.8
	linkKinds    = 96  // RTM_NR_MSGTYPES at least, from 5.10
)

// linkHandlers judges who answers ip, ifconfig and others that ask for interfaces, addresses and routes. A module that does says so in owner, and the
// kernel's own functions are the kernel's.
func (w *opsWalk) linkHandlers(ctx context.Context, _ *opsLayout) {
	a, ok := w.s.Linux.Address("rtnl_msg_handlers")
	if !ok {
		return
	}
	type layout struct{ do, dump, owner kobj.Field }
	o, err := kobj.LayoutOf(w.s.Linux.Walker, "messages of rtnetlink", func(r *kobj.Resolver, o *layout) {
		o.do, o.dump, o.owner = r.Field("rtnl_link", "doit"), r.Field("rtnl_link", "dumpit"), r.Field("rtnl_link", "owner")
	})
	if err != nil {
		return // a kernel of another kind
	}
	families, err := w.s.Linux.Pointers(a, linkFamilies)
	if err != nil {
		w.fail(fmt.Errorf("rtnl_msg_handlers: %w", err))
		return
	}
	for family, kinds := range families {
		if kinds == 0 || ctx.Err() != nil {
			continue
		}
		links, err := w.s.Linux.Pointers(kinds, linkKinds)
		if err != nil {
			w.fail(fmt.Errorf("rtnl_msg_handlers[%d]: %w", family, err))
			continue
		}
		for kind, link := range links {
			if link == 0 || !w.spend() {
				continue
			}
			w.r.Err = nil
			owner := w.r.Pointer(link, o.owner)
			for _, f := range []struct {
				member string
				at     virt.Addr
			}{{"doit", w.r.Pointer(link, o.do)}, {"dumpit", w.r.Pointer(link, o.dump)}} {
				if w.r.Err == nil && f.at != 0 {
					w.linkHandler(link, owner, f.at, f.member, family, kind)
				}
			}
		}
	}
}

// linkHandler judges one function that serves a message.
func (w *opsWalk) linkHandler(link, owner, f virt.Addr, member string, family, kind int) {
	const base = 16 // RTM_BASE
	name := fmt.Sprintf("the handler of rtnetlink's message %d of family %d", base+kind, family)
	switch of := w.owners.OwnerAt(f); of.Kind {
	case linux.OwnerKernel:
	case linux.OwnerNone:
		w.found(&linkMessages, link, name, fmt.Sprintf("has a function %s whose owner is unknown", member), "a function of the kernel or a module", fmt.Sprintf("%#x", uint64(f)), f, member)
	case linux.OwnerModule:
		if owner != 0 {
			if m, err := w.s.Linux.ModuleAt(owner); err != nil || m.Name == of.Name {
				return
			}
		}
		who := describeOwner(w.owners, f)
		w.found(&linkMessages, link, name, fmt.Sprintf("has a function %s of %s, which did not register it", member, of), "a function of the kernel, or of the module that is its owner", fmt.Sprintf("%s (%#x)", who, uint64(f)), f, member)
	}
}
