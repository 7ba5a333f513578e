package check

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// rxFilter is what a network card of QEMU's lets through (query-rx-filter in qapi/net.json).
type rxFilter struct {
	Name        string `json:"name"`
	Promiscuous bool   `json:"promiscuous"`
	MAC         string `json:"main-mac"`
}

// openCards are the cards that take in all packets, by their addresses. Only QEMU's virtio
// cards answer; of another monitor there are none.
func (s *Subject) openCards(ctx context.Context) map[string]rxFilter {
	if s.Machine == nil || s.Machine.Control.Monitor == nil {
		return nil
	}
	var filters []rxFilter
	if s.Machine.Control.Monitor.QMP(ctx, "query-rx-filter", nil, &filters) != nil {
		return nil // one more witness, where there is one
	}
	open := map[string]rxFilter{}
	for _, f := range filters {
		if mac, err := net.ParseMAC(f.MAC); err == nil && f.Promiscuous {
			open[mac.String()] = f
		}
	}
	return open
}

// cardLayout is where members lie that lead from an interface to its virtio card.
type cardLayout struct {
	mac, parent, driver, name, dev, features kobj.Field
}

func layoutOfCards(s *linux.System) (*cardLayout, error) {
	return kobj.LayoutOf(s.Walker, "virtio cards", func(r *kobj.Resolver, o *cardLayout) {
		o.mac, o.parent = r.Field("net_device", "dev_addr"), r.Field("net_device", "dev.parent")
		o.driver, o.name = r.Field("device", "driver"), r.Field("device_driver", "name")
		o.dev, o.features = r.Field("virtio_device", "dev"), r.Field("virtio_device", "features")
	})
}

// card judges a card that takes in all packets: its interface must say so. A card does from
// when it is made until its driver sets what it wants, which one can that has
// VIRTIO_NET_F_CTRL_RX.
func (s *Subject) card(dev virt.Addr, o *deviceLayout, open map[string]rxFilter) (*Finding, error) {
	if len(open) == 0 {
		return nil, nil
	}
	c, err := layoutOfCards(s.Linux)
	if errors.Is(err, kobj.ErrUnsupported) {
		return nil, nil // without virtio
	} else if err != nil {
		return nil, err
	}
	const up, controlRX, macSize = 1, 1 << 18, 6 // IFF_UP, VIRTIO_NET_F_CTRL_RX
	r := s.Linux.Reader()
	flags, parent := r.Uint(dev, o.flags), r.Pointer(dev, c.parent)
	if r.Err != nil || parent == 0 || flags&up == 0 || flags&flagPromisc != 0 {
		return nil, r.Err
	}
	driver := r.Pointer(parent, c.driver)
	if driver == 0 || r.CString(r.Pointer(driver, c.name), linux.MaxName) != "virtio_net" || r.Err != nil {
		return nil, r.Err
	}
	card := parent - c.dev.At(0)
	mac := net.HardwareAddr(r.Bytes(r.Pointer(dev, c.mac), macSize)).String()
	if r.Uint(card, c.features)&controlRX == 0 || r.Err != nil {
		return nil, r.Err
	}
	f, is := open[mac]
	if !is {
		return nil, nil
	}
	return &Finding{
		Confidence: Certain,
		Title:      "does not say that it is in promiscuous mode, and its network card is",
		Aspect:     "card",
		Expected:   fmt.Sprintf("IFF_PROMISC in flags while the card takes in all packets (QEMU's %q)", f.Name),
		Seen:       fmt.Sprintf("flags %#x; the card with address %s is promiscuous", flags, mac),
		Evidence:   []Evidence{{Text: "its net_device", Addr: dev}, {Text: "its virtio_device", Addr: card}},
		Basis:      "the machine's network card, which QEMU reports, against the guest's kernel",
		Show:       fmt.Sprintf("outsight struct {} net_device %#x", uint64(dev)),
	}, nil
}
