package groundtruth

func init() {
	register(viewCase{view: "namespaces", keys: []string{"type", "inode"}, subset: true})
}
