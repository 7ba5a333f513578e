package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/outsight-vmi/outsight/linux/kobj"
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
	proxy                kobj.Field // in struct nsproxy; absent for pid and user
	children             kobj.Field // for those that only children get
	inum, owner, ucounts kobj.Field
	parent               kobj.Field
	common               kobj.Field // struct ns_common, by which trees hold it
}

type namespaceLayout struct {
	kinds      []nsKind
	uid        kobj.Field // struct ucounts
	userOwner  kobj.Field // struct user_namespace
	netList    kobj.Field
	nodename   kobj.Field
	treeNode   kobj.Field // ns_common, 6.18
	mntNode    kobj.Field // mnt_namespace, 6.8 to 6.17
	pid, users int        // which of kinds
}

func (s *System) namespaceLayout() (*namespaceLayout, error) {
	return kobj.LayoutOf(s.Walker, "namespaces", func(r *kobj.Resolver, o *namespaceLayout) {
		symbols := []string{"net_namespace_list", "mnt_ns_tree"}
		kind := func(name, structure, proxy, children string) {
			k := nsKind{name: name, parent: kobj.Field{}, proxy: kobj.Field{}, children: kobj.Field{}}
			k.inum = r.Optional(structure, "ns.inum")
			if !k.inum.Present() {
				return // built without this kind
			}
			if proxy != "" {
				k.proxy = r.Optional("nsproxy", proxy)
			}
			if children != "" {
				k.children = r.Optional("nsproxy", children)
			}
			k.owner, k.ucounts = r.Optional(structure, "user_ns"), r.Optional(structure, "ucounts")
			if name == "pid" || name == "user" {
				k.parent = r.Field(structure, "parent")
			}
			k.common = r.Optional(structure, "ns")
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
		r.Prefetch(symbols...)
		o.uid, o.userOwner = r.Optional("ucounts", "uid"), r.Optional("user_namespace", "owner")
		o.netList, o.nodename = r.Optional("net", "list"), r.Optional("uts_namespace", "name.nodename")
		o.treeNode = r.Optional("ns_common", "ns_tree_node.ns_node")
		o.mntNode = r.Optional("mnt_namespace", "mnt_ns_tree_node")
	})
}

// maxNamespaces bounds how many namespaces are looked at.
const maxNamespaces = 1 << 18

// nsCensus counts who is where.
type nsCensus struct {
	s     *System
	o     *namespaceLayout
	l     *ProcessReader
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
		c := &nsCensus{s: s, o: o, l: s.NewProcessReader(), found: map[virt.Addr]*NamespaceInfo{}, kinds: map[virt.Addr]int{}}
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
	o, r, a := c.s.o, &c.l.r, t.Addr
	r.Err = nil
	pid, tid := int32(r.U32(a+virt.Addr(o.tgid))), int32(r.U32(a+virt.Addr(o.pid)))
	count := func(kind int, at virt.Addr) {
		n := c.seen(kind, at)
		if n == nil || r.Err != nil {
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
	count(c.o.users, r.Ptr(r.Ptr(a+virt.Addr(o.realCred))+virt.Addr(o.userNS)))
	if p := r.Ptr(a + virt.Addr(o.threadPid)); p != 0 {
		level := min(r.U32(p+virt.Addr(o.pidLevel)), 32)
		count(c.o.pid, r.Ptr(p+virt.Addr(o.pidNumbers)+virt.Addr(level*o.upidSize)+virt.Addr(o.upidNS)))
	}
	proxy := r.Ptr(a + virt.Addr(o.nsproxy))
	if proxy != 0 {
		for i, k := range c.o.kinds {
			count(i, r.Pointer(proxy, k.proxy))
			c.seen(i, r.Pointer(proxy, k.children))
		}
	}
	if r.Err != nil {
		if now, err := c.s.Space.Live().U64(a + virt.Addr(o.nsproxy)); err == nil && virt.Addr(now) != proxy {
			return nil // it ended, or went to others, while it was read
		}
		return fmt.Errorf("namespaces of task %#x: %w", uint64(a), r.Err)
	}
	return nil
}

// registers notes what stands on the kernel's own lists.
func (c *nsCensus) registers(ctx context.Context, fail func(error)) {
	kind := func(name string) int {
		return slices.IndexFunc(c.o.kinds, func(k nsKind) bool { return k.name == name })
	}
	if head, err := c.s.ListHead("net_namespace_list"); err == nil && c.o.netList.Present() {
		for node, err := range c.s.List(ctx, head, maxNamespaces) {
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
		if !node.Present() { // one tree only, with a node of its own
			node, base = c.o.mntNode, kobj.FieldAt(0, 0)
			ok = ok && k.name == "mnt"
		}
		if !ok || !node.Present() || !base.Present() {
			continue
		}
		for n, err := range c.s.RBTree(ctx, root, maxNamespaces) {
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
	var errs []error
	todo := slices.Sorted(maps.Keys(c.found))
	for len(todo) > 0 {
		a := todo[0]
		todo = todo[1:]
		k := c.o.kinds[c.kinds[a]]
		for i, f := range []kobj.Field{k.parent, k.owner} {
			kind := []int{c.kinds[a], c.o.users}[i]
			c.l.r.Err = nil
			p := c.l.r.Pointer(a, f)
			if c.l.r.Err != nil {
				errs = append(errs, fmt.Errorf("%s namespace at %#x: %w", k.name, uint64(a), c.l.r.Err))
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

// describe reads what n says about itself.
func (c *nsCensus) describe(n *NamespaceInfo) (err error) {
	r, k := &c.l.r, c.o.kinds[c.kinds[n.Addr]]
	r.Err = nil
	n.Inode = r.Uint(n.Addr, k.inum)
	inum := func(kind int, f kobj.Field) uint64 {
		if p := r.Pointer(n.Addr, f); p != 0 && kind >= 0 {
			return r.Uint(p, c.o.kinds[kind].inum)
		}
		return 0
	}
	n.Parent = inum(c.kinds[n.Addr], k.parent)
	n.Owner = inum(c.o.users, k.owner)
	if k.name == "user" {
		n.Owner, n.Creator, n.HasCreator = n.Parent, uint32(r.Uint(n.Addr, c.o.userOwner)), c.o.userOwner.Present()
	} else if u := r.Pointer(n.Addr, k.ucounts); u != 0 && c.o.uid.Present() {
		n.Creator, n.HasCreator = uint32(r.Uint(u, c.o.uid)), true
	}
	if k.name == "uts" && c.o.nodename.Present() {
		n.Hostname = kobj.CString(r.Bytes(c.o.nodename.At(n.Addr), 65))
	}
	if r.Err != nil {
		return fmt.Errorf("%s namespace at %#x: %w", k.name, uint64(n.Addr), r.Err)
	}
	return nil
}
