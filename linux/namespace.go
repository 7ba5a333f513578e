package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime/debug"
	"slices"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// NamespaceInfo is one namespace, with or without processes in it.
type NamespaceInfo struct {
	Kind       string // as in /proc/PID/ns: "cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"
	Inode      uint64
	Addr       virt.Addr // of the structure that it is
	Processes  int       // whose leading thread is in it
	Threads    int       // that are in it
	FirstPID   int32     // the lowest of those processes; 0 without any
	Owner      uint64    // inode of the user namespace that owns it; of a user namespace, its parent
	Parent     uint64    // inode of the parent, of PID and user namespaces; 0 at the top
	Creator    uint32    // user who made it
	HasCreator bool
	Hostname   string // of a UTS namespace
}

// nsKind is how one kind of namespace is laid out.
type nsKind struct {
	name                 string
	proxy                Field // in struct nsproxy; absent for pid and user
	children             Field // for those that only children get
	inum, owner, ucounts Field
	parent               Field
	common               Field // struct ns_common, by which trees hold it
}

type namespaceLayout struct {
	kinds      []nsKind
	uid        Field // struct ucounts
	userOwner  Field // struct user_namespace
	netList    Field
	nodename   Field
	treeNode   Field // ns_common, 6.18
	mntNode    Field // mnt_namespace, 6.8 to 6.17
	pid, users int   // which of kinds
}

func (s *System) namespaceLayout() (*namespaceLayout, error) {
	return layoutOf(s.Walker, "namespaces", func(r *resolver, o *namespaceLayout) {
		symbols := []string{"net_namespace_list", "mnt_ns_tree"}
		kind := func(name, structure, proxy, children string) {
			k := nsKind{name: name, parent: Field{}, proxy: Field{}, children: Field{}}
			k.inum = r.optional(structure, "ns.inum")
			if !has(k.inum) {
				return // built without this kind
			}
			if proxy != "" {
				k.proxy = r.optional("nsproxy", proxy)
			}
			if children != "" {
				k.children = r.optional("nsproxy", children)
			}
			k.owner, k.ucounts = r.optional(structure, "user_ns"), r.optional(structure, "ucounts")
			if name == "pid" || name == "user" {
				k.parent = r.field(structure, "parent")
			}
			k.common = r.optional(structure, "ns")
			o.kinds = append(o.kinds, k)
			symbols = append(symbols, name+"_ns_tree")
		}
		kind("cgroup", "cgroup_namespace", "cgroup_ns", "")
		kind("ipc", "ipc_namespace", "ipc_ns", "")
		kind("mnt", "mnt_namespace", "mnt_ns", "")
		kind("net", "net", "net_ns", "")
		o.pid = len(o.kinds)
		kind("pid", "pid_namespace", "", "pid_ns_for_children")
		kind("time", "time_namespace", "time_ns", "time_ns_for_children")
		o.users = len(o.kinds)
		kind("user", "user_namespace", "", "")
		if o.users == len(o.kinds) {
			o.users = -1
		}
		kind("uts", "uts_namespace", "uts_ns", "")
		r.symbols(symbols...)
		o.uid, o.userOwner = r.optional("ucounts", "uid"), r.optional("user_namespace", "owner")
		o.netList, o.nodename = r.optional("net", "list"), r.optional("uts_namespace", "name.nodename")
		o.treeNode = r.optional("ns_common", "ns_tree_node.ns_node")
		o.mntNode = r.optional("mnt_namespace", "mnt_ns_tree_node")
	})
}

// maxNamespaces bounds how many namespaces are looked at.
const maxNamespaces = 1 << 18

// nsCensus counts who is where.
type nsCensus struct {
	s     *System
	o     *namespaceLayout
	l     *Lister
	found map[virt.Addr]*NamespaceInfo
	kinds map[virt.Addr]int
}

// Namespaces yields all namespaces that are known, by kind and inode: those of the
// tasks, those above and owning these, and those on the kernel's registers, where
// one without processes stands too: that of networks always, that of mounts since
// 6.8, of all kinds since 6.18.
func (s *System) Namespaces(ctx context.Context) iter.Seq2[*NamespaceInfo, error] {
	return func(yield func(*NamespaceInfo, error) bool) {
		o, err := s.namespaceLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		c := &nsCensus{s: s, o: o, l: s.NewLister(), found: map[virt.Addr]*NamespaceInfo{}, kinds: map[virt.Addr]int{}}
		var errs []error
		fail := func(err error) {
			if err != nil && len(errs) < 1000 {
				errs = append(errs, err)
			}
		}
		c.tasks(ctx, fail)
		c.registers(ctx, fail)
		fail(c.relatives())
		broken := map[*NamespaceInfo]error{}
		for _, n := range c.found {
			if err := c.describe(n); err != nil {
				broken[n] = err
			}
		}
		all := slices.SortedFunc(maps.Values(c.found), func(a, b *NamespaceInfo) int {
			return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Inode, b.Inode), cmp.Compare(a.Addr, b.Addr))
		})
		for _, n := range all {
			if !yield(n, broken[n]) {
				return
			}
		}
		for _, err := range errs {
			if !yield(nil, err) {
				return
			}
		}
	}
}

// seen is the namespace at a, noted if it is new.
func (c *nsCensus) seen(kind int, a virt.Addr) *NamespaceInfo {
	if a == 0 || kind < 0 || !c.s.Space.KernelHalf(a) {
		return nil
	}
	n, ok := c.found[a]
	if !ok {
		if len(c.found) >= maxNamespaces {
			return nil
		}
		n = &NamespaceInfo{Kind: c.o.kinds[kind].name, Addr: a}
		c.found[a], c.kinds[a] = n, kind
	}
	return n
}

