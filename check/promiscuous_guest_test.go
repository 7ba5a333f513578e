package check_test

import (
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/virt"
)

// TestGuestPromiscuousCard: a sniffer has the kernel switch the card to promiscuous mode, and
// wipes that from all of the kernel's books. The card is asked, through QEMU.
func TestGuestPromiscuousCard(t *testing.T) {
	labtest.NeedQEMU(t)
	g := labtest.Up(t, lab.Options{Modules: []string{"virtio_net"}, QEMUArgs: []string{"-nic", "user,model=virtio-net-pci,restrict=on"}})
	labtest.Output(t, g, "modprobe virtio_net; ip link set eth0 up; echo ok")
	s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	only, err := check.Select([]string{"promiscuous"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	silentFor(t, s, only)
	// The driver asks the card for it in a work item, which reads the flag: what is written below must come later.
	labtest.Output(t, g, "ip link set eth0 promisc on; sleep 1; echo ok")
	look, err := s.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	z := &zoo{T: t, ram: labtest.OpenRAM(t, g), look: look}
	owners, err := look.Linux.Owners()
	if err != nil {
		t.Fatal(err)
	}
	var card virt.Addr
	for d, err := range network.Devices(t.Context(), look.Linux, owners) {
		if err == nil && d.Name == "eth0" {
			card = d.Addr
		}
	}
	if card == 0 {
		t.Fatal("there is no interface eth0")
	}
	const promiscuous = 0x100
	z.write(card+z.offset("net_device", "promiscuity"), make([]byte, 4))
	for member, size := range map[string]int{"flags": 4, "gflags": 2} {
		b := z.read(card+z.offset("net_device", member), size)
		b[1] &^= promiscuous >> 8
		z.write(card+z.offset("net_device", member), b)
	}
	r, err := check.Run(t.Context(), s, only)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Title, "eth0 does not say") {
		t.Errorf("found %v, gaps %v", r.Findings, r.Gaps)
	}
}
