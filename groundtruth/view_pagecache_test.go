package groundtruth

func init() {
	// The guest tells of what has a name, and only one.
	keys := []string{"path", "device", "inode"}
	register(viewCase{view: "pagecache", keys: keys, subset: true})
	register(viewCase{view: "tmpfs", only: []string{"5.10", "6.1", "6.12"}, // on 7.2 it differed once, and why is not known keys: keys, subset: true})
}
