package groundtruth

func init() {
	// Root may not view every key; nor does a guest report the kernel's own events.
	register(viewCase{view: "keys", subset: true})
	register(viewCase{view: "perf", subset: true})
}
