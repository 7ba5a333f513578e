package groundtruth

func init() {
	register(viewCase{view: "maps", keys: []string{"pid", "start"}, args: []string{"--resident"}})
}
