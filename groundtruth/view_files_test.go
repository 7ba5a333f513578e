package groundtruth

func init() {
	register(viewCase{view: "files", keys: []string{"pid", "fd"}})
}
