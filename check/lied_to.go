package check

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/trace/told"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "lied-to",
		Title:     "Processes, modules, sockets, files and BPF programs that the kernel left out when a program of the guest asked for them",
		Severity:  High,
		Technique: "T1014", // Rootkit
		Source: `results of getdents64, read, recvmsg, recvmmsg and bpf(2), and of reads by io_uring, as they are in the program's memory when the call returns (--listen), against the tasks, modules, sockets, interfaces, BPF objects
and dentries that the kernel holds`,
		Proves: `A program of the guest asked the kernel what there is, and got a complete answer that leaves something out which was there before and after, by the guest's memory. Something in
the kernel filters what programs are told: a hooked function, a changed table, a BPF program. No agent and no account in the guest is used: the answer is the one that the guest's own ps, ss or ls got.`,
		Blind: `What no program asked for while outsight listened, and what it asked for in another way: over netlink by splice, or through io_uring before Linux 6.0 or, there,
by one request for many answers (multishot) or by recv into a buffer that the kernel selects (the files of /proc that are compared can neither be mapped nor sent). What began or ended in that time. A
library that filters above the system call (preload). A file that nobody used of late, so that the kernel keeps no name of it. Directories of file systems that fold case or are served by others (vfat, NFS,
FUSE). Processes in a /proc that hides those of others by itself (hidepid).`,
		Next: `The finding names the program that was lied to, the system call, and what was kept from it. Look for who filters: code-pointer, ftrace-triple, kernel-text, module-hook and hidden-bpf find
the hook; "outsight trace TARGET --syscalls getdents64,read,recvmsg,bpf" shows the answers as they come.`,
		Example: `A rootkit hooks the function that fills in directories, and leaves one process out of /proc. The guest's own ps runs while outsight listens; the machine's QEMU has
outsight's plugin (docs/tracing.md):

    $ outsight check lab:demo --listen 10s --only lied-to
    SEVERITY  CONFIDENCE  CHECK    TITLE
    high      likely      lied-to  process 412 (sleep) was hidden from ps (process 431): getdents64 of /proc left it out
    outsight: listened for 10s: 7 complete answers to 2 programs compared with the guest's memory`,
		Listens: true,
		Run:     liedTo,
	})
}

func liedTo(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		switch {
		case s.heard == nil:
			yield(nil, errNotListened)
			return
		case s.heard.boot != s.Boot:
			yield(nil, fmt.Errorf("what programs were told: %w", rebooted(s.Target)))
			return
		}
		c := &listening{Subject: s, ctx: ctx, heard: s.heard, now: hold(ctx, s), yield: yield}
		for _, err := range slices.Concat(s.heard.before.errs, c.now.errs) {
			if !yield(nil, err) {
				return
			}
		}
		if lost := s.heard.Lost; lost > 0 && !yield(nil, fmt.Errorf("%w: %s found no room: the guest is too busy; listen for less time", errLost, plural(int(min(lost, 1<<40)), "system call"))) {
			return
		}
		if n := s.heard.Dropped; n > 0 && !yield(nil, fmt.Errorf("%w: %s could not be kept; listen for less time", errLost, plural(int(min(n, 1<<40)), "answer"))) {
			return
		}
		for _, judge := range []func() bool{c.processes, c.modules, c.sockets, c.interfaces, c.bpf, c.files} {
			if ctx.Err() != nil || !judge() {
				return
			}
		}
	}
}

// listening is one run of the check.
type listening struct {
	*Subject
	ctx   context.Context
	heard *heard
	now   *holdings
	yield func(*Finding, error) bool
}

// of are the readings of a kind, in the order in which they were made.
func (c *listening) of(k told.Kind) (all []*told.Reading) {
	for _, r := range c.heard.Readings {
		// Of a socket nothing shows that an answer is missing.
		if r.Kind == k && (c.heard.Lost == 0 || !r.FromSocket()) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b *told.Reading) int { return a.Began.Compare(b.Began) })
	return all
}

