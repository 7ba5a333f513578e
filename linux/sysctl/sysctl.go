package sysctl

import (
	"context"
	"fmt"
	"iter"
	"math"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

const (
	maxSysctls     = 1 << 16 // each network interface adds some 150
	maxSysctlDepth = 16
	maxSysctlTable = 4096 // entries of one table
)

// Sysctl is one setting below /proc/sys.
type Sysctl struct {
	Name    string    // with dots; a dot within a part is a slash, as sysctl has it
	Mode    uint16    // permissions of its file
	Value   string    // as its file reads; meaningless unless Known
	Known   bool      // whether its handler is one whose answer can be told from memory
	Data    virt.Addr // variable that it is kept in; 0: its handler knows
	Handler virt.Addr // function that reads and sets it
	Addr    virt.Addr // of its struct ctl_table
}

type sysctlLayout struct {
	table, node, setDir, root              kobj.Field
	nodeNode, nodeHeader                   kobj.Field
	procname, data, maxlen, mode, handler  kobj.Field
	tableSize, nodeSize                    uint32
	defaultSet                             kobj.Field
	netSet, userSet, ipcSet, mqSet, pidSet kobj.Field
	handlers                               map[virt.Addr]sysctlKind
}

func sysctlLayoutOf(s *linux.System) (*sysctlLayout, error) {
	return kobj.LayoutOf(s.Walker, "sysctls", func(r *kobj.Resolver, o *sysctlLayout) {
		names := []string{"sysctl_table_root", "init_net", "init_user_ns", "init_ipc_ns", "init_pid_ns", "tick_nsec", "tsc_khz", "lpj_fine", "jiffies_64", "tainted_mask", "dac_mmap_min_addr", "sysrq_enabled", "sysrq_always_enabled", "seccomp_actions_logged"}
		for name := range sysctlKinds {
			names = append(names, name)
		}
		r.Prefetch(names...)
		const h, t = "ctl_table_header", "ctl_table"
		o.table, o.node = r.Field(h, "ctl_table"), r.Field(h, "node")
		o.root, o.setDir = r.Field("ctl_dir", "root"), r.Field("ctl_table_set", "dir")
		o.nodeNode, o.nodeHeader, o.nodeSize = r.Field("ctl_node", "node"), r.Field("ctl_node", "header"), r.Size("ctl_node")
		o.procname, o.data, o.maxlen = r.Field(t, "procname"), r.Field(t, "data"), r.Field(t, "maxlen")
		o.mode, o.handler, o.tableSize = r.Field(t, "mode"), r.Field(t, "proc_handler"), r.Size(t)
		o.defaultSet = r.Field("ctl_table_root", "default_set")
		o.netSet, o.userSet = r.Optional("net", "sysctls"), r.Optional("user_namespace", "set")
		o.ipcSet, o.mqSet = r.Optional("ipc_namespace", "ipc_set"), r.Optional("ipc_namespace", "mq_set") // 5.19
		o.pidSet = r.Optional("pid_namespace", "set")                                                     // 6.14
		o.handlers = map[virt.Addr]sysctlKind{}
		for name, kind := range sysctlKinds {
			if a, ok := s.Address(name); ok {
				o.handlers[a] = kind
			}
		}
	})
}

// Sysctls yields the settings below /proc/sys of the initial namespaces, folder by
// folder, each by name. They are found in the kernel's own tree, so that those which
// modules added are among them.
func Sysctls(ctx context.Context, s *linux.System) iter.Seq2[*Sysctl, error] {
	return sysctls(ctx, s, true)
}

// Entries yields what [Sysctls] does, without values: nothing is read but the tree itself, which hardly ever changes.
func Entries(ctx context.Context, s *linux.System) iter.Seq2[*Sysctl, error] {
	return sysctls(ctx, s, false)
}

func sysctls(ctx context.Context, s *linux.System, values bool) iter.Seq2[*Sysctl, error] {
	return func(yield func(*Sysctl, error) bool) {
		o, err := sysctlLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		root, err := s.SymbolAddr("sysctl_table_root")
		if err != nil {
			yield(nil, fmt.Errorf("sysctls: %w: %w", kobj.ErrUnsupported, err))
			return
		}
		w := sysctlWalk{s: s, ctx: ctx, o: o, r: s.Reader(), left: maxSysctls, yield: yield, values: values}
		if values {
			w.hz = hz(s)
		}
		sets := []virt.Addr{o.defaultSet.At(root)}
		for _, n := range []struct {
			symbol string
			set    kobj.Field
		}{{"init_net", o.netSet}, {"init_user_ns", o.userSet}, {"init_ipc_ns", o.ipcSet}, {"init_ipc_ns", o.mqSet}, {"init_pid_ns", o.pidSet}} {
			if a, ok := s.Address(n.symbol); ok && n.set.Present() {
				sets = append(sets, n.set.At(a))
			}
		}
		for _, set := range sets {
			if !w.dir(o.setDir.At(set), "", maxSysctlDepth) {
				return
			}
		}
	}
}

// usualHZ are the choices that a kernel's configuration offers for CONFIG_HZ.
var usualHZ = []uint64{100, 250, 300, 1000}

// hz is how many jiffies a second has (CONFIG_HZ); 0 where the kernel does not show it.
func hz(s *linux.System) uint64 {
	if a, ok := s.Address("tick_nsec"); ok { // until 7.0
		if v, err := s.Word(a); err == nil && v > 1e5 && v < 1e8 {
			return (1e9 + v/2) / v
		}
	}
	if hz := hzByDelay(s); hz != 0 {
		return hz
	}
	return hzByClock(s)
}

// hzByDelay goes by the delay loop, where that was set from the frequency of the time-stamp
// counter.
func hzByDelay(s *linux.System) uint64 {
	khz, ok1 := s.Address("tsc_khz")
	lpj, ok2 := s.Address("lpj_fine")
	if !ok1 || !ok2 {
		return 0
	}
	loops, err1 := s.Word(lpj)
	freq, err2 := s.Word(khz)
	freq = uint64(uint32(freq)) * 1000
	if err1 != nil || err2 != nil || loops == 0 {
		return 0
	}
	for _, hz := range usualHZ {
		if freq/hz >= loops && freq/hz-loops <= loops/100 {
			return hz
		}
	}
	return 0
}

// hzByClock goes by the jiffies and the seconds since boot.
func hzByClock(s *linux.System) uint64 {
	a, ok := s.Address("jiffies_64")
	clock, err1 := s.Clock()
	if !ok || err1 != nil {
		return 0
	}
	now, err := s.Word(a)
	if err != nil {
		return 0
	}
	return hzOf(now, (clock.Up - clock.Slept).Seconds())
}

// hzOf is how many jiffies a second has, by a count of them so many seconds after boot; 0
// where that does not show it. The count begins at what is -300 seconds for 32 bits
// (INITIAL_JIFFIES), so that it does not about 300 seconds after boot.
func hzOf(jiffies uint64, awake float64) uint64 {
	// A clock may run for a while before jiffies do.
	const most, apart = 2, 1 // seconds
	best, off, second := uint64(0), math.Inf(1), math.Inf(1)
	for _, hz := range usualHZ {
		d := math.Abs((float64(jiffies)-float64(1<<32))/float64(hz) + 300 - awake)
		if d < off {
			best, off, second = hz, d, off
		} else {
			second = min(second, d)
		}
	}
	if off > most || second-off < apart {
		return 0
	}
	return best
}

type sysctlWalk struct {
	s    *linux.System
	ctx  context.Context
	o    *sysctlLayout
	r    kobj.Reader
	left int
	// values are read, too, for which hz is needed.
	values bool
	hz     uint64
	yield  func(*Sysctl, error) bool
}

// dir walks the ctl_dir at a; false ends the walk.
func (w *sysctlWalk) dir(a virt.Addr, path string, depth int) bool {
	for node, err := range w.s.RBTree(w.ctx, w.o.root.At(a), maxSysctls) {
		if w.left--; w.left < 0 || depth == 0 {
			w.yield(nil, fmt.Errorf("sysctls: %s: %w: too many, or too deep", path, kobj.ErrBroken))
			return false
		}
		var e sysctlEntry
		if err == nil {
			e, err = w.entry(node-virt.Addr(w.o.nodeNode.Offset), path)
		}
		if err != nil {
			if !w.yield(nil, fmt.Errorf("sysctls: below %q: %w", path, err)) {
				return false
			}
			continue
		}
		const directory, link, kind = 0o040000, 0o120000, 0o170000
		switch e.mode & kind {
		case directory:
			// The header of a folder's own entry begins its ctl_dir.
			if !w.dir(e.header, e.Name, depth-1) {
				return false
			}
		case link: // what a namespace has of its own is in a set of its own
		default:
			if !w.yield(&e.Sysctl, nil) {
				return false
			}
		}
	}
	return true
}

type sysctlEntry struct {
	Sysctl
	mode   uint64
	header virt.Addr
}

// entry reads what the ctl_node at a stands for: the entry of its header's table that
// has the same number as the node has among the header's nodes.
func (w *sysctlWalk) entry(a virt.Addr, path string) (e sysctlEntry, err error) {
	o, r := w.o, &w.r
	r.Err = nil
	e.header = r.Pointer(a, o.nodeHeader)
	nodes, table := r.Pointer(e.header, o.node), r.Pointer(e.header, o.table)
	index := uint64(a-nodes) / uint64(o.nodeSize)
	if r.Err == nil && (a < nodes || index > maxSysctlTable) {
		return e, fmt.Errorf("node at %#x: %w: not one of those at %#x", uint64(a), kobj.ErrBroken, uint64(nodes))
	}
	t := table + virt.Addr(index*uint64(o.tableSize))
	name := strings.ReplaceAll(r.CString(r.Pointer(t, o.procname), linux.MaxName), ".", "/")
	if e.Name = name; path != "" {
		e.Name = path + "." + name
	}
	if len(e.Name) > linux.MaxPath {
		return e, fmt.Errorf("node at %#x: %w: a name of %d bytes", uint64(a), kobj.ErrBroken, len(e.Name))
	}
	e.mode = r.Uint(t, o.mode)
	e.Mode = uint16(e.mode & 0o7777)
	e.Addr, e.Data, e.Handler = t, r.Pointer(t, o.data), r.Pointer(t, o.handler)
	if kind := o.handlers[e.Handler]; r.Err == nil && kind.read != nil && w.values {
		data, n := e.Data, r.Uint(t, o.maxlen)
		if kind.variable != "" {
			data, _ = w.s.Address(kind.variable)
		}
		if data != 0 {
			e.Value, e.Known = kind.read(r, data, n, w.hz)
		}
		if a, ok := w.s.Address(kind.always); kind.always != "" && ok && r.Uint(a, kobj.FieldAt(0, 1)) != 0 {
			e.Value = "1"
		}
	}
	if r.Err != nil {
		return e, fmt.Errorf("node at %#x: %w", uint64(a), r.Err)
	}
	return e, nil
}
