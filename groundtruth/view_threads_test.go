package groundtruth

func init() {
	register(viewCase{view: "threads", keys: []string{"pid", "tid"}, ignore: ofTeller})
}