// left is the finding about something that answers left out which were to have it; nil if there is none. counted says that
// the kernel counts what it has told already between the calls of one answer, so that it skips something if another that
// came before it goes meanwhile.
func (c *listening) left(o Object, what, show string, counted bool, readings []*told.Reading, has func(*told.Reading) bool) *Finding {
	var without []*told.Reading
	with, sure, altered := 0, false, false
	for _, r := range readings {
		if has(r) {
			with++
			continue
		}
		without = append(without, r)
		altered = altered || r.Altered
		sure = sure || !counted || r.Calls == 1
	}
	if len(without) == 0 || !sure && (len(without) < 2 || with > 0) {
		return nil
	}
	first := without[0]
	f := &Finding{
		Confidence: Likely, Object: o, Aspect: "told",
		Title:    fmt.Sprintf("%s was hidden from %s (process %d): %s of %s left it out", what, first.Reader.Comm, first.Reader.PID, first.Call, first.What),
		Expected: fmt.Sprintf("in %s, as it was there before and after", plural(len(readings), "answer")),
		Seen:     fmt.Sprintf("left out of %d", len(without)),
		Basis:    "what the guest's kernel told its programs, seen as the system calls returned, compared with its memory", Show: show,
	}
	if o.Addr != 0 {
		f.Evidence = append(f.Evidence, Evidence{Text: "the " + o.Kind, Addr: o.Addr})
	}
	if altered {
		f.Seen += ", which was changed after the kernel's function had returned it: a BPF program on a tracepoint, or a tracer, did that"
	}
	shown := map[string]bool{}
	for _, r := range without {
		if text := r.String(); !shown[text] && len(shown) < maxReaders {
			shown[text] = true
			f.Evidence = append(f.Evidence, Evidence{Text: text + " at " + r.Ended.Format("15:04:05.000")})
		}
	}
	return f
}

// maxReaders bounds the programs that one finding names.
const maxReaders = 5

// found yields a finding that there may be.
func (c *listening) found(f *Finding) bool { return f == nil || c.yield(f, nil) }

