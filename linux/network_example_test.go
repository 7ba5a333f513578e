package linux_test

import (
	"fmt"
	"log"
	"net"
)

func ExampleSystem_NetNamespaces() {
	for n, err := range system.NetNamespaces(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(n.Inode)
	}
}

func ExampleSystem_Sockets() {
	for s, err := range system.Sockets(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(s.Protocol, s.Local, s.LocalPort, s.Remote, s.RemotePort, s.State)
	}
}

func ExampleSystem_NetDevices() {
	owners, err := system.Owners()
	if err != nil {
		log.Print(err)
		return
	}
	for d, err := range system.NetDevices(ctx, owners) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(d.Name, d.Addresses, d.Promisc)
	}
}

func ExampleSystem_Routes() {
	for r, err := range system.Routes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(r.Dst, r.Gateway, r.Interface)
	}
}

func ExampleSystem_Neighbours() {
	for n, err := range system.Neighbours(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(n.IP, net.HardwareAddr(n.MAC), n.Interface)
	}
}

func ExampleSystem_NetfilterHooks() {
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for h, err := range system.NetfilterHooks(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(h.Family, h.Hook, h.Priority, owners.Of(h.Function))
	}
}

func ExampleSystem_Rules() {
	for r, err := range system.Rules(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(r.Priority, r.From, r.To, r.Table)
	}
}
