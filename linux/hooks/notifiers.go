package hooks

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Notifier is one function on one of the kernel's notifier chains.
type Notifier struct {
	Chain    string    // name of the variable that heads the chain
	Kind     string    // atomic, blocking, raw, srcu
	Head     virt.Addr // of the chain
	Addr     virt.Addr // struct notifier_block
	Func     virt.Addr
	Priority int
}

type notifierLayout struct {
	call, next, priority               kobj.Field
	atomic, blocking, raw, srcu        kobj.Field
	atomicSize, blockingSize, srcuSize uint32
	waiters                            kobj.Field // in struct rw_semaphore
	waitersAreList                     bool
	netdevChain                        kobj.Field      // in struct net
	heads                              []kernel.Extent // variables that can be heads, by name
}

func notifierLayoutOf(s *linux.System) (*notifierLayout, error) {
	return kobj.LayoutOf(s.Walker, "notifier chains", func(r *kobj.Resolver, o *notifierLayout) {
		r.Prefetch("init_net")
		const b = "notifier_block"
		o.call, o.next, o.priority = r.Field(b, "notifier_call"), r.Field(b, "next"), r.Field(b, "priority")
		o.atomic, o.blocking = r.Field("atomic_notifier_head", "head"), r.Field("blocking_notifier_head", "head")
		o.raw, o.srcu = r.Field("raw_notifier_head", "head"), r.Optional("srcu_notifier_head", "head")
		o.atomicSize, o.blockingSize = r.Size("atomic_notifier_head"), r.Size("blocking_notifier_head")
		if o.srcu.Present() {
			o.srcuSize = r.Size("srcu_notifier_head")
		}
		o.waiters = r.Optional("rw_semaphore", "first_waiter", "wait_list") // 7.1
		o.waitersAreList = o.waiters.Size == 16
		o.netdevChain = r.Optional("net", "netdev_chain.head") // 5.5
		// The name holds what decides: with other words it is another choice.
		heads, err := r.Profile.Choose(fmt.Sprint("notifier heads", headWords, headNames), func(sym kernel.Symbol) bool {
			return !sym.Percpu && strings.ContainsRune("dDbBtT", rune(sym.Type)) && headName(sym.Name)
		})
		if err != nil {
			r.Errs = append(r.Errs, err)
		}
		o.heads = slices.SortedFunc(slices.Values(heads), func(a, b kernel.Extent) int { return strings.Compare(a.Name, b.Name) })
	})
}

// headWords are the ways in which the kernel's source names heads of notifier
// chains. Others that fit the names are sorted out by their content.
var headWords = []string{"_notifier_list", "_notify_list", "_notifier_chain", "_notifier_head", "_notify_head", "_notifier", "_notifiers", "_chain", "_nh", "_chain_head", "_notify_chain", "_notifications", "_event_nh"}

// headNames are heads with other names.
var headNames = map[string]bool{
	"inetaddr_validator_chain": true, "munmap_notifier": true, "task_free_notifier": true, "clocksource_list": false,
	"panic_notifier_list": true, "reboot_notifier_list": true, "fb_notifier_list": true, "cpu_notify": true,
	"vt_notifier_list": true, "netlink_chain": true, "mce_decoder_chain": true, "x86_mce_decoder_chain": true,
	"acpi_bus_notify_list": true, "lsm_notifier": true, "blocking_lsm_notifier_chain": true, "switchdev_blocking_notif_chain": true,
	"switchdev_notif_chain": true, "fib_chain": true, "oom_notify_list": true, "s2idle_ops": false, "power_off_handler_list": true,
	"restart_handler_list": true, "restart_prep_handler_list": true, "profile_flip_hook": false, "crypto_chain": true, "hci_notifier": false,
}

func headName(name string) bool {
	if known, ok := headNames[name]; ok {
		return known
	}
	for _, w := range headWords {
		if strings.HasSuffix(name, w) {
			return true
		}
	}
	return false
}

// maxNotifiers bounds one chain.
const maxNotifiers = 4096

