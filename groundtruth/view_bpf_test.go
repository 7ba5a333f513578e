package groundtruth

func init() {
	register(viewCase{view: "bpf", keys: []string{"id"}})
	register(viewCase{view: "bpf_maps", keys: []string{"id"}})
	register(viewCase{view: "bpf_links", keys: []string{"id"}})
	register(viewCase{view: "io_uring", keys: []string{"pid", "fd"}})
}
