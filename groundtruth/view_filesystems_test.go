package groundtruth

func init() {
	register(viewCase{view: "filesystems", keys: []string{"name"}})
	register(viewCase{view: "swaps", keys: []string{"path"}})
}
