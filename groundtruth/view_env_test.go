package groundtruth

func init() {
	register(viewCase{view: "env", keys: []string{"pid", "index"}, ignore: ofTeller})
}
