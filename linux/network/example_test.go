package network_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/network"
)

var (
	ctx    = context.Background()
	system *linux.System // of the guest that the examples look at
)

func ExampleNamespaces() {
	for n, err := range network.Namespaces(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(n.Inode)
	}
}

func ExampleSockets() {
	for s, err := range network.Sockets(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(s.Protocol, s.Local, s.LocalPort, s.Remote, s.RemotePort, s.State)
	}
}

func ExampleDevices() {
	owners, err := system.Owners()
	if err != nil {
		log.Print(err)
		return
	}
	for d, err := range network.Devices(ctx, system, owners) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(d.Name, d.Addresses, d.Promisc)
	}
}

func ExampleRoutes() {
	for r, err := range network.Routes(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(r.Dst, r.Gateway, r.Interface)
	}
}

func ExampleNeighbours() {
	for n, err := range network.Neighbours(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(n.IP, net.HardwareAddr(n.MAC), n.Interface)
	}
}

func ExampleRules() {
	for r, err := range network.Rules(ctx, system) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(r.Priority, r.From, r.To, r.Table)
	}
}
