package groundtruth

func init() {
	register(viewCase{view: "filesystems"})
	register(viewCase{view: "swaps"})
}
