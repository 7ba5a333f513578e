package groundtruth

func init() {
	register(viewCase{view: "bpf"})
	register(viewCase{view: "bpf_maps"})
	register(viewCase{view: "bpf_links"})
	register(viewCase{view: "io_uring"})
}
