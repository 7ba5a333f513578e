package groundtruth

func init() {
	register(viewCase{view: "libs", keys: []string{"pid", "base"}, ignore: ofTeller})
	register(viewCase{view: "elves", keys: []string{"pid", "start"}, ignore: ofTeller})
}
