package groundtruth

func init() {
	// Root may not view every key; nor does a guest tell of the kernel's own events.
	register(viewCase{view: "keys", keys: []string{"serial"}, subset: true})
	register(viewCase{view: "perf", keys: []string{"id"}, subset: true})
}
