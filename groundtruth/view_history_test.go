package groundtruth

// The shells of the server wrote their history down; others have none worth a file.
func init() {
	register(viewCase{view: "history", keys: []string{"pid", "index"}, subset: true})
}
