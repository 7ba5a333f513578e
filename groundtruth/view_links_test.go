package groundtruth

func init() {
	register(viewCase{view: "interfaces"})
	register(viewCase{view: "routes"})
	register(viewCase{view: "ip_rules"})
	register(viewCase{view: "neighbours"})
}