func (c *listening) processes() bool {
	proc := c.of(told.Directory)
	proc = slices.DeleteFunc(proc, func(r *told.Reading) bool { return r.File.Magic != told.MagicProc })
	byNS := map[virt.Addr][]*told.Reading{}
	for _, r := range proc {
		ns, hides, err := c.pidNamespace(r.File.Super)
		if err != nil {
			return c.yield(nil, fmt.Errorf("the file system that %v is of: %w", r, err))
		}
		if ns != 0 && !hides {
			byNS[ns] = append(byNS[ns], r)
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(c.now.processes), func(a, b taskKey) int { return cmp.Compare(a.pid, b.pid) }) {
		p := c.now.processes[key]
		if c.heard.before.processes[key] == nil {
			continue
		}
		for ns, number := range p.numbers {
			f := c.left(Object{Kind: "process", Name: p.comm, PID: p.pid, Addr: p.addr}, fmt.Sprintf("process %d (%s)", p.pid, p.comm),
				fmt.Sprintf("outsight ps {} --pid %d", p.pid), false, byNS[ns],
				func(r *told.Reading) bool { return r.Names[strconv.Itoa(int(number))] })
			if f != nil {
				if !c.yield(f, nil) {
					return false
				}
				break
			}
		}
	}
	return true
}

// procLayout is what a /proc knows of itself.
type procLayout struct{ magic, info, ns, hides kobj.Field }

// pidNamespace is the PID namespace that a mounted /proc shows, and whether it hides the processes of others; 0: it is not
// mounted any more.
func (c *listening) pidNamespace(super virt.Addr) (ns virt.Addr, hides bool, err error) {
	o, err := kobj.LayoutOf(c.Linux.Walker, "file systems of processes", func(r *kobj.Resolver, o *procLayout) {
		o.magic, o.info = r.Field("super_block", "s_magic"), r.Field("super_block", "s_fs_info")
		o.ns, o.hides = r.Field("proc_fs_info", "pid_ns"), r.Field("proc_fs_info", "hide_pid") // 5.8
	})
	if err != nil {
		return 0, false, err
	}
	r := c.Linux.Reader()
	if r.Uint(super, o.magic) != told.MagicProc || r.Err != nil {
		return 0, false, nil //nolint:nilerr // it was unmounted meanwhile
	}
	info := r.Pointer(super, o.info)
	if info == 0 || r.Err != nil {
		return 0, false, nil //nolint:nilerr // it was unmounted meanwhile
	}
	const invisible = 2 // HIDEPID_INVISIBLE, HIDEPID_NOT_PTRACEABLE
	ns, hides = r.Pointer(info, o.ns), r.Uint(info, o.hides) >= invisible
	return ns, hides, r.Err
}

func (c *listening) modules() bool {
	readings := c.of(told.Modules)
	for _, r := range c.of(told.Directory) {
		if r.What == "/sys/module" {
			readings = append(readings, r)
		}
	}
	for addr, m := range c.now.modules {
		name := m.name
		if c.heard.before.modules[addr] != m {
			continue
		}
		f := c.left(Object{Kind: "module", Name: name, Addr: addr}, "module "+name, fmt.Sprintf("outsight struct {} module %#x", uint64(addr)),
			true, readings, func(r *told.Reading) bool { return r.Names[name] })
		if !c.found(f) {
			return false
		}
	}
	return true
}

func (c *listening) sockets() bool {
	type table struct {
		net  virt.Addr
		name string
	}
	tables := map[table][]*told.Reading{}
	for _, r := range c.of(told.Sockets) {
		t := table{r.Net(), r.Table}
		tables[t] = append(tables[t], r)
	}
	if len(tables) == 0 {
		return true
	}
	for key, k := range c.now.sockets {
		if c.heard.before.sockets[key] == nil {
			continue
		}
		name := k.Protocol
		if k.Family == network.FamilyInet6 {
			name += "6"
		}
		asked := slices.DeleteFunc(slices.Clone(tables[table{k.Net.Addr, name}]), func(r *told.Reading) bool {
			return k.State > 31 || r.States>>k.State&1 == 0
		})
		what := describeSocket(k)
		o := Object{Kind: "socket", Name: what, Addr: k.Addr}
		show := fmt.Sprintf("outsight sockets {} --where 'inode == %d'", k.Inode)
		if k.Protocol == "unix" {
			what = "unix socket " + cmp.Or(k.Path, strconv.FormatUint(k.Inode, 10))
			o.Name = cmp.Or(k.Path, strconv.FormatUint(k.Inode, 10))
		}
		if len(k.PIDs) > 0 {
			what += fmt.Sprintf(" of process %d", k.PIDs[0])
		}
		if !c.found(c.left(o, what, show, true, asked, func(r *told.Reading) bool { return r.Inodes[k.Inode] })) {
			return false
		}
	}
	return true
}

func (c *listening) interfaces() bool {
	readings := c.of(told.Interfaces)
	for _, r := range c.of(told.Directory) {
		if r.What != "/sys/class/net" {
			continue
		}
		net, err := c.netOfSysfs(r.File.Super)
		if err != nil {
			return c.yield(nil, fmt.Errorf("the file system that %v is of: %w", r, err))
		}
		of := *r
		of.File.Net = net
		readings = append(readings, &of)
	}
	for i := range c.now.interfaces {
		if !c.heard.before.interfaces[i] {
			continue
		}
		asked := slices.DeleteFunc(slices.Clone(readings), func(r *told.Reading) bool { return r.Net() != i.net })
		f := c.left(Object{Kind: "interface", Name: i.name, Addr: i.addr}, "interface "+i.name, fmt.Sprintf("outsight struct {} net_device %#x", uint64(i.addr)),
			true, asked, func(r *told.Reading) bool { return r.Names[i.name] })
		if !c.found(f) {
			return false
		}
	}
	return true
}

type sysfsLayout struct{ magic, info, ns, common kobj.Field }

// netOfSysfs is the network namespace whose interfaces a mounted /sys shows; 0: it is not mounted any more.
func (c *listening) netOfSysfs(super virt.Addr) (virt.Addr, error) {
	o, err := kobj.LayoutOf(c.Linux.Walker, "namespaces of sysfs", func(r *kobj.Resolver, o *sysfsLayout) {
		o.magic, o.info = r.Field("super_block", "s_magic"), r.Field("super_block", "s_fs_info")
		o.ns, o.common = r.Field("kernfs_super_info", "ns"), r.Optional("net", "ns")
	})
	if err != nil {
		return 0, err
	}
	r := c.Linux.Reader()
	if r.Uint(super, o.magic) != told.MagicSysfs || r.Err != nil {
		return 0, nil //nolint:nilerr // it was unmounted meanwhile
	}
	net := r.Pointer(r.Pointer(super, o.info), o.ns)
	if !c.now.namespaces[net] && o.common.Present() {
		net -= o.common.At(0) // 7.x has what all kinds of namespaces have in common there
	}
	return net, r.Err
}

func (c *listening) bpf() bool {
	readings := c.of(told.BPF)
	kinds := map[string]string{"prog": "BPF program", "map": "BPF map", "link": "BPF link"}
	structures := map[string]string{"prog": "bpf_prog", "map": "bpf_map", "link": "bpf_link"}
	for b, name := range c.now.bpf {
		if _, was := c.heard.before.bpf[b]; !was || b.id == 0 {
			continue
		}
		// One that says which comes next says of all that lie between that they are not there.
		asked := slices.DeleteFunc(slices.Clone(readings), func(r *told.Reading) bool {
			switch {
			case r.Objects != b.objects:
				return true
			case r.Only:
				return r.Next != b.id
			}
			return b.id <= r.After || r.Next != 0 && b.id > r.Next
		})
		what := fmt.Sprintf("%s %d", kinds[b.objects], b.id)
		if name != "" {
			what += " (" + name + ")"
		}
		f := c.left(Object{Kind: kinds[b.objects], Name: strconv.FormatUint(uint64(b.id), 10), Addr: b.addr}, what,
			fmt.Sprintf("outsight struct {} %s %#x", structures[b.objects], uint64(b.addr)), false, asked,
			func(r *told.Reading) bool { return !r.Only && r.Next == b.id })
		if !c.found(f) {
			return false
		}
	}
	return true
}
