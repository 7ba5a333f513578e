package groundtruth

func init() {
	register(viewCase{view: "interfaces", keys: []string{"net_ns", "index"}})
	register(viewCase{view: "routes", keys: []string{"net_ns", "table", "destination", "from", "tos", "metric", "type", "gateway", "interface"}})
	register(viewCase{view: "rules", keys: []string{"net_ns", "family", "priority", "from", "to", "fwmark", "table"}})
	register(viewCase{view: "neighbours", keys: []string{"net_ns", "interface", "address", "flags"}})
}