// Notifiers yields the functions on the notifier chains of the kernel's image, by
// name of the chain, in the order in which they are called. What is a chain is told by the
// names of variables and by their content: every function must be one of the kernel's,
// or lie in memory that can be executed.
func Notifiers(ctx context.Context, s *linux.System, owners *linux.Owners) iter.Seq2[*Notifier, error] {
	return func(yield func(*Notifier, error) bool) {
		if !s.NamesVariables() {
			yield(nil, fmt.Errorf("notifier chains: %w: %w", kobj.ErrUnsupported, s.NoSymbol("reboot_notifier_list")))
			return
		}
		o, err := notifierLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, h := range o.heads {
			if ctx.Err() != nil {
				yield(nil, ctx.Err())
				return
			}
			a := s.Text + virt.Addr(h.Rel)
			for _, n := range chainAt(s, o, owners, h, a) {
				if !yield(n, nil) {
					return
				}
			}
		}
		if net, ok := s.Address("init_net"); ok && o.netdevChain.Present() {
			chain, err := notifierChain(s, o, o.netdevChain.At(net))
			if err != nil {
				err = fmt.Errorf("chain init_net.netdev_chain: %w", err)
				if !yield(nil, err) {
					return
				}
			}
			for _, n := range chain {
				n.Chain, n.Kind = "init_net.netdev_chain", "raw"
				if !yield(n, nil) {
					return
				}
			}
		}
	}
}

// chainAt are the functions of the chain whose head the variable is; none if it
// is not a head, or is empty.
func chainAt(s *linux.System, o *notifierLayout, owners *linux.Owners, h kernel.Extent, a virt.Addr) []*Notifier {
	b := make([]byte, min(h.Size, max(uint64(o.srcuSize), uint64(o.blockingSize), 64)))
	if len(b) < 8 || s.ReadAt(b, a) != nil {
		return nil
	}
	word := func(off uint32) uint64 {
		if int(off)+8 > len(b) {
			return 1 // no pointer
		}
		return binary.LittleEndian.Uint64(b[off:])
	}
	idle := func(off uint32) bool { // a semaphore's waiters: none, or a list of them
		v := word(off)
		return !o.waitersAreList && v == 0 || o.waitersAreList && (v == uint64(a)+uint64(off) || s.Space.KernelHalf(virt.Addr(v)))
	}
	try := func(kind string, head uint32) []*Notifier {
		first := virt.Addr(word(head))
		if first == 0 || !s.Space.KernelHalf(first) || first%8 != 0 || first == a+virt.Addr(head) {
			return nil
		}
		chain, err := notifierChain(s, o, a+virt.Addr(head))
		if err != nil || len(chain) == 0 {
			return nil
		}
		for i, n := range chain {
			if i > 0 && n.Priority > chain[i-1].Priority {
				return nil
			}
			// Code that belongs to nobody is what is looked for: it only has to be code.
			w := owners.CodeAt(n.Func)
			if w.Kind == linux.OwnerKernel && w.Offset != 0 || w.Kind == linux.OwnerNone && !executable(s, n.Func) {
				return nil
			}
			n.Chain, n.Kind, n.Head = h.Name, kind, a
		}
		return chain
	}
	// The larger kinds first: the head of a chain is their last member.
	if o.srcu.Present() && h.Size >= uint64(o.srcuSize) {
		if c := try("srcu", o.srcu.Offset); c != nil {
			return c
		}
	}
	if h.Size >= uint64(o.blockingSize) && o.waiters.Present() && idle(o.waiters.Offset) {
		return try("blocking", o.blocking.Offset)
	}
	if h.Size >= uint64(o.atomicSize) && word(0)>>32 == 0 {
		if c := try("atomic", o.atomic.Offset); c != nil {
			return c
		}
	}
	return try("raw", o.raw.Offset)
}

// notifierChain reads the chain behind a head.
func notifierChain(s *linux.System, o *notifierLayout, link virt.Addr) (chain []*Notifier, err error) {
	seen := map[virt.Addr]bool{}
	r := s.Reader()
	for a := r.Ptr(link); a != 0 && r.Err == nil; a = r.Pointer(a, o.next) {
		if seen[a] || len(seen) == maxNotifiers || !s.Space.KernelHalf(a) || a%8 != 0 {
			return chain, fmt.Errorf("block at %#x: %w", uint64(a), kobj.ErrBroken)
		}
		seen[a] = true
		n := &Notifier{Head: link, Addr: a, Func: r.Pointer(a, o.call), Priority: int(r.Int(a, o.priority))}
		if r.Err == nil {
			chain = append(chain, n)
		}
	}
	return chain, r.Err
}

// executable reports whether the kernel's page tables let the processor run what is
// at a.
func executable(s *linux.System, a virt.Addr) bool {
	p, err := s.Space.Translate(a)
	return err == nil && p.Executable() && s.Space.KernelHalf(a)
}