func (c *nsCensus) tasks(ctx context.Context, fail func(error)) {
	for p, err := range c.s.Processes(ctx) {
		if err != nil {
			fail(err)
			continue
		}
		for t, err := range c.l.Threads(ctx, p) {
			if err != nil {
				fail(err)
				continue
			}
			fail(c.task(t))
		}
	}
}

// task counts t where it is.
func (c *nsCensus) task(t Task) (err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	o, r, a := c.s.o, &c.l.r, t.Addr
	r.err = nil
	pid, tid := int32(r.u32(a+virt.Addr(o.tgid))), int32(r.u32(a+virt.Addr(o.pid)))
	count := func(kind int, at virt.Addr) {
		n := c.seen(kind, at)
		if n == nil || r.err != nil {
			return
		}
		n.Threads++
		if pid == tid {
			n.Processes++
			if n.FirstPID == 0 || pid < n.FirstPID {
				n.FirstPID = pid
			}
		}
	}
	count(c.o.users, r.ptr(r.ptr(a+virt.Addr(o.realCred))+virt.Addr(o.userNS)))
	if p := r.ptr(a + virt.Addr(o.threadPid)); p != 0 {
		level := min(r.u32(p+virt.Addr(o.pidLevel)), 32)
		count(c.o.pid, r.ptr(p+virt.Addr(o.pidNumbers)+virt.Addr(level*o.upidSize)+virt.Addr(o.upidNS)))
	}
	if proxy := r.ptr(a + virt.Addr(o.nsproxy)); proxy != 0 {
		for i, k := range c.o.kinds {
			count(i, r.pointer(proxy, k.proxy))
			c.seen(i, r.pointer(proxy, k.children))
		}
	}
	if r.err != nil {
		return fmt.Errorf("namespaces of task %#x: %w", uint64(a), r.err)
	}
	return nil
}

// registers notes what stands on the kernel's own lists.
func (c *nsCensus) registers(ctx context.Context, fail func(error)) {
	kind := func(name string) int {
		return slices.IndexFunc(c.o.kinds, func(k nsKind) bool { return k.name == name })
	}
	if head, err := c.s.listHead("net_namespace_list"); err == nil && has(c.o.netList) {
		for node, err := range c.s.list(ctx, head, maxNamespaces) {
			if err != nil {
				fail(fmt.Errorf("network namespaces: %w", err))
				continue
			}
			c.seen(kind("net"), node-virt.Addr(c.o.netList.Offset))
		}
	}
	for i, k := range c.o.kinds {
		root, ok := c.s.Address(k.name + "_ns_tree")
		node := c.o.treeNode
		base := k.common
		if !has(node) { // one tree only, with a node of its own
			node, base = c.o.mntNode, FieldAt(0, 0)
			ok = ok && k.name == "mnt"
		}
		if !ok || !has(node) || !has(base) {
			continue
		}
		for n, err := range c.s.rbtree(ctx, root, maxNamespaces) {
			if err != nil {
				fail(fmt.Errorf("%s namespaces: %w", k.name, err))
				continue
			}
			c.seen(i, n-virt.Addr(node.Offset)-virt.Addr(base.Offset))
		}
	}
}

// relatives notes those above, and the owners, of all that are known.
func (c *nsCensus) relatives() (err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	var errs []error
	todo := slices.Sorted(maps.Keys(c.found))
	for len(todo) > 0 {
		a := todo[0]
		todo = todo[1:]
		k := c.o.kinds[c.kinds[a]]
		for i, f := range []Field{k.parent, k.owner} {
			kind := []int{c.kinds[a], c.o.users}[i]
			c.l.r.err = nil
			p := c.l.r.pointer(a, f)
			if c.l.r.err != nil {
				errs = append(errs, fmt.Errorf("%s namespace at %#x: %w", k.name, uint64(a), c.l.r.err))
				continue
			}
			if _, known := c.found[p]; !known && p != 0 && c.seen(kind, p) != nil {
				todo = append(todo, p)
			}
		}
		if len(errs) > 1000 {
			break
		}
	}
	return errors.Join(errs...)
}

// describe reads what n tells of itself.
func (c *nsCensus) describe(n *NamespaceInfo) (err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	r, k := &c.l.r, c.o.kinds[c.kinds[n.Addr]]
	r.err = nil
	n.Inode = r.num(n.Addr, k.inum)
	inum := func(kind int, f Field) uint64 {
		if p := r.pointer(n.Addr, f); p != 0 && kind >= 0 {
			return r.num(p, c.o.kinds[kind].inum)
		}
		return 0
	}
	n.Parent = inum(c.kinds[n.Addr], k.parent)
	n.Owner = inum(c.o.users, k.owner)
	if k.name == "user" {
		n.Owner, n.Creator, n.HasCreator = n.Parent, uint32(r.num(n.Addr, c.o.userOwner)), has(c.o.userOwner)
	} else if u := r.pointer(n.Addr, k.ucounts); u != 0 && has(c.o.uid) {
		n.Creator, n.HasCreator = uint32(r.num(u, c.o.uid)), true
	}
	if k.name == "uts" && has(c.o.nodename) {
		n.Hostname = cString(r.bytes(at(n.Addr, c.o.nodename), 65))
	}
	if r.err != nil {
		return fmt.Errorf("%s namespace at %#x: %w", k.name, uint64(n.Addr), r.err)
	}
	return nil
}
