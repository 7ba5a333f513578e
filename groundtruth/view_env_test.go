package groundtruth

func init() {
	register(viewCase{view: "env", ignore: ofTeller})
}
