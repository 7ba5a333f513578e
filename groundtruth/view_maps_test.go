package groundtruth

func init() {
	register(viewCase{view: "maps", args: []string{"--resident"}})
}
