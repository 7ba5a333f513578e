package groundtruth

func init() {
	// Nobody is told of what lies outside every process' own root.
	register(viewCase{view: "mounts", subset: true})
}
