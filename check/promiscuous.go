package check

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "promiscuous",
		Title:     "Interfaces that receive what is meant for others, and nobody asked for it",
		Severity:  High,
		Technique: "T1040", // Network Sniffing
		Source:    "net_device.promiscuity, flags and gflags, against packet_sock.mclist of all packet sockets; on a machine of QEMU's that runs, against what its virtio cards let through (query-rx-filter)",
		Proves: `An interface takes in all packets, and the kernel's count of those who asked for that is higher than those who can be seen to have: packet sockets of processes, the
administrator (ip link set promisc on), and devices on top such as bridges. Or the count and the flag that tools of the guest show contradict each other, which the kernel never lets happen, or the
machine's network card, which QEMU itself reports, takes in all packets while the kernel's flags say that it does not.`,
		Blind: `A sniffer that is a visible process with a packet socket is a fact, in the view sockets. Interfaces below bridges, bonds, VLANs and the like are promiscuous by
themselves, and not judged.`,
		Next: `Look for the socket in the view sockets (protocol packet), and for hidden processes with hidden-process. If the administrator's flag is set and nobody knows why,
somebody sniffed with a tool that has ended: "outsight dmesg TARGET" says when the interface entered promiscuous mode.`,
		Example: `Somebody set the flag, and no process sniffs:

    $ outsight check lab:demo --only promiscuous -o json | jq -r '.title, .seen'
    dummy0 is in promiscuous mode by the administrator's flag, and no process sniffs
    asked for 1 times; 0 by packet sockets, 1 by the administrator; flags 0x182`,
		Run: promiscuousInterfaces,
	})
}

// deviceLayout is struct net_device and packet_sock, as far as promiscuity goes.
type deviceLayout struct {
	flags, gflags, promisc, index, upper kobj.Field
	memberships, next, device, kind      kobj.Field // of packet_sock, packet_mclist
}

const (
	flagPromisc   = 0x100 // IFF_PROMISC
	memberPromisc = 1     // PACKET_MR_PROMISC
	maxMembers    = 4096  // memberships of one socket
)

func promiscuousInterfaces(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		o, err := kobj.LayoutOf(s.Linux.Walker, "promiscuous interfaces", func(r *kobj.Resolver, o *deviceLayout) {
			const d, p, m = "net_device", "packet_sock", "packet_mclist"
			o.flags, o.gflags, o.promisc, o.index = r.Field(d, "flags"), r.Field(d, "gflags"), r.Field(d, "promiscuity"), r.Field(d, "ifindex")
			o.upper = r.Field(d, "adj_list.upper")
			o.memberships, o.next, o.device, o.kind = r.Optional(p, "mclist"), r.Optional(m, "next"), r.Optional(m, "ifindex"), r.Optional(m, "type")
		})
		if err != nil {
			yield(nil, err)
			return
		}
		ks, err := s.Sockets()
		if err != nil {
			yield(nil, err)
			return
		}
		asked, err := s.askedPromiscuous(ks, o)
		if err != nil {
			yield(nil, err)
			return
		}
		open := s.openCards(ctx)
		names := network.NewDeviceNames(s.Linux)
		for n, err := range network.Namespaces(ctx, s.Linux) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for dev, err := range network.DeviceAddrs(ctx, s.Linux, n) {
				var f *Finding
				if err == nil {
					f, err = s.promiscuous(dev, n, o, asked)
				}
				if f == nil && err == nil {
					f, err = s.card(dev, o, open)
				}
				if f != nil {
					f.Object = Object{Kind: "interface", Name: names.Name(dev), Addr: dev}
					f.Title = f.Object.Name + " " + f.Title
				}
				if (f != nil || err != nil) && !yield(f, err) {
					return
				}
			}
		}
	}
}

// interfaceIn is an interface by its number in a namespace.
type interfaceIn struct {
	net   virt.Addr
	index uint64
}

// askedPromiscuous are the requests of packet sockets, by interface.
func (s *Subject) askedPromiscuous(ks *sockets, o *deviceLayout) (map[interfaceIn]int, error) {
	asked := map[interfaceIn]int{}
	if !o.memberships.Present() || !o.next.Present() {
		return asked, nil // no packet sockets, or those of a module that is not loaded
	}
	r := s.Linux.Reader()
	for _, k := range ks.all {
		if k.Family != network.FamilyPacket {
			continue
		}
		n := 0
		for m := r.Pointer(k.Addr, o.memberships); m != 0 && r.Err == nil && n < maxMembers; m = r.Pointer(m, o.next) {
			n++
			if r.Uint(m, o.kind) == memberPromisc {
				asked[interfaceIn{k.Net.Addr, r.Uint(m, o.device)}]++
			}
		}
		if r.Err != nil {
			return nil, fmt.Errorf("memberships of the packet socket at %#x: %w", uint64(k.Addr), r.Err)
		}
	}
	return asked, nil
}

func (s *Subject) promiscuous(dev virt.Addr, n network.Namespace, o *deviceLayout, asked map[interfaceIn]int) (*Finding, error) {
	r := s.Linux.Reader()
	flags, global, count := r.Uint(dev, o.flags), r.Uint(dev, o.gflags), r.Uint(dev, o.promisc)
	head := o.upper.At(dev)
	top := r.Ptr(head) == head // no device is on top of it
	known := asked[interfaceIn{n.Addr, r.Uint(dev, o.index)}]
	if r.Err != nil {
		return nil, fmt.Errorf("device at %#x: %w", uint64(dev), r.Err)
	}
	byAdministrator := 0
	if global&flagPromisc != 0 {
		byAdministrator = 1
	}
	f := &Finding{
		Confidence: Likely,
		Seen:       fmt.Sprintf("asked for %d times; %d by packet sockets, %d by the administrator; flags %#x", count, known, byAdministrator, flags),
		Evidence:   []Evidence{{Text: "its net_device", Addr: dev}},
		Basis:      "counters of the guest's kernel against its packet sockets",
		Show:       fmt.Sprintf("outsight struct {} net_device %#x", uint64(dev)),
	}
	switch {
	case flags&flagPromisc != 0 != (count != 0):
		f.Title, f.Confidence = "has a flag for promiscuous mode that contradicts the count of those who asked for it", Certain
		f.Expected = "IFF_PROMISC in flags if promiscuity is not 0, and only then"
	case top && count > uint64(known+byAdministrator):
		f.Title = "is in promiscuous mode, and nobody who can be seen asked for it"
		f.Expected = fmt.Sprintf("promiscuity of %d", known+byAdministrator)
	case top && byAdministrator != 0 && known == 0:
		f.Title, f.Severity, f.Confidence = "is in promiscuous mode by the administrator's flag, and no process sniffs", Low, Possible
		f.Expected = "promiscuous mode only where a process or a device on top needs it"
	default:
		return nil, nil
	}
	return f, nil
}
