package groundtruth

func init() {
	register(viewCase{view: "threads", ignore: ofTeller})
}
