package groundtruth

func init() {
	// The guest reports what has a name, and only one.
	keys := []string{"path", "device", "inode"}
	register(viewCase{view: "pagecache", keys: keys, subset: true})
	register(viewCase{view: "tmpfs", keys: keys, subset: true})
}
