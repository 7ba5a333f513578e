package groundtruth

func init() {
	register(viewCase{view: "namespaces", subset: true})
}
