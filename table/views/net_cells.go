package views

import (
	"net/netip"

	"github.com/outsight-vmi/outsight/table"
)

// familyNames are the address families by number, in the words of ip and ss.
var familyNames = map[uint16]string{
	1: "unix", 2: "inet", 10: "inet6", 15: "key", 16: "netlink", 17: "packet", 21: "rds", 29: "can",
	30: "tipc", 31: "bluetooth", 38: "alg", 39: "nfc", 40: "vsock", 41: "kcm", 42: "qipcrtr", 43: "smc", 44: "xdp", 45: "mctp",
}

// ipCell is a cell of an IP address.
func ipCell(a netip.Addr) table.Value {
	if !a.IsValid() {
		return table.Missing(table.None)
	}
	return table.TextValue(a.String())
}
